//! Guests that want too much: time, CPU, memory. Each is stopped, named, and harms nobody.

use crate::harness::{Caller, invoke_error, load};
use http_body_util::BodyExt as _;
use neap_wasm_runtime::{CallLimits, InvokeError};
use std::time::{Duration, Instant};

fn limited(wall_ms: u64, cpu_ms: u64) -> Caller {
    let limits = CallLimits {
        memory_bytes: 16 << 20,
        wall: Duration::from_millis(wall_ms),
        cpu: Duration::from_millis(cpu_ms),
    };
    Caller { limits, ..Caller::default() }
}

#[tokio::test]
async fn a_loop_is_stopped_when_its_time_is_up() {
    for name in ["behave", "p3"] {
        let program = load(name).await;
        let (caller, start) = (limited(100, 60_000), Instant::now());
        let error = caller.get(&program, "/spin").await.expect_err("stopped");
        assert_eq!(error, InvokeError::Timeout(Duration::from_millis(100)), "{name}");
        assert!(start.elapsed() < Duration::from_secs(5), "{name}: {:?}", start.elapsed());
        assert!(caller.meter.cpu_us() > 10_000, "{name}: {} us", caller.meter.cpu_us());
    }
}

#[tokio::test]
async fn a_loop_is_stopped_when_its_cpu_time_is_used_up() {
    let behave = load("behave").await;
    let caller = limited(60_000, 50);
    let error = caller.get(&behave, "/spin").await.expect_err("stopped");
    assert_eq!(error, InvokeError::CpuExhausted(Duration::from_millis(50)));
    assert!((50_000..2_000_000).contains(&caller.meter.cpu_us()), "{} us", caller.meter.cpu_us());
}

#[tokio::test]
async fn waiting_costs_wall_time_and_no_cpu_time() {
    let behave = load("behave").await;
    let caller = limited(100, 60_000);
    let error = caller.get(&behave, "/sleep?60000").await.expect_err("stopped");
    assert_eq!(error, InvokeError::Timeout(Duration::from_millis(100)));
    assert!(caller.meter.cpu_us() < 90_000, "{} us", caller.meter.cpu_us());
}

#[tokio::test]
async fn time_runs_on_after_the_head() {
    let behave = load("behave").await;
    for path in ["/spin-late", "/tick?10000"] {
        let body = limited(1_000, 60_000).get(&behave, path).await.expect("head").into_body();
        let error = body.collect().await.expect_err("cut");
        assert_eq!(invoke_error(&error), InvokeError::Timeout(Duration::from_secs(1)), "{path}");
    }
}

#[tokio::test]
async fn a_busy_guest_lets_others_on_its_thread_go_on() {
    let behave = load("behave").await;
    let (hog, quick) = (limited(60_000, 1_000), Caller::default());
    let spin = async {
        let error = hog.get(&behave, "/spin").await.expect_err("stopped");
        assert!(matches!(error, InvokeError::CpuExhausted(_)), "{error}");
        Instant::now()
    };
    let others = async {
        // With timers and the log in between, so that the runtime itself must get its turn too.
        for _ in 0..5 {
            assert_eq!(quick.text(&behave, "/sleep?1").await, "slept\n");
        }
        Instant::now()
    };
    let (hog_done, others_done) = tokio::join!(spin, others);
    assert!(others_done < hog_done, "the others waited for the busy guest");
}

#[tokio::test]
async fn memory_ends_at_the_limit() {
    let behave = load("behave").await;
    let caller = limited(30_000, 30_000);
    let error = caller.get(&behave, "/grow").await.expect_err("stopped");
    assert_eq!(error, InvokeError::OutOfMemory { limit_bytes: 16 << 20 });
    let peak = caller.meter.memory_bytes();
    assert!((8 << 20..=16 << 20).contains(&peak), "{peak}");
    assert_eq!(caller.text(&behave, "/").await, "hello\n", "the next request is served");
}

#[tokio::test]
async fn a_guest_that_does_not_even_fit_is_told_so() {
    let behave = load("behave").await;
    let mut caller = Caller::default();
    caller.limits.memory_bytes = 64 << 10;
    let error = caller.get(&behave, "/").await.expect_err("refused");
    assert_eq!(error, InvokeError::OutOfMemory { limit_bytes: 64 << 10 });
}

#[tokio::test]
async fn a_guest_finds_nothing_of_the_one_before() {
    let (canary, behave) = (load("cgi-canary").await, load("behave").await);
    let caller = limited(30_000, 30_000);
    for _ in 0..100 {
        // The same slot of the pool, and another program in between.
        assert_eq!(caller.text(&canary, "/").await, "clean\n");
        assert_eq!(caller.text(&canary, "/").await, "clean\n");
        assert_eq!(caller.text(&behave, "/").await, "hello\n");
    }
}
