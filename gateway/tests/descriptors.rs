//! A process without file descriptors left goes on accepting once there are some. A binary of its own, because
//! the limit holds for the whole process.

#![allow(dead_code, reason = "the harness is shared with the other tests, which use all of it")]

#[path = "gateway/client.rs"]
mod client;
#[path = "gateway/guest.rs"]
mod guest;
#[path = "gateway/world.rs"]
mod world;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{fs::File, time::Duration};

#[tokio::test(flavor = "multi_thread")]
async fn accepting_goes_on_after_the_descriptors_ran_out() {
    let world = world::World::new().await;
    assert_eq!(world.client().await.get("hello.localhost", "/").await.status, 200);
    world.until("the connection to end", |world| world.metric("neap_connections") == Some(0.0)).await;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: limit.maximum }).expect("a lower limit");
    let mut hoard = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        hoard.push(file);
    }
    // One for the client's side; there is none for the server's.
    hoard.pop();
    let mut client = world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(client.is_silent().await, "nobody could accept");
    drop(hoard);
    assert_eq!(client.answer().await.text(), "hello");
}
