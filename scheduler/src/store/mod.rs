//! What tenants said, kept: a store of keys with etcd's semantics, so that one machine (redb, embedded) and many
//! (etcd) run the same scheduler.
//!
//! The semantics, which [`contract`] tests: one revision counter over all keys, one step per transaction that wrote;
//! each key knows the revision that made it, the one that changed it last, and how often it was written since; a
//! transaction compares, then writes all or nothing; a watch tells every change from a revision on, in order, none
//! left out, or that the history it needs was compacted. An answered commit survives a crash.
//!
//! Leases (keys that vanish with their owner) are left out: one machine has no use for them; they come with etcd.

#[cfg(any(test, feature = "fake"))]
pub mod contract;
mod redb;

pub use self::redb::RedbStore;

use futures_util::future::BoxFuture;
use neap_sdk::{ErrorCode, Problem, limits};
use std::path::PathBuf;

/// A store of keys.
pub trait Store: Send + Sync + 'static {
    /// Every key that begins with `prefix`, in order, as of one revision.
    fn range<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Range, StoreError>>;

    /// Compares, and if all holds, writes all; durable when answered. Dropping the future does not take it back.
    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Committed, StoreError>>;

    /// Every change of keys that begin with `prefix`, from revision `from` on.
    fn watch<'a>(&'a self, prefix: &'a str, from: u64) -> BoxFuture<'a, Result<Box<dyn Watch>, StoreError>>;

    /// Forgets the history up to and including `revision`. The keys stay as they are.
    fn compact(&self, revision: u64) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Waits until nothing is read or written any more, whoever stopped waiting for it. For the last user.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// A running watch. It ends when dropped.
pub trait Watch: Send {
    /// The next changes: whole revisions, never empty. Cancel-safe: what was not answered comes again.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when this watch was too slow: read the range again and watch from its revision on.
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Event>, StoreError>>;
}

/// A key and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// What it holds.
    pub value: Vec<u8>,
    /// The revision that made the key.
    pub create_revision: u64,
    /// The revision that wrote it last.
    pub mod_revision: u64,
    /// How often it was written since it was made, from 1.
    pub version: u64,
}

/// Keys as of one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// As of which.
    pub revision: u64,
    /// The keys in order.
    pub entries: Vec<Entry>,
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The key was written.
    Put(Entry),
    /// The key was deleted.
    Delete {
        /// Which key.
        key: String,
        /// By which revision.
        revision: u64,
    },
}

impl Event {
    /// The revision that did it.
    pub fn revision(&self) -> u64 {
        match self {
            Self::Put(entry) => entry.mod_revision,
            Self::Delete { revision, .. } => *revision,
        }
    }
}

/// Something that must hold for a transaction to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    /// Of which key.
    pub key: String,
    /// What.
    pub condition: Condition,
}

/// What must hold of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// There is no such key.
    Absent,
    /// It was written last by this revision.
    ModRevision(u64),
    /// It was made by this revision.
    CreateRevision(u64),
    /// It was written so often.
    Version(u64),
    /// It holds this.
    Value(Vec<u8>),
}

/// One write of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Writes a key.
    Put {
        /// Which.
        key: String,
        /// What.
        value: Vec<u8>,
    },
    /// Deletes a key; one that is not there is no change.
    Delete {
        /// Which.
        key: String,
    },
}

impl Write {
    /// The key that is written.
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// Compares and writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// All of these must hold.
    pub compares: Vec<Compare>,
    /// Then all of these are done, at one revision. No key twice.
    pub writes: Vec<Write>,
}

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    /// Everything was written.
    Done {
        /// At which revision; the one before where nothing changed.
        revision: u64,
    },
    /// A comparison did not hold; nothing was written.
    Conflict {
        /// As of which revision.
        revision: u64,
    },
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The history before `oldest` is gone.
    #[error("the store's history before revision {oldest} was compacted")]
    Compacted {
        /// The oldest revision that a watch can begin with.
        oldest: u64,
    },
    /// The transaction breaks a limit or writes a key twice.
    #[error("the store refuses the transaction: {0}")]
    Invalid(String),
    /// The file is there and holds nothing, so that what was wanted is unknown; it is never taken for a new one.
    #[error(
        "the store {} is empty: the desired state is lost; restore it from a backup, or delete the file to begin anew",
        path.display()
    )]
    Empty {
        /// Where it lies.
        path: PathBuf,
    },
    /// The file is not what was written to it.
    #[error(
        "the store {} is damaged ({reason}); restore it from a backup, or move it away and push again",
        path.display()
    )]
    Damaged {
        /// Where it lies.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process has the file open.
    #[error("the store {} is open in another process; stop that one first", path.display())]
    InUse {
        /// Where it lies.
        path: PathBuf,
    },
    /// The medium failed.
    #[error("cannot {action} the store {}; check that its disk is writable and has room", path.display())]
    Storage {
        /// What was tried.
        action: &'static str,
        /// Where it lies.
        path: PathBuf,
        /// What the medium said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    /// What a client is told.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Storage { source, .. } => Problem::new(ErrorCode::Storage, format!("{self}: {source}")),
            Self::Empty { .. } | Self::Damaged { .. } | Self::InUse { .. } => {
                Problem::new(ErrorCode::Storage, self.to_string())
            }
            Self::Invalid(_) => Problem::new(ErrorCode::Invalid, self.to_string()),
            Self::Compacted { .. } => Problem::new(ErrorCode::Internal, self.to_string()),
        }
    }
}

impl Transaction {
    /// Checks the limits that every implementation holds.
    ///
    /// # Errors
    /// [`StoreError::Invalid`].
    pub fn check(&self) -> Result<(), StoreError> {
        let too_many = self.writes.len() > limits::STORE_TXN_WRITES_MAX;
        if too_many {
            let text = format!("{} writes; at most {}", self.writes.len(), limits::STORE_TXN_WRITES_MAX);
            return Err(StoreError::Invalid(text));
        }
        for (index, write) in self.writes.iter().enumerate() {
            let key = write.key();
            if key.is_empty() || key.len() > limits::STORE_KEY_BYTES_MAX {
                let text = format!("a key of {} bytes; 1 to {}", key.len(), limits::STORE_KEY_BYTES_MAX);
                return Err(StoreError::Invalid(text));
            }
            if let Write::Put { value, .. } = write
                && value.len() > limits::STORE_VALUE_BYTES_MAX
            {
                let text =
                    format!("{key} gets {} bytes; at most {}", value.len(), limits::STORE_VALUE_BYTES_MAX);
                return Err(StoreError::Invalid(text));
            }
            if self.writes[..index].iter().any(|other| other.key() == key) {
                return Err(StoreError::Invalid(format!("{key} is written twice")));
            }
        }
        Ok(())
    }
}
