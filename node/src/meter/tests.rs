//! The ledger through its door: what was appended is read back exactly, whatever happened in between.

use super::{
    Ledger, LedgerCounters, LedgerSettings, OpenLedgerError, UsageFilter, fold,
    ledger::{SegmentName, segments},
};
use neap_sdk::{
    api::FunctionUsage,
    invocation::{UsageRecord, UsageSum},
};
use std::{
    collections::HashSet,
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};
use tempfile::TempDir;

const HOUR_MS: u64 = 3_600_000;

fn record(function: &str, start_ms: u64) -> UsageRecord {
    UsageRecord {
        id: String::new(),
        request_id: "r1".parse().unwrap(),
        tenant: Default::default(),
        function: function.parse().unwrap(),
        revision: 1,
        start_ms,
        wall_us: 1_500,
        cpu_us: 700,
        memory_bytes: 3 << 30,
        bytes_in: 10,
        bytes_out: 20,
        status: 200,
        cold: start_ms == 0,
    }
}

fn open_with(dir: &Path, segment_bytes_max: u64, segments_kept_max: usize) -> Ledger {
    let settings = LedgerSettings { dir: dir.to_owned(), segment_bytes_max, segments_kept_max };
    Ledger::open(settings, LedgerCounters::default()).unwrap()
}

fn open(dir: &Path) -> Ledger {
    open_with(dir, 1 << 20, 64)
}

fn ids(ledger: &Ledger) -> Vec<String> {
    ledger.records(UsageFilter::default()).map(|record| record.unwrap().id).collect()
}

async fn sums(ledger: &Ledger) -> Vec<FunctionUsage> {
    ledger.sums(UsageFilter::default()).await.unwrap()
}

async fn invocations(ledger: &Ledger) -> u64 {
    sums(ledger).await.iter().map(|usage| usage.sum.invocations).sum()
}

#[tokio::test]
async fn records_come_back_and_add_up() {
    let dir = TempDir::new().unwrap();
    let ledger = open(dir.path());
    let all = [record("a", 0), record("b", 5), record("a", 7)];
    all.iter().for_each(|record| ledger.append(record.clone()));

    let read: Vec<_> = ledger.records(UsageFilter::default()).map(Result::unwrap).collect();
    assert_eq!(read.iter().map(|record| record.start_ms).collect::<Vec<_>>(), [0, 5, 7]);
    assert_eq!(UsageRecord { id: String::new(), ..read[2].clone() }, all[2]);
    let usage = sums(&ledger).await;
    assert_eq!(usage.iter().map(|usage| usage.function.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let mut sum = UsageSum::default();
    sum.add(&all[0]);
    sum.add(&all[2]);
    assert_eq!(usage[0].sum, sum);

    let filter = UsageFilter { function: Some("a".parse().unwrap()), since_ms: 1, ..Default::default() };
    assert_eq!(ledger.records(filter.clone()).count(), 1);
    let mut stream = ledger.stream(filter);
    assert_eq!(stream.recv().await.unwrap().unwrap().start_ms, 7);
    assert!(stream.recv().await.is_none());
}

/// A kill may leave any prefix of the last write: what was whole before stays, what is written after comes too.
#[test]
fn a_torn_tail_at_any_byte_costs_only_the_torn_record() {
    let dir = TempDir::new().unwrap();
    let ledger = open(dir.path());
    ledger.append(record("a", 1));
    let first = segments(dir.path()).unwrap()[0].to_string();
    let whole = fs::metadata(dir.path().join(&first)).unwrap().len() as usize;
    ledger.append(record("a", 2));
    drop(ledger);
    let bytes = fs::read(dir.path().join(&first)).unwrap();

    for end in 0..=bytes.len() {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join(&first), &bytes[..end]).unwrap();
        let ledger = open(dir.path());
        ledger.append(record("a", 3));
        let starts: Vec<_> =
            ledger.records(UsageFilter::default()).map(|record| record.unwrap().start_ms).collect();
        let kept: &[u64] = if end == bytes.len() {
            &[1, 2]
        } else if end >= whole {
            &[1]
        } else {
            &[]
        };
        assert_eq!(starts, [kept, &[3]].concat(), "cut at byte {end}");
        let expected = if end == bytes.len() {
            end
        } else if end >= whole {
            whole
        } else {
            0
        };
        let left = fs::metadata(dir.path().join(&first)).map_or(0, |data| data.len() as usize);
        assert_eq!(left, expected, "cut at byte {end}");
    }
}

#[test]
fn damage_in_the_middle_costs_only_the_damaged_record() {
    let dir = TempDir::new().unwrap();
    let ledger = open(dir.path());
    (1..=3).for_each(|start_ms| ledger.append(record("a", start_ms)));
    drop(ledger);
    let path = dir.path().join(segments(dir.path()).unwrap()[0].to_string());
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let ledger = open(dir.path());
    let starts: Vec<_> =
        ledger.records(UsageFilter::default()).map(|record| record.unwrap().start_ms).collect();
    assert_eq!(starts, [1, 3]);
}

#[test]
fn ids_are_never_used_twice_and_two_cannot_write() {
    let dir = TempDir::new().unwrap();
    for _ in 0..5 {
        let ledger = open(dir.path());
        ledger.append(record("a", 1));
        let settings = LedgerSettings { dir: dir.path().into(), segment_bytes_max: 1, segments_kept_max: 1 };
        let second = Ledger::open(settings, LedgerCounters::default());
        assert!(matches!(second, Err(OpenLedgerError::InUse(_))), "{second:?}");
    }
    let ledger = open(dir.path());
    let ids = ids(&ledger);
    assert_eq!((ids.len(), ids.iter().collect::<HashSet<_>>().len()), (5, 5));
}

#[tokio::test]
async fn threads_lose_and_double_nothing_while_segments_fold() {
    const THREADS: u64 = 4;
    const EACH: u64 = 500;
    let dir = TempDir::new().unwrap();
    let ledger = Arc::new(open_with(dir.path(), 20_000, 3));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let ledger = &ledger;
            scope.spawn(move || (0..EACH).for_each(|n| ledger.append(record("a", thread * HOUR_MS + n))));
        }
    });
    // Whatever has been folded by now: the sum is the same.
    for _ in 0..20 {
        assert_eq!(invocations(&ledger).await, THREADS * EACH);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    drop(ledger);
    let ledger = open_with(dir.path(), 20_000, 3);
    assert_eq!(invocations(&ledger).await, THREADS * EACH);
    assert!(segments(dir.path()).unwrap().len() <= 4, "old segments went away");
    let usage = sums(&ledger).await;
    assert_eq!(usage[0].sum.memory_byte_us, u128::from(THREADS * EACH) * (3 << 30) * 1_500);
}

/// A kill at any step of folding leaves a ledger that counts every record once.
#[tokio::test]
async fn folding_killed_midway_counts_once() {
    let fill = |dir: &Path| -> SegmentName {
        let ledger = open(dir);
        (0..10).for_each(|n| ledger.append(record("a", n * HOUR_MS)));
        drop(ledger);
        segments(dir).unwrap()[0]
    };
    let model = TempDir::new().unwrap();
    let mut folded = fold::open(model.path()).unwrap();
    fold::append(model.path(), fill(model.path()), &mut folded).unwrap();
    let line = fs::read(model.path().join(fold::FILE_NAME)).unwrap();

    for end in (0..line.len()).step_by(37).chain([line.len() - 1, line.len()]) {
        let dir = TempDir::new().unwrap();
        let name = fill(dir.path());
        fs::write(dir.path().join(fold::FILE_NAME), &line[..end]).unwrap();
        let ledger = open(dir.path());
        assert_eq!(invocations(&ledger).await, 10, "killed after {end} bytes");
        assert_eq!(dir.path().join(name.to_string()).exists(), end < line.len());
        let since = UsageFilter { since_ms: 7 * HOUR_MS, ..Default::default() };
        let recent = ledger.sums(since).await.unwrap();
        assert_eq!(recent[0].sum.invocations, 3);
    }
}

/// The sums are written, but the segment cannot be removed: it counts no more, and the next attempt finishes.
#[tokio::test]
async fn a_segment_that_lingers_counts_once() {
    let dir = TempDir::new().unwrap();
    let ledger = open_with(dir.path(), 1, 64);
    (0..3).for_each(|n| ledger.append(record("a", n)));
    let oldest = segments(dir.path()).unwrap()[0];
    let files = ledger.files();
    fold::append(dir.path(), oldest, &mut files.folded.write().unwrap()).unwrap();
    assert_eq!(invocations(&ledger).await, 3);
    fold::fold(dir.path(), oldest, &mut files.folded.write().unwrap()).unwrap();
    assert!(!dir.path().join(oldest.to_string()).exists());
    assert_eq!(invocations(&ledger).await, 3);
}

const KILL_DIR: &str = "NEAP_TEST_KILL_DIR";

/// The victim of the next test: appends for ever, and says which records it was told are safe.
#[test]
fn append_until_killed() {
    let Some(dir) = std::env::var_os(KILL_DIR) else { return };
    let ledger = open_with(dir.as_ref(), 30_000, 3);
    for n in 1_u64.. {
        ledger.append(record("a", n));
        println!("acknowledged {n}");
    }
}

/// The process is killed with SIGKILL ten times while it appends and folds: what was acknowledged is there, once.
#[tokio::test]
async fn sigkill_loses_and_doubles_nothing() {
    let dir = TempDir::new().unwrap();
    let mut acknowledged = 0;
    for _ in 0..10 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "meter::tests::append_until_killed", "--nocapture"])
            .env(KILL_DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut lines = lines.filter_map(|line| line.strip_prefix("acknowledged ")?.parse::<u64>().ok());
        let some = lines.by_ref().take(500).last().expect("it appends");
        child.kill().unwrap();
        // What it said before it died counts too; the last word may have been cut short.
        acknowledged += lines.last().unwrap_or(some);
        child.wait().unwrap();
        let ledger = open_with(dir.path(), 30_000, 3);
        let kept = invocations(&ledger).await;
        // One more may be written than it could still say.
        assert!(
            (acknowledged..=acknowledged + 1).contains(&kept),
            "{kept} kept, {acknowledged} acknowledged"
        );
        acknowledged = kept;
    }
}

/// `/dev/full` refuses every write as a full disk does: appending goes on, and says so in the counter.
#[test]
fn a_full_disk_is_counted_and_nothing_panics() {
    let dir = TempDir::new().unwrap();
    let counters = LedgerCounters::default();
    let settings =
        LedgerSettings { dir: dir.path().into(), segment_bytes_max: 1 << 20, segments_kept_max: 9 };
    let ledger = Ledger::open(settings, counters.clone()).unwrap();
    ledger.append(record("a", 1));
    let full = fs::File::options().append(true).open("/dev/full").unwrap();
    let good = ledger.files().swap_file(Arc::new(full));
    ledger.append(record("a", 2));
    ledger.append(record("a", 3));
    assert_eq!((counters.records.get(), counters.errors.get()), (1, 2));
    ledger.files().swap_file(good);
    ledger.append(record("a", 4));
    let starts: Vec<_> =
        ledger.records(UsageFilter::default()).map(|record| record.unwrap().start_ms).collect();
    assert_eq!(starts, [1, 4]);
}
