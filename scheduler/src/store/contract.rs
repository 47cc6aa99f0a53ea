//! What every store must do, as one test: any implementation runs through [`check`].

use super::{Committed, Compare, Condition, Event, Store, StoreError, Transaction, Write};
use std::time::Duration;

/// Runs a new, empty store through the whole contract.
///
/// # Panics
/// Where the store breaks it; the message names the rule.
pub async fn check(store: &dyn Store) {
    counts_revisions_and_versions(store).await;
    writes_all_or_nothing(store).await;
    compares_every_condition(store).await;
    ranges_by_prefix_in_order(store).await;
    watches_from_a_revision(store).await;
    watches_what_comes(store).await;
    refuses_what_breaks_a_limit(store).await;
    tells_of_compaction(store).await;
}

fn put(key: &str, value: &str) -> Write {
    Write::Put { key: key.to_owned(), value: value.as_bytes().to_vec() }
}

fn delete(key: &str) -> Write {
    Write::Delete { key: key.to_owned() }
}

async fn write(store: &dyn Store, writes: Vec<Write>) -> u64 {
    compare_and_write(store, vec![], writes).await.expect("a transaction without comparisons is done")
}

async fn compare_and_write(
    store: &dyn Store,
    compares: Vec<(&str, Condition)>,
    writes: Vec<Write>,
) -> Option<u64> {
    let compares =
        compares.into_iter().map(|(key, condition)| Compare { key: key.to_owned(), condition }).collect();
    match store.commit(Transaction { compares, writes }).await.expect("the store works") {
        Committed::Done { revision } => Some(revision),
        Committed::Conflict { .. } => None,
    }
}

async fn keys(store: &dyn Store, prefix: &str) -> Vec<(String, String)> {
    let range = store.range(prefix).await.expect("range");
    let text = |value: Vec<u8>| String::from_utf8(value).expect("text");
    range.entries.into_iter().map(|entry| (entry.key, text(entry.value))).collect()
}

async fn counts_revisions_and_versions(store: &dyn Store) {
    let empty = store.range("").await.expect("range");
    assert!(empty.entries.is_empty(), "the contract starts with an empty store");
    let first = write(store, vec![put("/count/a", "1")]).await;
    assert_eq!(first, empty.revision + 1, "each transaction is one revision");
    let second = write(store, vec![put("/count/a", "2"), put("/count/b", "1")]).await;
    assert_eq!(second, first + 1, "two writes are one revision");
    let entries = store.range("/count/").await.expect("range").entries;
    let numbers: Vec<_> = entries.iter().map(|e| (e.create_revision, e.mod_revision, e.version)).collect();
    assert_eq!(numbers, [(first, second, 2), (second, second, 1)]);
    write(store, vec![delete("/count/a")]).await;
    let again = write(store, vec![put("/count/a", "3")]).await;
    let entry = store.range("/count/a").await.expect("range").entries.remove(0);
    assert_eq!((entry.create_revision, entry.version), (again, 1), "a key made again counts from 1");
    let nothing = write(store, vec![delete("/count/absent")]).await;
    assert_eq!(nothing, again, "what changes nothing makes no revision");
}

async fn writes_all_or_nothing(store: &dyn Store) {
    write(store, vec![put("/all/a", "1")]).await;
    let refused = compare_and_write(
        store,
        vec![("/all/a", Condition::Value(b"1".to_vec())), ("/all/b", Condition::Version(1))],
        vec![put("/all/a", "2"), put("/all/c", "1")],
    );
    assert_eq!(refused.await, None, "one comparison that fails refuses all");
    assert_eq!(keys(store, "/all/").await, [("/all/a".into(), "1".into())]);
}

async fn compares_every_condition(store: &dyn Store) {
    let made = write(store, vec![put("/if/a", "1")]).await;
    let changed = write(store, vec![put("/if/a", "2")]).await;
    for (condition, expected) in [
        (Condition::Absent, false),
        (Condition::CreateRevision(made), true),
        (Condition::CreateRevision(changed), false),
        (Condition::ModRevision(changed), true),
        (Condition::ModRevision(made), false),
        (Condition::Version(2), true),
        (Condition::Version(1), false),
        (Condition::Value(b"2".to_vec()), true),
        (Condition::Value(b"1".to_vec()), false),
    ] {
        let done = compare_and_write(store, vec![("/if/a", condition.clone())], vec![]).await.is_some();
        assert_eq!(done, expected, "{condition:?}");
    }
    assert!(
        compare_and_write(store, vec![("/if/b", Condition::Absent)], vec![put("/if/b", "")]).await.is_some()
    );
    assert!(
        compare_and_write(store, vec![("/if/b", Condition::Absent)], vec![put("/if/b", "")]).await.is_none()
    );
}

async fn ranges_by_prefix_in_order(store: &dyn Store) {
    write(store, vec![put("/range/b", "2"), put("/range/a", "1"), put("/rangf", "no"), put("/rang", "no")])
        .await;
    assert_eq!(
        keys(store, "/range/").await,
        [("/range/a".into(), "1".into()), ("/range/b".into(), "2".into())]
    );
    assert!(keys(store, "/range/c").await.is_empty());
}

async fn watches_from_a_revision(store: &dyn Store) {
    let from = write(store, vec![put("/watch/a", "1"), put("/other", "x")]).await;
    write(store, vec![put("/watch/a", "2")]).await;
    let last = write(store, vec![delete("/watch/a"), put("/watch/b", "1")]).await;
    let mut watch = store.watch("/watch/", from).await.expect("watch");
    let mut told = Vec::new();
    while told.len() < 4 {
        let events = watch.next().await.expect("events");
        assert!(!events.is_empty(), "a watch tells something or waits");
        told.extend(events.into_iter().map(|event| match event {
            Event::Put(entry) => (entry.key, entry.mod_revision - from, entry.version),
            Event::Delete { key, revision } => (key, revision - from, 0),
        }));
    }
    let expected = [("/watch/a", 0, 1), ("/watch/a", 1, 2), ("/watch/a", 2, 0), ("/watch/b", 2, 1)];
    assert_eq!(told, expected.map(|(key, revision, version)| (key.to_owned(), revision, version)));
    assert_eq!(last, from + 2);
}

async fn watches_what_comes(store: &dyn Store) {
    let now = store.range("").await.expect("range").revision;
    let mut watch = store.watch("/later/", now + 1).await.expect("watch");
    let early = tokio::time::timeout(Duration::from_millis(20), watch.next()).await;
    assert!(early.is_err(), "nothing has changed yet");
    write(store, vec![put("/elsewhere", "x")]).await;
    write(store, vec![put("/later/a", "1")]).await;
    let events = tokio::time::timeout(Duration::from_secs(10), watch.next()).await;
    let events = events.expect("a change is told without asking").expect("events");
    assert_eq!(events.len(), 1, "only keys under the prefix: {events:?}");
}

async fn refuses_what_breaks_a_limit(store: &dyn Store) {
    let before = store.range("").await.expect("range");
    for writes in [
        vec![put("/twice", "1"), delete("/twice")],
        vec![put("", "empty key")],
        vec![put(&"k".repeat(neap_sdk::limits::STORE_KEY_BYTES_MAX + 1), "")],
        vec![put("/large", &"v".repeat(neap_sdk::limits::STORE_VALUE_BYTES_MAX + 1))],
        (0..=neap_sdk::limits::STORE_TXN_WRITES_MAX).map(|n| put(&format!("/many/{n}"), "")).collect(),
    ] {
        let refused = store.commit(Transaction { compares: vec![], writes }).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
    }
    assert_eq!(store.range("").await.expect("range"), before, "a refused transaction leaves no trace");
}

async fn tells_of_compaction(store: &dyn Store) {
    let old = write(store, vec![put("/compact/a", "1")]).await;
    let kept = write(store, vec![put("/compact/a", "2")]).await;
    let mut slow = store.watch("/compact/", old).await.expect("watch");
    store.compact(old).await.expect("compact");
    assert!(matches!(slow.next().await, Err(StoreError::Compacted { .. })), "a slow watch is told");
    let late = store.watch("/compact/", old).await.map(drop);
    assert!(matches!(late, Err(StoreError::Compacted { oldest }) if oldest == kept), "{late:?}");
    let events = store.watch("/compact/", kept).await.expect("watch").next().await.expect("events");
    assert_eq!(events.len(), 1, "what is not compacted is still told");
    assert_eq!(keys(store, "/compact/").await, [("/compact/a".into(), "2".into())], "keys are not compacted");
}
