//! Logs as a reader sees them.

use super::{LogEvent, LogStore, LogStream};
use neap_sdk::{InstanceId, RevisionId, TenantName, limits};
use std::{fs, path::Path};
use tempfile::TempDir;

fn revision(function: &str) -> RevisionId {
    RevisionId { tenant: TenantName::default(), function: function.parse().unwrap(), number: 2 }
}

fn texts(store: &LogStore, function: &str) -> Vec<String> {
    let lines = store.tail(&TenantName::default(), &function.parse().unwrap(), 0);
    lines.iter().map(|line| line.text.clone()).collect()
}

fn open(dir: &Path) -> LogStore {
    LogStore::open(dir).unwrap()
}

#[test]
fn pieces_become_lines() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let writer = store.writer(&revision("a"), InstanceId(7));
    for piece in ["he", "llo\nwor", "ld\r\n", "\n", "un"] {
        writer.write(LogStream::Stdout, piece.as_bytes());
    }
    writer.write(LogStream::Stderr, b"other\xff stream\n");
    writer.fork().write(LogStream::Stdout, b"of another guest");
    assert_eq!(texts(&store, "a"), ["hello", "world", "", "other\u{fffd} stream", "of another guest"]);
    writer.write(LogStream::Stdout, b"finished\n");
    let lines = store.last_lines(&revision("a"), InstanceId(7), 1);
    assert_eq!(
        (lines[0].text.as_str(), lines[0].instance.as_str(), lines[0].revision),
        ("unfinished", "i7", 2)
    );
    assert!(store.last_lines(&revision("a"), InstanceId(8), 9).is_empty());
}

#[test]
fn long_lines_are_cut_and_marked_and_the_next_is_whole() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let writer = store.writer(&revision("a"), InstanceId(1));
    let piece = "x".repeat(limits::LOG_LINE_BYTES_MAX - 1);
    writer.write(LogStream::Stdout, piece.as_bytes());
    writer.write(LogStream::Stdout, piece.as_bytes());
    writer.write(LogStream::Stdout, b"\nnext\n");
    let texts = texts(&store, "a");
    assert_eq!(texts[0], format!("{}{}", "x".repeat(limits::LOG_LINE_BYTES_MAX), " […cut]"));
    assert_eq!(texts[1], "next");
}

#[test]
fn only_the_newest_are_kept_in_memory_and_on_disk() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let writer = store.writer(&revision("a"), InstanceId(1));
    for n in 0..limits::LOG_LINES_KEPT_MAX + 5 {
        writer.write(LogStream::Stdout, format!("{n}\n").as_bytes());
    }
    let kept = texts(&store, "a");
    assert_eq!((kept.len(), kept[0].as_str()), (limits::LOG_LINES_KEPT_MAX, "5"));
    for _ in 0..10 {
        let long = "y".repeat(limits::LOG_LINE_BYTES_MAX) + "\n";
        (0..limits::LOG_BYTES_KEPT_MAX / limits::LOG_LINE_BYTES_MAX)
            .for_each(|_| writer.write(LogStream::Stdout, long.as_bytes()));
    }
    assert!(texts(&store, "a").iter().map(String::len).sum::<usize>() <= limits::LOG_BYTES_KEPT_MAX);
    drop((writer, store));
    let bytes: u64 = fs::read_dir(dir.path().join("logs/default"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(bytes <= 3 * limits::LOG_BYTES_KEPT_MAX as u64, "{bytes} bytes on disk");
}

#[test]
fn a_restart_shows_the_lines_again_whatever_a_guest_wrote() {
    let dir = TempDir::new().unwrap();
    let nasty = "{\"text\":\"forged\"}\u{1b}[31m \"quoted\" \u{0} \u{2028}";
    let store = open(dir.path());
    store.writer(&revision("a"), InstanceId(1)).write(LogStream::Stdout, format!("{nasty}\n").as_bytes());
    store.writer(&revision("b"), InstanceId(2)).write(LogStream::Stdout, b"other\n");
    drop(store);

    let file = dir.path().join("logs/default/a.log");
    let mut text = fs::read(&file).unwrap();
    text.extend_from_slice(b"{\"at_ms\":1,\"revision\":1,\"inst"); // torn by a kill
    fs::write(&file, text).unwrap();

    let store = open(dir.path());
    assert_eq!(texts(&store, "a"), [nasty]);
    store.remove(&TenantName::default(), &"a".parse().unwrap());
    assert!(!file.exists());
    assert_eq!(texts(&store, "a"), Vec::<String>::new());
    assert_eq!(texts(&store, "b"), ["other"]);
}

#[tokio::test]
async fn a_follower_misses_nothing_and_is_told_what_it_lost() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let writer = store.writer(&revision("a"), InstanceId(1));
    let write = |n: usize| writer.write(LogStream::Stdout, format!("{n}\n").as_bytes());
    (0..3).for_each(write);
    let mut follower = store.follow(&TenantName::default(), &"a".parse().unwrap(), 0);
    (3..5).for_each(write);
    for n in 0..5 {
        let Some(LogEvent::Line(line)) = follower.next().await else { panic!("line {n} is missing") };
        assert_eq!(line.text, n.to_string());
    }
    (0..limits::LOG_FOLLOWER_LAG_MAX + 10).for_each(write);
    assert_eq!(follower.next().await, Some(LogEvent::Lost(10)));
    let Some(LogEvent::Line(line)) = follower.next().await else { panic!("a line after the gap") };
    assert_eq!(line.text, "10");
}
