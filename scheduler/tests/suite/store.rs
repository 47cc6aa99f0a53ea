//! The embedded store: the contract, and what only a file can show.

use neap_scheduler::store::{Committed, RedbStore, Store, StoreError, Transaction, Write, contract};

fn put(key: &str, value: &str) -> Transaction {
    let write = Write::Put { key: key.to_owned(), value: value.as_bytes().to_vec() };
    Transaction { compares: vec![], writes: vec![write] }
}

#[tokio::test]
async fn redb_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    contract::check(&RedbStore::open(&dir.path().join("state.redb")).await.unwrap()).await;
}

#[tokio::test]
async fn what_was_committed_is_in_the_file_when_it_was_answered() {
    let dir = tempfile::tempdir().unwrap();
    let store = RedbStore::open(&dir.path().join("live.redb")).await.unwrap();
    for number in 0..20 {
        let done = store.commit(put("/a", &number.to_string())).await.unwrap();
        let Committed::Done { revision } = done else { panic!("{done:?}") };
        // The process does not get to close anything: only the bytes on disk are carried over.
        let copy = dir.path().join(format!("crashed-{number}.redb"));
        std::fs::copy(dir.path().join("live.redb"), &copy).unwrap();
        let range = RedbStore::open(&copy).await.unwrap().range("/").await.unwrap();
        assert_eq!(range.revision, revision);
        assert_eq!(range.entries[0].value, number.to_string().into_bytes());
    }
}

#[tokio::test]
async fn history_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let store = RedbStore::open(&dir.path().join("state.redb")).await.unwrap();
    let first = store.range("").await.unwrap().revision + 1;
    // The limit itself takes minutes of fsync; compaction is the same code at any distance.
    for number in 0..10 {
        store.commit(put("/a", &number.to_string())).await.unwrap();
    }
    store.compact(first + 4).await.unwrap();
    store.compact(first).await.expect("compacting what is compacted is nothing");
    assert!(matches!(store.watch("/", first + 4).await.map(drop), Err(StoreError::Compacted { .. })));
    let events = store.watch("/", first + 5).await.unwrap().next().await.unwrap();
    assert_eq!(events.len(), 5);
}

#[tokio::test]
async fn one_file_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    let _first = RedbStore::open(&path).await.unwrap();
    let error = RedbStore::open(&path).await.map(drop).expect_err("a second owner");
    assert!(error.to_string().contains("state.redb"), "the file is named: {error}");
}
