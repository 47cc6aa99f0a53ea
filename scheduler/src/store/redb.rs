//! The store in one file of this machine, over redb. A commit is on disk when it is answered. The history that watches
//! read lies in the same file and is bounded: each commit forgets what is older than the limit.
//!
//! redb allows one process per file, so a second server on the same folder is refused here at the latest.

use super::{Committed, Condition, Entry, Event, Range, Store, StoreError, Transaction, Watch, Write};
use futures_util::future::BoxFuture;
use neap_sdk::limits;
use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};
use std::{
    fs::File,
    io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{sync::watch, task::JoinError};
use tokio_util::task::TaskTracker;

/// key → (create revision, mod revision, version, value)
const KEYS: TableDefinition<&str, (u64, u64, u64, &[u8])> = TableDefinition::new("keys");
/// (revision, position within it) → (key, create revision, version, value); version 0 is a deletion.
const HISTORY: TableDefinition<(u64, u32), HistoryRow> = TableDefinition::new("history");
type HistoryRow = (&'static str, u64, u64, &'static [u8]);
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const REVISION: &str = "revision";
/// The last revision whose history is gone.
const COMPACTED: &str = "compacted";
/// The first revision: that of a store that nobody wrote to, as in etcd.
const FIRST_REVISION: u64 = 1;

/// A store in one file.
#[derive(Clone)]
pub struct RedbStore {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    database: Database,
    head: watch::Sender<u64>,
    /// Reads and writes under way: they go on when their futures are dropped.
    work: TaskTracker,
}

/// Why something was not done, before it is known to whom it is told.
enum Failure {
    Store(StoreError),
    Medium(redb::Error),
    /// The work panicked, or its runtime ended.
    Task(JoinError),
}

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Medium(error.into())
    }
}

impl Failure {
    fn told(self, action: &'static str, path: &Path) -> StoreError {
        let path = path.to_owned();
        match self {
            Self::Store(error) => error,
            Self::Medium(redb::Error::DatabaseAlreadyOpen) => StoreError::InUse { path },
            Self::Medium(error) if is_damage(&error) => {
                StoreError::Damaged { path, reason: error.to_string() }
            }
            Self::Medium(error) => StoreError::Storage { action, path, source: Box::new(error) },
            // redb checks what it reads by asserting it.
            Self::Task(error) if error.is_panic() => {
                StoreError::Damaged { path, reason: format!("reading it failed: {error}") }
            }
            Self::Task(error) => StoreError::Storage { action, path, source: Box::new(error) },
        }
    }
}

/// Whether the file is at fault, rather than the disk or whoever asks.
fn is_damage(error: &redb::Error) -> bool {
    use redb::Error as E;
    match error {
        // A bad magic number, and an end before what the header promises.
        E::Io(error) => matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof),
        E::Corrupted(_) | E::UpgradeRequired(_) | E::LockPoisoned(_) | E::RepairAborted => true,
        E::TableTypeMismatch { .. } | E::TableIsMultimap(_) | E::TypeDefinitionChanged { .. } => true,
        _ => false,
    }
}

impl RedbStore {
    /// Opens the store, or makes it where there is none.
    ///
    /// # Errors
    /// The file is another process's, is empty or damaged, or cannot be written.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let path = path.to_owned();
        let work = TaskTracker::new();
        let opened = blocking(&work, {
            let path = path.clone();
            move || {
                let database = open_or_make(&path)?;
                let head = initialise(&database)?;
                Ok((database, head))
            }
        });
        let (database, head) = opened.await.map_err(|failure| failure.told("open", &path))?;
        Ok(Self { inner: Arc::new(Inner { path, database, head: watch::Sender::new(head), work }) })
    }

    async fn run<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Inner) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        let outcome = blocking(&self.inner.work, move || work(&inner)).await;
        outcome.map_err(|failure| failure.told(action, &self.inner.path))
    }
}

/// redb is synchronous and syncs the disk.
async fn blocking<T: Send + 'static>(
    tracker: &TaskTracker,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tracker.spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(join) => Err(Failure::Task(join)),
    }
}

/// A store that is there is checked as a whole: redb trusts a file that it closed, and one that was altered since would
/// make it panic later, or answer wrongly.
fn open_or_make(path: &Path) -> Result<Database, Failure> {
    match std::fs::metadata(path) {
        Ok(found) if found.len() == 0 => {
            return Err(Failure::Store(StoreError::Empty { path: path.to_owned() }));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path)?,
        Err(error) => return Err(error.into()),
    }
    Ok(Database::builder().set_check_integrity_on_open(true).open(path)?)
}

/// Makes an empty store under another name first: whatever ends this early leaves no file that looks like a lost store.
fn make(path: &Path) -> Result<(), Failure> {
    let unfinished = path.with_added_extension("new");
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let database = Database::create(&unfinished)?;
    initialise(&database)?;
    drop(database);
    File::open(&unfinished)?.sync_all()?;
    std::fs::rename(&unfinished, path)?;
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

fn initialise(database: &Database) -> Result<u64, Failure> {
    let transaction = database.begin_write()?;
    let revision = {
        transaction.open_table(KEYS)?;
        transaction.open_table(HISTORY)?;
        let mut meta = transaction.open_table(META)?;
        let known = meta.get(REVISION)?.map(|guard| guard.value());
        if known.is_none() {
            meta.insert(REVISION, FIRST_REVISION)?;
            meta.insert(COMPACTED, 0)?;
        }
        known.unwrap_or(FIRST_REVISION)
    };
    transaction.commit()?;
    Ok(revision)
}

impl Store for RedbStore {
    fn range<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Range, StoreError>> {
        let prefix = prefix.to_owned();
        Box::pin(self.run("read", move |inner| read_range(&inner.database, &prefix)))
    }

    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Committed, StoreError>> {
        Box::pin(async move {
            transaction.check()?;
            self.run("write", move |inner| {
                let committed = commit(&inner.database, &transaction)?;
                if let Committed::Done { revision } = committed {
                    // Two commits may end here in either order.
                    inner.head.send_if_modified(|head| {
                        let newer = revision > *head;
                        *head = revision.max(*head);
                        newer
                    });
                }
                Ok(committed)
            })
            .await
        })
    }

    fn watch<'a>(&'a self, prefix: &'a str, from: u64) -> BoxFuture<'a, Result<Box<dyn Watch>, StoreError>> {
        Box::pin(async move {
            self.run("read", move |inner| read_history(&inner.database, "", from, from)).await?;
            let watch = RedbWatch {
                store: self.clone(),
                prefix: prefix.to_owned(),
                next: from,
                head: self.inner.head.subscribe(),
            };
            Ok(Box::new(watch) as Box<dyn Watch>)
        })
    }

    fn compact(&self, revision: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.run("write", move |inner| {
            let transaction = inner.database.begin_write()?;
            let head = transaction.open_table(META)?.get(REVISION)?.map_or(0, |guard| guard.value());
            forget_history(&transaction, revision.min(head))?;
            Ok(transaction.commit()?)
        }))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.inner.work.close();
            self.inner.work.wait().await;
        })
    }
}

struct RedbWatch {
    store: RedbStore,
    prefix: String,
    /// The first revision that was not answered yet.
    next: u64,
    head: watch::Receiver<u64>,
}

impl Watch for RedbWatch {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Event>, StoreError>> {
        Box::pin(async move {
            loop {
                let head = *self.head.borrow_and_update();
                if head >= self.next {
                    let (prefix, from) = (self.prefix.clone(), self.next);
                    let read = move |inner: &Inner| read_history(&inner.database, &prefix, from, head);
                    let events = self.store.run("read", read).await?;
                    self.next = head + 1;
                    if !events.is_empty() {
                        return Ok(events);
                    }
                }
                // The sender lives in the store, which this watch holds.
                let _ = self.head.changed().await;
            }
        })
    }
}

fn read_range(database: &Database, prefix: &str) -> Result<Range, Failure> {
    let transaction = database.begin_read()?;
    let revision = transaction.open_table(META)?.get(REVISION)?.map_or(0, |guard| guard.value());
    let keys = transaction.open_table(KEYS)?;
    let mut entries = Vec::new();
    for row in keys.range::<&str>((Bound::Included(prefix), Bound::Unbounded))? {
        let (key, value) = row?;
        if !key.value().starts_with(prefix) {
            break;
        }
        entries.push(entry(key.value(), value.value()));
    }
    Ok(Range { revision, entries })
}

fn entry(key: &str, (create_revision, mod_revision, version, value): (u64, u64, u64, &[u8])) -> Entry {
    Entry { key: key.to_owned(), value: value.to_vec(), create_revision, mod_revision, version }
}

fn read_history(database: &Database, prefix: &str, from: u64, to: u64) -> Result<Vec<Event>, Failure> {
    let transaction = database.begin_read()?;
    let compacted = transaction.open_table(META)?.get(COMPACTED)?.map_or(0, |guard| guard.value());
    if from <= compacted {
        return Err(Failure::Store(StoreError::Compacted { oldest: compacted + 1 }));
    }
    let history = transaction.open_table(HISTORY)?;
    let mut events = Vec::new();
    for row in history.range((from, 0)..=(to, u32::MAX))? {
        let (at, row) = row?;
        let (revision, _) = at.value();
        let (key, create_revision, version, value) = row.value();
        if !key.starts_with(prefix) {
            continue;
        }
        events.push(match version {
            0 => Event::Delete { key: key.to_owned(), revision },
            _ => Event::Put(entry(key, (create_revision, revision, version, value))),
        });
    }
    Ok(events)
}

fn commit(database: &Database, asked: &Transaction) -> Result<Committed, Failure> {
    let transaction = database.begin_write()?;
    let before = transaction.open_table(META)?.get(REVISION)?.map_or(0, |guard| guard.value());
    let revision = before + 1;
    let changes = {
        let mut keys = transaction.open_table(KEYS)?;
        for compare in &asked.compares {
            if !holds(&keys, compare)? {
                return Ok(Committed::Conflict { revision: before });
            }
        }
        let mut history = transaction.open_table(HISTORY)?;
        let mut changes = 0;
        for write in &asked.writes {
            changes += apply(&mut keys, &mut history, write, (revision, changes))?;
        }
        changes
    };
    if changes == 0 {
        return Ok(Committed::Done { revision: before });
    }
    transaction.open_table(META)?.insert(REVISION, revision)?;
    forget_history(&transaction, revision.saturating_sub(limits::STORE_HISTORY_KEPT_MAX))?;
    transaction.commit()?;
    Ok(Committed::Done { revision })
}

type Keys<'t> = Table<'t, &'static str, (u64, u64, u64, &'static [u8])>;
type History<'t> = Table<'t, (u64, u32), HistoryRow>;

fn holds(keys: &Keys<'_>, compare: &super::Compare) -> Result<bool, Failure> {
    let found = keys.get(compare.key.as_str())?;
    Ok(match (&compare.condition, found.as_ref().map(|guard| guard.value())) {
        (Condition::Absent, found) => found.is_none(),
        (_, None) => false,
        (Condition::CreateRevision(revision), Some((create, ..))) => create == *revision,
        (Condition::ModRevision(revision), Some((_, modified, ..))) => modified == *revision,
        (Condition::Version(version), Some((_, _, found, _))) => found == *version,
        (Condition::Value(value), Some((.., found))) => found == value.as_slice(),
    })
}

/// Does one write and records it; answers how many changes that made (0 or 1).
fn apply(
    keys: &mut Keys<'_>,
    history: &mut History<'_>,
    write: &Write,
    at: (u64, u32),
) -> Result<u32, Failure> {
    let (revision, _) = at;
    match write {
        Write::Put { key, value } => {
            let known = keys.get(key.as_str())?.map(|guard| (guard.value().0, guard.value().2));
            let (create_revision, version) =
                known.map_or((revision, 1), |(create, version)| (create, version + 1));
            keys.insert(key.as_str(), (create_revision, revision, version, value.as_slice()))?;
            history.insert(at, (key.as_str(), create_revision, version, value.as_slice()))?;
            Ok(1)
        }
        Write::Delete { key } => {
            let existed = keys.remove(key.as_str())?.is_some();
            if existed {
                history.insert(at, (key.as_str(), 0, 0, &[][..]))?;
            }
            Ok(existed.into())
        }
    }
}

fn forget_history(transaction: &WriteTransaction, upto: u64) -> Result<(), Failure> {
    let mut meta = transaction.open_table(META)?;
    let compacted = meta.get(COMPACTED)?.map_or(0, |guard| guard.value());
    if upto <= compacted {
        return Ok(());
    }
    let mut history = transaction.open_table(HISTORY)?;
    history.retain_in((compacted, 0)..=(upto, u32::MAX), |_, _| false)?;
    meta.insert(COMPACTED, upto)?;
    Ok(())
}
