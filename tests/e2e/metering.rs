//! The bill from outside: one record per request, with plausible figures, that survives everything.

use crate::harness::{Server, behave};
use neap_sdk::{api::FunctionUsage, invocation::UsageRecord};
use std::collections::BTreeSet;

fn records(server: &Server, function: &str) -> Vec<UsageRecord> {
    let text = server.ok(&["usage", "--records", "--function", function, "-o", "json"]);
    text.lines().map(|line| serde_json::from_str(line).expect("a record")).collect()
}

#[test]
fn every_request_is_billed_once_with_what_it_used() {
    let server = Server::start();
    server.push(behave(), "billed", &[]);
    let already = records(&server, "billed").len();
    let mut ids = BTreeSet::new();
    for _ in 0..5 {
        ids.insert(server.post("billed", "/echo", "12345").header("x-request-id").to_owned());
    }
    ids.insert(server.get("billed", "/sleep?200").header("x-request-id").to_owned());
    ids.insert(server.get("billed", "/trap").header("x-request-id").to_owned());

    let records: Vec<UsageRecord> = records(&server, "billed");
    let ours: Vec<&UsageRecord> =
        records.iter().filter(|record| ids.contains(record.request_id.as_str())).collect();
    assert_eq!((ours.len(), records.len()), (7, already + 7));
    assert_eq!(
        records.iter().map(|record| &record.id).collect::<BTreeSet<_>>().len(),
        records.len(),
        "ids are unique"
    );
    for record in ours.iter().filter(|record| record.status == 200 && record.bytes_in > 0) {
        assert_eq!((record.bytes_in, record.bytes_out), (5, 5));
        assert!(record.cpu_us > 0 && record.wall_us >= record.cpu_us / 2, "{record:?}");
        assert!(record.memory_bytes >= 65_536, "{record:?}");
    }
    let slept = ours.iter().find(|record| record.wall_us >= 200_000).expect("the sleeper");
    assert!(slept.cpu_us < 150_000, "waiting is no CPU time: {slept:?}");
    assert!(ours.iter().any(|record| record.status == 500), "the trap is billed with its status");
}

#[test]
fn sums_agree_with_the_records_and_can_be_limited() {
    let server = Server::start();
    server.push(behave(), "summed", &[]);
    for _ in 0..10 {
        server.get("summed", "/");
    }
    let usage: Vec<FunctionUsage> = server.json(&["usage", "--function", "summed"]);
    let records = records(&server, "summed");
    assert_eq!(usage.len(), 1);
    assert_eq!(usage[0].sum.invocations, records.len() as u64);
    assert_eq!(usage[0].sum.cpu_us, records.iter().map(|record| record.cpu_us).sum::<u64>());
    let memory: u128 = records.iter().map(|r| u128::from(r.memory_bytes) * u128::from(r.wall_us)).sum();
    assert_eq!(usage[0].sum.memory_byte_us, memory);
    let future = (crate::harness::now_ms() + 3_600_000).to_string();
    let later: Vec<FunctionUsage> = server.json(&["usage", "--since", &future]);
    assert!(later.is_empty(), "{later:?}");
}
