//! Log lines on disk: `logs/TENANT/FUNCTION.log`, one JSON object per line, and the file before it as
//! `FUNCTION.old`. Each is at most about [`limits::LOG_BYTES_KEPT_MAX`] long. Written by one thread a few times a
//! second, never where a guest writes. A line that was torn by a kill is skipped when reading.

use super::{Key, Logs};
use neap_sdk::{
    api::LogLine,
    id::{FunctionName, TenantName},
    limits,
};
use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, mpsc},
    thread::JoinHandle,
    time::Duration,
};

/// How long a line may be in memory only.
const FLUSH_INTERVAL: Duration = Duration::from_millis(250);

/// Why the logs could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("logs: cannot {what} {path}")]
pub struct OpenLogsError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The thread that writes; ends, after a last flush, when this is dropped.
pub(super) struct Flusher {
    running: Option<mpsc::SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    pub(super) fn start(logs: Arc<Logs>) -> Result<Self, OpenLogsError> {
        let path = logs.dir.clone();
        let on = |what| {
            let path = path.clone();
            move |source| OpenLogsError { what, path, source }
        };
        fs::create_dir_all(&path).map_err(on("create"))?;
        let (running, ended) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("neap-logs".into())
            .spawn(move || {
                let mut failing = false;
                while matches!(ended.recv_timeout(FLUSH_INTERVAL), Err(mpsc::RecvTimeoutError::Timeout)) {
                    flush(&logs, &mut failing);
                }
                flush(&logs, &mut failing);
            })
            .map_err(on("start a thread for"))?;
        Ok(Self { running: Some(running), thread: Some(thread) })
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.running = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Writes what is new. A failure is said once; what could not be written stays readable in memory.
fn flush(logs: &Logs, failing: &mut bool) {
    let _files = logs.files.lock().unwrap_or_else(PoisonError::into_inner);
    let mut result = Ok(());
    for (key, log) in logs.all() {
        let lines = log.take_unflushed();
        if !lines.is_empty() {
            result = result.and(append(&logs.dir, &key, &lines));
        }
    }
    if let Err(error) = &result
        && !*failing
    {
        tracing::warn!(%error, dir = %logs.dir.display(), "log lines cannot be written; a restart will not show them");
    }
    *failing = result.is_err();
}

fn paths(dir: &Path, tenant: &TenantName, function: &FunctionName) -> [PathBuf; 2] {
    let dir = dir.join(tenant.as_str());
    [dir.join(format!("{function}.old")), dir.join(format!("{function}.log"))]
}

fn append(dir: &Path, (tenant, function): &Key, lines: &[Arc<LogLine>]) -> io::Result<()> {
    let [old, current] = paths(dir, tenant, function);
    fs::create_dir_all(dir.join(tenant.as_str()))?;
    let mut text = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut text, &**line)?;
        text.push(b'\n');
    }
    let mut file = File::options().create(true).append(true).open(&current)?;
    if file.metadata()?.len() >= limits::LOG_BYTES_KEPT_MAX as u64 {
        fs::rename(&current, &old)?;
        file = File::options().create(true).append(true).open(&current)?;
    }
    file.write_all(&text)
}

/// The lines that an earlier run left, oldest first.
pub(super) fn read(dir: &Path, tenant: &TenantName, function: &FunctionName) -> Vec<LogLine> {
    let mut lines = Vec::new();
    for path in paths(dir, tenant, function) {
        match fs::read(&path) {
            Ok(text) => {
                let parsed =
                    text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
                lines.extend(parsed);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, path = %path.display(), "old log lines cannot be read"),
        }
    }
    lines
}

/// Removes a function's files.
pub(super) fn remove(dir: &Path, tenant: &TenantName, function: &FunctionName) {
    for path in paths(dir, tenant, function) {
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "a log file cannot be removed");
        }
    }
}
