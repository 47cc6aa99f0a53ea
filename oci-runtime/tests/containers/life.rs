//! Exits, signals, freezing, usage.

use crate::support::{MEMORY_BYTES, fixture, get};
use neap_oci_runtime::{Exit, FreezeError, Stream};
use std::time::{Duration, Instant};

#[tokio::test]
async fn an_exit_is_noticed_at_once_by_all_who_wait() {
    let Some(fixture) = fixture().await else { return };
    let container = fixture.run(&[]).await.unwrap();
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            tokio::spawn({
                let container = container.clone();
                async move { container.exited().await }
            })
        })
        .collect();
    let begun = Instant::now();
    assert!(get(&container, "/exit?3").await.is_err());
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap(), Exit::Code(3));
    }
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    assert_eq!(container.exited().await, Exit::Code(3));
    container.stop(Duration::from_secs(5)).await;
    fixture.finish().await;
}

#[tokio::test]
async fn a_foreign_kill_and_a_lack_of_memory_are_told_apart() {
    let Some(fixture) = fixture().await else { return };
    let container = fixture.run(&[]).await.unwrap();
    let pid = rustix::process::Pid::from_raw(container.pid().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert_eq!(container.exited().await, Exit::Signal(9));

    let container = fixture.run(&[]).await.unwrap();
    assert_eq!(get(&container, "/eat?8000000").await.unwrap(), "7");
    assert!(get(&container, "/eat?800000000").await.is_err());
    assert_eq!(container.exited().await, Exit::OutOfMemory);
    assert!(container.usage().memory_peak_bytes > MEMORY_BYTES / 2);
    fixture.finish().await;
}

#[tokio::test]
async fn stop_asks_first_waits_and_then_insists() {
    let Some(fixture) = fixture().await else { return };
    let timed = async |mode: &str, grace: Duration| {
        let container = fixture.run(&[("MODE", mode)]).await.unwrap();
        let begun = Instant::now();
        container.stop(grace).await;
        (container.exited().await, begun.elapsed())
    };
    let (exit, took) = timed("graceful", Duration::from_secs(5)).await;
    assert_eq!(exit, Exit::Code(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(fixture.logs.text(Stream::Stdout).contains("bye\n"));

    let (exit, took) = timed("ignore-term", Duration::from_millis(300)).await;
    assert_eq!(exit, Exit::Signal(9));
    assert!((Duration::from_millis(300)..Duration::from_secs(2)).contains(&took), "{took:?}");

    // No handler: the kernel would not deliver the signal, so nobody waits for it.
    let (exit, took) = timed("", Duration::from_secs(5)).await;
    assert_eq!(exit, Exit::Signal(9));
    assert!(took < Duration::from_secs(2), "{took:?}");
    fixture.finish().await;
}

#[tokio::test]
async fn frozen_uses_no_cpu_and_thaws_where_it_stood() {
    let Some(fixture) = fixture().await else { return };
    let container = fixture.run(&[]).await.unwrap();
    let spinning = tokio::spawn({
        let container = container.clone();
        async move { get(&container, "/spin?600").await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    container.freeze().await.unwrap();
    println!("freeze took {:?}", begun.elapsed());
    let before = container.usage().cpu_us;
    assert!(before > 20_000, "the spinning was not counted: {before} us");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(container.usage().cpu_us - before < 5_000);
    // The kernel accepts for it; nobody answers.
    assert!(tokio::time::timeout(Duration::from_millis(100), get(&container, "/")).await.is_err());
    let begun = Instant::now();
    container.thaw().await.unwrap();
    println!("thaw took {:?}", begun.elapsed());
    assert_eq!(get(&container, "/").await.unwrap(), "hello from a container\n");
    assert!(spinning.await.unwrap().is_ok());

    // A frozen one can be stopped, and a stopped one not be frozen.
    container.freeze().await.unwrap();
    container.stop(Duration::from_millis(100)).await;
    assert!(matches!(container.freeze().await, Err(FreezeError::Exited)));
    assert!(container.usage().cpu_us >= before);
    assert_eq!(container.usage().memory_bytes, 0);
    fixture.finish().await;
}

#[tokio::test]
async fn dropping_a_container_ends_it_even_frozen() {
    let Some(fixture) = fixture().await else { return };
    let container = fixture.run(&[]).await.unwrap();
    container.freeze().await.unwrap();
    let pid = container.pid();
    drop(container);
    crate::support::eventually("the process is gone", || {
        !std::path::Path::new(&format!("/proc/{pid}")).exists()
    })
    .await;
    fixture.finish().await;
}
