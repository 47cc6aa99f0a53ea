//! How long a container takes from nothing to the first byte, against fork and exec of the same server.
//!
//! Prints; it fails only when a start is absurdly slow. `cargo test --release … -- --nocapture speed` for numbers.

use crate::support::{fixture, get, server};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const ROUNDS: usize = 40;

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100]
}

/// The same server as a plain process of this machine.
fn process() -> Duration {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let begun = Instant::now();
    let mut command = std::process::Command::new(server());
    let mut child =
        command.env("PORT", port.to_string()).stdout(std::process::Stdio::null()).spawn().unwrap();
    let mut connection = loop {
        if let Ok(connection) = TcpStream::connect(("127.0.0.1", port)) {
            break connection;
        }
        std::thread::sleep(Duration::from_micros(200));
    };
    connection.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    connection.read_exact(&mut [0; 1]).unwrap();
    let took = begun.elapsed();
    child.kill().unwrap();
    child.wait().unwrap();
    took
}

#[tokio::test]
async fn cold_start_to_first_byte() {
    let Some(fixture) = fixture().await else { return };
    fixture.runtime.unpack(&fixture.image).await.unwrap();
    let (mut cold, mut stops, mut plain, mut burst) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        // Let the spawner prepare the next sandbox, as it does between the starts of a real machine.
        tokio::time::sleep(Duration::from_millis(60)).await;
        let begun = Instant::now();
        let container = fixture.run(&[]).await.unwrap();
        get(&container, "/").await.unwrap();
        cold.push(begun.elapsed());
        let begun = Instant::now();
        container.stop(Duration::ZERO).await;
        stops.push(begun.elapsed());
        plain.push(process());
    }
    for _ in 0..ROUNDS / 2 {
        let begun = Instant::now();
        let container = fixture.run(&[]).await.unwrap();
        get(&container, "/").await.unwrap();
        burst.push(begun.elapsed());
        container.stop(Duration::ZERO).await;
    }
    for (what, times) in [
        ("container, sandbox parked", &mut cold),
        ("container, back to back", &mut burst),
        ("stop until nothing is left", &mut stops),
        ("plain process", &mut plain),
    ] {
        println!("{what}: p50 {:?}, p99 {:?}", percentile(times, 50), percentile(times, 99));
    }
    assert!(percentile(&mut cold, 50) < Duration::from_secs(1));
    fixture.finish().await;
}
