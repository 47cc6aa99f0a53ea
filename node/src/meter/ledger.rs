//! The files of the usage ledger and their writers: a segment for each core, so that cores do not wait for each
//! other.
//!
//! ```text
//!   usage/lock                    held while open: one writer at a time
//!   usage/epoch                   the number of the latest opening
//!   usage/00000007-000001.log     records of epoch 7, first segment
//!   usage/folded.log              one line per folded segment: its name and its hourly sums
//! ```
//!
//! A thread of its own syncs every second and folds old segments; it ends with the ledger.

use super::{
    UsageFilter, fold, line,
    read::{self, ReadUsageError, Records},
};
use neap_sdk::{api::FunctionUsage, invocation::UsageRecord, limits};
use prometheus_client::metrics::counter::Counter;
use std::{
    fmt,
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    str::FromStr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

/// Most segments that are written side by side; with more cores than this, some share one.
const WRITERS_MAX: usize = 16;

/// How long a record may lie in the kernel before it is synced to disk: what a power cut can take at most.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// Why the ledger could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenLedgerError {
    /// A file or folder could not be made, read or written.
    #[error("usage ledger: cannot {what} {path}")]
    File {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process has it open.
    #[error("usage ledger {0} is in use by another process; stop that one first")]
    InUse(PathBuf),
}

/// How the ledger is kept.
#[derive(Debug, Clone)]
pub(crate) struct LedgerSettings {
    /// Its folder.
    pub dir: PathBuf,
    /// When a new segment is begun.
    pub segment_bytes_max: u64,
    /// How many raw segments are kept.
    pub segments_kept_max: usize,
}

impl LedgerSettings {
    /// The settings of production, below a node's folder.
    pub(crate) fn below(dir: &Path) -> Self {
        Self {
            dir: dir.join("usage"),
            segment_bytes_max: limits::LEDGER_SEGMENT_BYTES_MAX,
            segments_kept_max: limits::LEDGER_SEGMENTS_KEPT_MAX,
        }
    }
}

/// The name of a segment; orders as segments were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SegmentName {
    epoch: u64,
    number: u64,
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08}-{:06}.log", self.epoch, self.number)
    }
}

impl FromStr for SegmentName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (epoch, number) = text.strip_suffix(".log").and_then(|text| text.split_once('-')).ok_or(())?;
        Ok(Self { epoch: epoch.parse().map_err(|_| ())?, number: number.parse().map_err(|_| ())? })
    }
}

/// What the ledger counts about itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct LedgerCounters {
    pub records: Counter,
    pub errors: Counter,
}

/// The usage ledger of one node. Cheap to share by reference; its thread ends when it is dropped.
#[derive(Debug)]
pub struct Ledger {
    files: Arc<Files>,
    /// Wakes the thread; dropped first, which ends it.
    wake: Option<mpsc::SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the ledger and its thread share.
#[derive(Debug)]
pub(super) struct Files {
    settings: LedgerSettings,
    epoch: u64,
    seq: AtomicU64,
    next_segment: AtomicU64,
    /// One for each core; empty until its first record.
    writers: Box<[Mutex<Option<Writer>>]>,
    /// The last write failed, and that was said.
    failing: AtomicBool,
    /// Folding writes, summing reads.
    pub(super) folded: RwLock<fold::Folded>,
    counters: LedgerCounters,
    _lock: File,
}

/// A segment that is appended to.
#[derive(Debug)]
struct Writer {
    name: SegmentName,
    file: Arc<File>,
    bytes: u64,
    /// The last write failed half-way: what it left must not be glued to the next record.
    torn: bool,
    /// Something was written since the last sync.
    dirty: bool,
    /// Full segments that were not synced yet.
    retired: Vec<Arc<File>>,
}

impl Ledger {
    /// Opens the ledger: takes the lock, begins a new epoch, cuts a torn last line, and starts the thread.
    pub(crate) fn open(settings: LedgerSettings, counters: LedgerCounters) -> Result<Self, OpenLedgerError> {
        let dir = settings.dir.clone();
        fs::create_dir_all(&dir).map_err(on("create", &dir))?;
        let lock = take_lock(&dir)?;
        let folded = fold::open(&dir).map_err(on("read", &dir.join(fold::FILE_NAME)))?;
        let names = segments(&dir).map_err(on("list", &dir))?;
        repair(&settings, &names)?;
        let epoch = begin_epoch(&dir, names.last().map_or(0, |name| name.epoch))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let files = Arc::new(Files {
            settings,
            epoch,
            seq: AtomicU64::new(1),
            next_segment: AtomicU64::new(1),
            writers: (0..cores.min(WRITERS_MAX)).map(|_| Mutex::default()).collect(),
            failing: AtomicBool::new(false),
            folded: RwLock::new(folded),
            counters,
            _lock: lock,
        });
        let (wake, woken) = mpsc::sync_channel(1);
        let background = files.clone();
        let thread = std::thread::Builder::new()
            .name("neap-ledger".into())
            .spawn(move || keep(&background, &woken))
            .map_err(on("start a thread for", &dir))?;
        Ok(Self { files, wake: Some(wake), thread: Some(thread) })
    }

    /// Gives the record its id and writes it; when this returns, `kill -9` cannot lose it. Takes a few
    /// microseconds and never waits for a disk. A failure is logged, counted, and otherwise without consequence.
    pub(crate) fn append(&self, mut record: UsageRecord) {
        let seq = self.files.seq.fetch_add(1, Ordering::Relaxed);
        record.id = format!("{:x}-{seq:x}", self.files.epoch);
        match line::encode(&record) {
            Ok(line) => {
                if self.files.write(&line)
                    && let Some(wake) = &self.wake
                {
                    // Full means that the thread is woken already.
                    let _ = wake.try_send(());
                }
            }
            Err(error) => {
                self.files.counters.errors.inc();
                tracing::error!(%error, id = record.id, "a usage record has no JSON form");
            }
        }
    }

    /// What each function used, ordered by tenant and function. Reads every kept record: runs on a blocking
    /// thread, in memory bounded by the number of functions.
    ///
    /// # Errors
    /// A file of the ledger cannot be read.
    pub async fn sums(&self, filter: UsageFilter) -> Result<Vec<FunctionUsage>, ReadUsageError> {
        let files = self.files.clone();
        match tokio::task::spawn_blocking(move || read::sums(&files, &filter)).await {
            Ok(sums) => sums,
            Err(join) => Err(ReadUsageError::Stopped(join.to_string())),
        }
    }

    /// Kept records, oldest segment first; those that are in sums only are not among them. Blocks while it reads:
    /// use it on a blocking thread, or use [`Ledger::stream`].
    pub fn records(&self, filter: UsageFilter) -> Records {
        Records::new(self.files.dir(), filter)
    }

    /// The same, read on a blocking thread a little ahead of the reader; ends when the reader
    /// is dropped.
    pub fn stream(
        &self,
        filter: UsageFilter,
    ) -> tokio::sync::mpsc::Receiver<Result<UsageRecord, ReadUsageError>> {
        let (sender, receiver) = tokio::sync::mpsc::channel(read::RECORDS_AHEAD_MAX);
        let records = self.records(filter);
        tokio::task::spawn_blocking(move || {
            for record in records {
                if sender.blocking_send(record).is_err() {
                    return;
                }
            }
        });
        receiver
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Files {
    pub(super) fn dir(&self) -> &Path {
        &self.settings.dir
    }

    /// Appends one line to this core's segment; true when that filled it.
    fn write(&self, line: &[u8]) -> bool {
        let result = self.try_write(line);
        match &result {
            Ok(_) => {
                self.counters.records.inc();
                if self.failing.load(Ordering::Relaxed) {
                    self.failing.store(false, Ordering::Relaxed);
                    tracing::info!(dir = %self.dir().display(), "usage records are written again");
                }
            }
            Err(error) => {
                self.counters.errors.inc();
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, dir = %self.dir().display(), "a usage record could not be written; such invocations are not billed until there is room again");
                }
            }
        }
        result.unwrap_or(false)
    }

    fn try_write(&self, line: &[u8]) -> io::Result<bool> {
        let mut writer = lock(&self.writers[core_index() % self.writers.len()]);
        let writer = match &mut *writer {
            Some(writer) => writer,
            unused => unused.insert(self.create_segment()?),
        };
        writer.append(line)?;
        if writer.bytes < self.settings.segment_bytes_max {
            return Ok(false);
        }
        // Without room for another segment the full one grows on; the record itself is safe.
        if let Ok(next) = self.create_segment() {
            let full = std::mem::replace(writer, next);
            writer.retired = full.retired;
            writer.retired.push(full.file);
            return Ok(true);
        }
        Ok(false)
    }

    fn create_segment(&self) -> io::Result<Writer> {
        let name =
            SegmentName { epoch: self.epoch, number: self.next_segment.fetch_add(1, Ordering::Relaxed) };
        let file = File::options().create_new(true).append(true).open(self.dir().join(name.to_string()))?;
        Ok(Writer { name, file: Arc::new(file), bytes: 0, torn: false, dirty: false, retired: Vec::new() })
    }

    fn sync(&self) {
        for writer in &self.writers {
            // Not held while syncing: a request may want to write.
            let files = lock(writer).as_mut().map(Writer::take_unsynced).unwrap_or_default();
            for file in files {
                // Not tried again: after a failed sync the kernel may call lost pages clean.
                if let Err(error) = file.sync_data() {
                    self.counters.errors.inc();
                    tracing::error!(%error, dir = %self.dir().display(), "usage records could not be synced to disk");
                }
            }
        }
    }

    fn fold(&self) {
        // Listed before the active ones are asked for: a segment that is begun in between is not in the list.
        let folded = segments(self.dir()).and_then(|mut names| {
            let active: Vec<_> = self
                .writers
                .iter()
                .filter_map(|writer| lock(writer).as_ref().map(|writer| writer.name))
                .collect();
            names.retain(|name| !active.contains(name));
            let surplus = (names.len() + active.len()).saturating_sub(self.settings.segments_kept_max);
            names.iter().take(surplus).try_for_each(|name| {
                let mut folded = self.folded.write().unwrap_or_else(PoisonError::into_inner);
                fold::fold(self.dir(), *name, &mut folded)
            })
        });
        if let Err(error) = folded {
            self.counters.errors.inc();
            tracing::error!(%error, dir = %self.dir().display(), "old usage could not be folded into sums");
        }
    }
}

impl Writer {
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.torn {
            (&*self.file).write_all(b"\n")?;
            self.bytes += 1;
            self.torn = false;
        }
        // Half a line may be there already, so it is torn until the whole line is.
        self.torn = true;
        (&*self.file).write_all(line)?;
        self.torn = false;
        self.bytes += line.len() as u64;
        self.dirty = true;
        Ok(())
    }

    fn take_unsynced(&mut self) -> Vec<Arc<File>> {
        let mut files = std::mem::take(&mut self.retired);
        if std::mem::take(&mut self.dirty) {
            files.push(self.file.clone());
        }
        files
    }
}

fn lock(writer: &Mutex<Option<Writer>>) -> MutexGuard<'_, Option<Writer>> {
    writer.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A small number that differs between the threads that serve, so that each has a segment to itself.
fn core_index() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static INDEX: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    INDEX.with(|index| *index)
}

/// The thread: syncs and folds every second, and at once when a segment is full; ends when the ledger does.
fn keep(files: &Files, woken: &mpsc::Receiver<()>) {
    loop {
        let ended = matches!(woken.recv_timeout(SYNC_INTERVAL), Err(mpsc::RecvTimeoutError::Disconnected));
        files.sync();
        files.fold();
        if ended {
            return;
        }
    }
}

#[cfg(test)]
impl Ledger {
    pub(super) fn files(&self) -> &Files {
        &self.files
    }
}

#[cfg(test)]
impl Files {
    /// Puts another file under this thread's writer, and returns the one before.
    pub(super) fn swap_file(&self, file: Arc<File>) -> Arc<File> {
        let mut writer = lock(&self.writers[core_index() % self.writers.len()]);
        std::mem::replace(&mut writer.as_mut().unwrap().file, file)
    }
}

fn on(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenLedgerError {
    let path = path.to_owned();
    move |source| OpenLedgerError::File { what, path, source }
}

fn take_lock(dir: &Path) -> Result<File, OpenLedgerError> {
    let path = dir.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(on("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenLedgerError::InUse(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(on("lock", &path)(source)),
    }
}

/// Puts right what a kill left: half a line at the end of a segment that was being written, and empty segments.
fn repair(settings: &LedgerSettings, names: &[SegmentName]) -> Result<(), OpenLedgerError> {
    let newest = names.last().map(|name| name.epoch);
    for name in names {
        let path = settings.dir.join(name.to_string());
        let bytes = fs::metadata(&path).map_err(on("read", &path))?.len();
        if bytes == 0 {
            fs::remove_file(&path).map_err(on("remove", &path))?;
        } else if Some(name.epoch) == newest && bytes < settings.segment_bytes_max {
            line::cut_torn_tail(&path).map_err(on("repair", &path))?;
        }
    }
    Ok(())
}

/// Makes a number durable that no opening had before.
fn begin_epoch(dir: &Path, newest: u64) -> Result<u64, OpenLedgerError> {
    let path = dir.join("epoch");
    let stored = match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().unwrap_or(0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(on("read", &path)(error)),
    };
    let epoch = newest.max(stored) + 1;
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        writeln!(file, "{epoch}")?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(on("write", &path))?;
    Ok(epoch)
}

/// The segments of a folder, oldest first.
pub(super) fn segments(dir: &Path) -> io::Result<Vec<SegmentName>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.extend(entry?.file_name().to_str().and_then(|name| name.parse::<SegmentName>().ok()));
    }
    names.sort_unstable();
    Ok(names)
}
