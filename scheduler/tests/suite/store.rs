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
    let text = error.to_string();
    assert!(text.contains("state.redb") && text.contains("another process"), "{text}");
}

#[tokio::test]
async fn an_emptied_file_is_not_a_new_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    std::fs::write(&path, "").unwrap();
    let error = RedbStore::open(&path).await.map(drop).expect_err("an empty file").to_string();
    assert!(error.contains("state.redb is empty") && error.contains("restore it from a backup"), "{error}");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0, "it was left as it was");
}

#[tokio::test]
async fn a_first_start_that_was_killed_does_not_stop_the_next() {
    for left in [&b""[..], &[0; 100_000]] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("state.redb.new"), left).unwrap();
        let store = RedbStore::open(&dir.path().join("state.redb")).await.unwrap();
        store.commit(put("/a", "1")).await.unwrap();
        let names: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(names, ["state.redb"], "nothing is left over");
    }
}

#[tokio::test]
async fn a_damaged_file_is_told_as_such_and_never_read_wrongly() {
    const PAGE: usize = 4096;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    let store = RedbStore::open(&path).await.unwrap();
    for number in 0..20 {
        store.commit(put(&format!("/{number:02}"), &"x".repeat(1000))).await.unwrap();
    }
    let whole = store.range("/").await.unwrap();
    store.close().await;
    drop(store);
    let good = std::fs::read(&path).unwrap();
    let noise = |at: usize| (0..PAGE).map(move |byte| (byte * 7 + at * 13 + 1) as u8);
    let mut damaged: Vec<(String, Vec<u8>)> = (0..good.len() / PAGE)
        .filter(|page| good[page * PAGE..][..PAGE].iter().any(|byte| *byte != 0))
        .map(|page| {
            let mut bytes = good.clone();
            bytes.splice(page * PAGE..(page + 1) * PAGE, noise(page));
            (format!("noise over page {page}"), bytes)
        })
        .collect();
    let cuts = [5, 100, PAGE, PAGE * 3, good.len() / 2, good.len() - 1];
    damaged.extend(cuts.map(|bytes| (format!("cut to {bytes} bytes"), good[..bytes].to_vec())));
    let mut refused = 0;
    for (how, bytes) in &damaged {
        std::fs::write(&path, bytes).unwrap();
        match RedbStore::open(&path).await {
            Ok(store) => assert_eq!(store.range("/").await.unwrap(), whole, "{how}"),
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("is damaged (") && text.contains("move it away"), "{how}: {text}");
                refused += 1;
            }
        }
    }
    assert!(refused >= 8, "only {refused} of {} were noticed", damaged.len());
}
