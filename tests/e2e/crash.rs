//! Kill -9 under load, again and again: no acknowledged deploy and no answered request's bill is lost, and nothing
//! is counted twice.

use crate::{
    harness::{Server, behave, hello},
    http::{self, request},
};
use neap_sdk::{api::FunctionView, invocation::UsageRecord};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

const KILLS: usize = 10;
const CLIENTS: usize = 3;

#[test]
fn ten_kills_under_load_lose_nothing_that_was_acknowledged() {
    let mut server = Server::start();
    server.push(behave(), "loaded", &["--timeout-ms", "5000"]);
    let answered = Mutex::new(BTreeSet::new());
    let sequence = AtomicU64::new(0);
    let mut deployed = BTreeMap::new();
    for kill in 0..KILLS {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| load(&server, &stop, &sequence, &answered));
            }
            // Deploys go on under the same load; only those that were acknowledged count.
            let version = kill.to_string();
            let name = format!("app-{}", kill % 3);
            let env = format!("VERSION={version}");
            let done = server.run(&["push", hello().to_str().expect("path"), "--name", &name, "--env", &env]);
            if done.code == 0 {
                deployed.insert(name, version);
            }
            thread::sleep(Duration::from_millis(150));
            server.signal("KILL");
            stop.store(true, Ordering::Relaxed);
        });
        server = Server::start_in(server.kill(), &[]);
    }
    assert!(deployed.len() >= 3, "deploys were acknowledged: {deployed:?}");
    for (name, version) in &deployed {
        let view: FunctionView = server.function(name);
        assert_eq!(
            view.revisions[0].spec.env.get("VERSION"),
            Some(version),
            "{name} lost its last acknowledged deploy"
        );
        assert_eq!(server.get(name, "/").status, 200);
    }
    let answered = answered.into_inner().expect("no client panicked");
    assert!(answered.len() > 100, "only {} requests were answered", answered.len());
    let text = server.ok(&["usage", "--records", "--function", "loaded", "-o", "json"]);
    let mut billed = BTreeMap::<String, usize>::new();
    let mut ids = BTreeSet::new();
    for line in text.lines() {
        let record: UsageRecord = serde_json::from_str(line).expect("a record");
        assert!(ids.insert(record.id.clone()), "record {} is there twice", record.id);
        *billed.entry(record.request_id.to_string()).or_default() += 1;
    }
    let lost: Vec<&String> = answered.iter().filter(|id| !billed.contains_key(*id)).collect();
    assert!(
        lost.is_empty(),
        "{} of {} answered requests were not billed: {lost:?}",
        lost.len(),
        answered.len()
    );
    let twice: Vec<&String> =
        answered.iter().filter(|id| billed.get(*id).is_some_and(|count| *count != 1)).collect();
    assert!(twice.is_empty(), "billed more than once: {twice:?}");
}

/// Requests one after another; notes the ids of those whose answer was read to its end.
fn load(server: &Server, stop: &AtomicBool, sequence: &AtomicU64, answered: &Mutex<BTreeSet<String>>) {
    while !stop.load(Ordering::Relaxed) {
        let id = format!("load-{}", sequence.fetch_add(1, Ordering::Relaxed));
        let request = request("POST", "/echo").header("x-request-id", &id);
        if let Ok(answer) = http::send(server.address, &server.host("loaded"), request, "some bytes")
            && answer.status == 200
            && answer.text() == "some bytes"
        {
            answered.lock().expect("no client panicked").insert(id);
        }
    }
}
