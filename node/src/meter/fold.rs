//! Folding: an old segment becomes one line of hourly sums in `folded.log`, and then goes away.
//!
//! The line names its segment, so a kill at any point leaves the truth: without a whole line the segment still
//! counts; with it the segment is ignored and removed. Sums are bills and are kept for ever; they are about a
//! thousandth of what they came from.

use super::{
    ledger::{SegmentName, segments},
    line::{self, Lines},
};
use neap_sdk::{
    id::{FunctionName, TenantName},
    invocation::{UsageRecord, UsageSum},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs::{self, File},
    io::{self, Seek as _, Write as _},
    path::Path,
};

pub(super) const FILE_NAME: &str = "folded.log";
pub(super) const HOUR_MS: u64 = 3_600_000;

/// One line of `folded.log`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FoldedSegment {
    /// The segment's file name.
    pub(super) segment: String,
    /// Its sums.
    pub(super) sums: Vec<HourSum>,
}

/// What one function used in one hour.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct HourSum {
    pub(super) tenant: TenantName,
    pub(super) function: FunctionName,
    /// When the hour began, in milliseconds since 1970.
    pub(super) hour_ms: u64,
    pub(super) sum: UsageSum,
}

/// What is known of `folded.log`.
#[derive(Debug, Default)]
pub(super) struct Folded {
    /// How long its whole lines are.
    pub(super) bytes: u64,
    /// Segments that are in it and could not be removed yet; they must not count again.
    pub(super) lingering: BTreeSet<SegmentName>,
}

/// Repairs `folded.log` after a kill and removes segments that it holds.
pub(super) fn open(dir: &Path) -> io::Result<Folded> {
    let path = dir.join(FILE_NAME);
    File::options().create(true).append(true).open(&path)?;
    let bytes = line::cut_torn_tail(&path)?;
    let mut folded = HashSet::new();
    let mut lines = Lines::open(&path)?;
    while let Some(line) = lines.next::<FoldedSegment>()? {
        folded.insert(line.segment);
    }
    for name in segments(dir)? {
        if folded.contains(&name.to_string()) {
            fs::remove_file(dir.join(name.to_string()))?;
        }
    }
    Ok(Folded { bytes, lingering: BTreeSet::new() })
}

/// Folds one segment and removes it. Tried again after an error, it goes on where it stopped.
pub(super) fn fold(dir: &Path, name: SegmentName, folded: &mut Folded) -> io::Result<()> {
    if !folded.lingering.contains(&name) {
        append(dir, name, folded)?;
    }
    fs::remove_file(dir.join(name.to_string()))?;
    folded.lingering.remove(&name);
    File::open(dir)?.sync_all()
}

/// The first half: the sums are durable, and the segment, which still lies there, counts no more.
pub(super) fn append(dir: &Path, name: SegmentName, folded: &mut Folded) -> io::Result<()> {
    let line = line::encode(&hourly(dir, name)?)?;
    let mut file = File::options().write(true).create(true).truncate(false).open(dir.join(FILE_NAME))?;
    // What an earlier attempt left half-written, for want of room, must not stay in front of this line.
    file.set_len(folded.bytes)?;
    file.seek(io::SeekFrom::Start(folded.bytes))?;
    file.write_all(&line)?;
    file.sync_all()?;
    folded.bytes += line.len() as u64;
    folded.lingering.insert(name);
    Ok(())
}

fn hourly(dir: &Path, name: SegmentName) -> io::Result<FoldedSegment> {
    let mut sums: BTreeMap<(TenantName, FunctionName, u64), UsageSum> = BTreeMap::new();
    let mut lines = Lines::open(&dir.join(name.to_string()))?;
    while let Some(record) = lines.next::<UsageRecord>()? {
        let hour_ms = record.start_ms - record.start_ms % HOUR_MS;
        sums.entry((record.tenant.clone(), record.function.clone(), hour_ms)).or_default().add(&record);
    }
    let hour = |((tenant, function, hour_ms), sum)| HourSum { tenant, function, hour_ms, sum };
    Ok(FoldedSegment { segment: name.to_string(), sums: sums.into_iter().map(hour).collect() })
}
