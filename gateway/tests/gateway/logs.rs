//! What the access log tells, and what it must not.

use crate::world::World;
use std::{
    io,
    sync::{Arc, Mutex},
};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// The lines that were logged for requests with this id.
    fn lines(&self, id: &str) -> Vec<serde_json::Value> {
        let text = String::from_utf8(self.0.lock().expect("not poisoned").clone()).expect("text");
        let lines = text.lines().map(|line| serde_json::from_str(line).expect("a JSON line"));
        lines.filter(|line: &serde_json::Value| line["fields"]["request_id"] == id).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_logged_once_and_without_secrets() {
    let log = Log::default();
    let writer = log.clone();
    // The only test here that logs; the gateway's threads have no other way to find the subscriber.
    tracing_subscriber::fmt()
        .json()
        .with_env_filter("access=info")
        .with_writer(move || writer.clone())
        .init();
    let silent = World::new().await;
    let world = World::with(|settings| settings.access_log = true).await;
    for world in [&silent, &world] {
        let mut client = world.client().await;
        client
            .send(
                "POST /echo/x?token=secret HTTP/1.1\r\nHost: hello.localhost\r\nX-Request-Id: one\r\n\
                 Authorization: Bearer secret\r\nContent-Length: 6\r\n\r\nsecret",
            )
            .await;
        assert_eq!(client.answer().await.text(), "secret");
        client.send("GET /hang HTTP/1.1\r\nHost: hello.localhost\r\nX-Request-Id: two\r\n\r\n").await;
        world.until("the second request to run", |world| world.began() == 2).await;
    }
    world.until("both lines", |_| log.lines("two").len() == 1).await;
    let lines = log.lines("one");
    let [line] = &lines[..] else { panic!("one line, of the gateway that logs: {lines:?}") };
    assert_eq!(line["target"], "access");
    let fields = &line["fields"];
    let facts = [("function", "hello"), ("method", "POST"), ("path", "/echo/x")];
    assert!(facts.iter().all(|(name, value)| fields[name] == *value), "{fields}");
    let numbers = [("status", 200), ("bytes_in", 6), ("bytes_out", 6)];
    assert!(numbers.iter().all(|(name, value)| fields[name] == *value), "{fields}");
    assert_eq!(fields["cold"], false);
    for name in ["queue_us", "start_us", "run_us", "total_us"] {
        assert!(fields[name].is_u64(), "{name} in {fields}");
    }
    assert!(!line.to_string().contains("secret"), "{line}");
    assert_eq!(log.lines("two")[0]["fields"]["status"], 499, "the client left");
}
