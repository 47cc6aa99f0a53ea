//! Reads the ledger back: records as they are, and sums over records and folded hours together.
//! Holds one line in memory at a time. Must not change a file.

use super::{
    UsageFilter,
    fold::{FILE_NAME, FoldedSegment, HOUR_MS},
    ledger::{Files, SegmentName, segments},
    line::Lines,
};
use neap_sdk::{
    api::FunctionUsage,
    id::{FunctionName, TenantName},
    invocation::{UsageRecord, UsageSum},
};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::{Path, PathBuf},
    sync::PoisonError,
};

/// Records that are read before the reader asks for them.
pub(super) const RECORDS_AHEAD_MAX: usize = 256;

/// Why usage could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadUsageError {
    /// A file of the ledger cannot be read.
    #[error("usage ledger: cannot read {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The reading thread ended early.
    #[error("usage ledger: reading was stopped: {0}")]
    Stopped(String),
}

fn on(path: &Path) -> impl FnOnce(io::Error) -> ReadUsageError {
    let path = path.to_owned();
    move |source| ReadUsageError::File { path, source }
}

/// Kept records that a filter takes, oldest segment first.
#[derive(Debug)]
pub struct Records {
    filter: UsageFilter,
    /// Segments yet to be read; listed by the first call of `next`.
    pending: Option<VecDeque<PathBuf>>,
    dir: PathBuf,
    open: Option<(PathBuf, Lines)>,
}

impl Records {
    pub(super) fn new(dir: &Path, filter: UsageFilter) -> Self {
        Self { filter, pending: None, dir: dir.to_owned(), open: None }
    }

    fn of(dir: &Path, names: impl Iterator<Item = SegmentName>, filter: UsageFilter) -> Self {
        let pending = Some(names.map(|name| dir.join(name.to_string())).collect());
        Self { pending, ..Self::new(dir, filter) }
    }

    fn read(&mut self) -> Result<Option<UsageRecord>, ReadUsageError> {
        let pending = match &mut self.pending {
            Some(pending) => pending,
            unlisted => {
                let names = segments(&self.dir).map_err(on(&self.dir))?;
                unlisted.insert(names.iter().map(|name| self.dir.join(name.to_string())).collect())
            }
        };
        loop {
            let Some((path, lines)) = &mut self.open else {
                let Some(path) = pending.pop_front() else { return Ok(None) };
                match Lines::open(&path) {
                    Ok(lines) => self.open = Some((path, lines)),
                    // Folded since it was listed: it is a sum now.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(on(&path)(error)),
                }
                continue;
            };
            match lines.next::<UsageRecord>().map_err(on(path))? {
                None => self.open = None,
                Some(record)
                    if record.start_ms >= self.filter.since_ms
                        && self.filter.takes(&record.tenant, &record.function) =>
                {
                    return Ok(Some(record));
                }
                Some(_) => {}
            }
        }
    }
}

impl Iterator for Records {
    type Item = Result<UsageRecord, ReadUsageError>;

    /// After an error there is nothing more.
    fn next(&mut self) -> Option<Self::Item> {
        let record = self.read();
        if record.is_err() {
            (self.open, self.pending) = (None, Some(VecDeque::new()));
        }
        record.transpose()
    }
}

/// What each function used: folded hours and kept records together.
pub(super) fn sums(files: &Files, filter: &UsageFilter) -> Result<Vec<FunctionUsage>, ReadUsageError> {
    // Held all through: a segment must not move from one side to the other in between.
    let not_folding = files.folded.read().unwrap_or_else(PoisonError::into_inner);
    let mut sums: BTreeMap<(TenantName, FunctionName), UsageSum> = BTreeMap::new();
    let path = files.dir().join(FILE_NAME);
    let mut lines = Lines::open(&path).map_err(on(&path))?;
    while let Some(folded) = lines.next::<FoldedSegment>().map_err(on(&path))? {
        for hour in folded.sums {
            if hour.hour_ms + HOUR_MS > filter.since_ms && filter.takes(&hour.tenant, &hour.function) {
                merge(sums.entry((hour.tenant, hour.function)).or_default(), &hour.sum);
            }
        }
    }
    let counts = |name: &SegmentName| !not_folding.lingering.contains(name);
    let names = segments(files.dir()).map_err(on(files.dir()))?;
    for record in Records::of(files.dir(), names.into_iter().filter(counts), filter.clone()) {
        let record = record?;
        sums.entry((record.tenant.clone(), record.function.clone())).or_default().add(&record);
    }
    let view = |((tenant, function), sum): ((TenantName, FunctionName), UsageSum)| FunctionUsage {
        tenant,
        function,
        gb_seconds: sum.gb_seconds(),
        cpu_seconds: sum.cpu_seconds(),
        sum,
    };
    Ok(sums.into_iter().map(view).collect())
}

fn merge(into: &mut UsageSum, other: &UsageSum) {
    into.invocations += other.invocations;
    into.cold_starts += other.cold_starts;
    into.errors += other.errors;
    into.wall_us += other.wall_us;
    into.cpu_us += other.cpu_us;
    into.memory_byte_us += other.memory_byte_us;
    into.bytes_in += other.bytes_in;
    into.bytes_out += other.bytes_out;
}
