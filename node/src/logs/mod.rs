//! What functions write to their standard streams, by line: the newest of each function in memory, and in a file
//! so that a restart shows them again.
//!
//! A guest's text is data. It is cut into bounded lines, kept as JSON (which escapes control characters and line
//! feeds), and never interpreted. Logs are not bills: a kill may lose the last quarter of a second of them.
//!
//! - `ring`: one function's lines. `writer`: bytes into lines. `file`: to disk and back, on a thread of its own.

mod file;
mod ring;
#[cfg(test)]
mod tests;
mod writer;

pub use file::OpenLogsError;
pub use ring::{LogEvent, LogFollower};
pub use writer::{LogStream, LogWriter};

use neap_sdk::{
    InstanceId, RevisionId,
    api::LogLine,
    id::{FunctionName, TenantName},
};
use ring::FunctionLog;
use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

type Key = (TenantName, FunctionName);

/// The logs of every function on this node. Cheap to clone; its thread ends with the last clone.
#[derive(Clone)]
pub struct LogStore {
    logs: Arc<Logs>,
    _flusher: Arc<file::Flusher>,
}

impl fmt::Debug for LogStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStore").field("dir", &self.logs.dir).finish_non_exhaustive()
    }
}

struct Logs {
    dir: PathBuf,
    functions: RwLock<HashMap<Key, Arc<FunctionLog>>>,
    /// Held while files change, so that a removal and a flush do not meet.
    files: Mutex<()>,
}

impl Logs {
    /// The log of a function, read from its file the first time.
    fn of(&self, tenant: &TenantName, function: &FunctionName) -> Arc<FunctionLog> {
        let key = (tenant.clone(), function.clone());
        if let Some(log) = self.functions.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return log.clone();
        }
        let mut functions = self.functions.write().unwrap_or_else(PoisonError::into_inner);
        let restore = || Arc::new(FunctionLog::restored(file::read(&self.dir, tenant, function)));
        functions.entry(key).or_insert_with(restore).clone()
    }

    fn all(&self) -> Vec<(Key, Arc<FunctionLog>)> {
        let functions = self.functions.read().unwrap_or_else(PoisonError::into_inner);
        functions.iter().map(|(key, log)| (key.clone(), log.clone())).collect()
    }
}

impl LogStore {
    /// Opens the logs below a folder.
    ///
    /// # Errors
    /// The folder cannot be made, or there is no thread for it.
    pub fn open(dir: &Path) -> Result<Self, OpenLogsError> {
        let dir = dir.join("logs");
        let logs = Arc::new(Logs { dir, functions: RwLock::default(), files: Mutex::default() });
        let flusher = file::Flusher::start(logs.clone())?;
        Ok(Self { logs, _flusher: Arc::new(flusher) })
    }

    /// Where an instance writes. Each writer has its own unfinished lines.
    pub fn writer(&self, revision: &RevisionId, instance: InstanceId) -> LogWriter {
        LogWriter::new(self.logs.of(&revision.tenant, &revision.function), revision.number, instance)
    }

    /// The kept lines of a function since a time in milliseconds since 1970, oldest first.
    pub fn tail(&self, tenant: &TenantName, function: &FunctionName, since_ms: u64) -> Vec<Arc<LogLine>> {
        self.logs.of(tenant, function).since(since_ms)
    }

    /// The same, and then every new line, none missing and none twice in between.
    pub fn follow(&self, tenant: &TenantName, function: &FunctionName, since_ms: u64) -> LogFollower {
        self.logs.of(tenant, function).follow(since_ms)
    }

    /// The last `count` lines that an instance of a revision wrote, oldest first.
    pub fn last_lines(&self, revision: &RevisionId, instance: InstanceId, count: usize) -> Vec<Arc<LogLine>> {
        self.logs.of(&revision.tenant, &revision.function).last_of(&instance.to_string(), count)
    }

    /// Forgets a function's lines, in memory and on disk.
    pub fn remove(&self, tenant: &TenantName, function: &FunctionName) {
        let _files = self.logs.files.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (tenant.clone(), function.clone());
        self.logs.functions.write().unwrap_or_else(PoisonError::into_inner).remove(&key);
        file::remove(&self.logs.dir, tenant, function);
    }
}
