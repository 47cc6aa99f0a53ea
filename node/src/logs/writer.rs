//! Bytes into lines: a writer collects what comes until a line feed, and cuts what is too long.

use super::ring::FunctionLog;
use crate::meter::recorder::now_ms;
use neap_sdk::{InstanceId, api::LogLine, limits};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// Stands at the end of a line that was cut.
const CUT_MARK: &str = " […cut]";

/// Which of the two streams something was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl LogStream {
    /// The name, as it stands in a log line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Where one instance writes. Clones share their unfinished lines, [forks](LogWriter::fork) do not. An
/// unfinished line is kept when the last clone goes.
#[derive(Clone)]
pub struct LogWriter(Arc<Inner>);

struct Inner {
    log: Arc<FunctionLog>,
    revision: u32,
    instance: Arc<str>,
    partial: Mutex<[Partial; 2]>,
}

/// A line that has no end yet.
#[derive(Debug, Default)]
struct Partial {
    bytes: Vec<u8>,
    /// The line was too long; the rest of it is thrown away.
    cut: bool,
}

impl fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogWriter").field("instance", &self.0.instance).finish_non_exhaustive()
    }
}

impl LogWriter {
    pub(super) fn new(log: Arc<FunctionLog>, revision: u32, instance: InstanceId) -> Self {
        Self(Arc::new(Inner {
            log,
            revision,
            instance: instance.to_string().into(),
            partial: Mutex::default(),
        }))
    }

    /// A writer for the same instance with unfinished lines of its own, for guests that run side by side.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self(Arc::new(Inner {
            log: self.0.log.clone(),
            revision: self.0.revision,
            instance: self.0.instance.clone(),
            partial: Mutex::default(),
        }))
    }

    /// Takes what was written, in pieces of any size.
    pub fn write(&self, stream: LogStream, bytes: &[u8]) {
        let mut partial = self.0.partial.lock().unwrap_or_else(PoisonError::into_inner);
        let partial = &mut partial[stream as usize];
        let mut pieces = bytes.split_inclusive(|byte| *byte == b'\n');
        pieces.by_ref().for_each(|piece| match piece.strip_suffix(b"\n") {
            Some(end) => {
                partial.extend(end);
                self.0.push(stream, partial);
            }
            None => partial.extend(piece),
        });
    }

    /// Makes lines of what has no line end yet.
    pub fn flush(&self) {
        self.0.flush();
    }
}

impl Partial {
    fn extend(&mut self, bytes: &[u8]) {
        let room = limits::LOG_LINE_BYTES_MAX - self.bytes.len();
        self.cut |= bytes.len() > room;
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

impl Inner {
    fn push(&self, stream: LogStream, partial: &mut Partial) {
        let bytes = partial.bytes.strip_suffix(b"\r").unwrap_or(&partial.bytes);
        let mut text = String::from_utf8_lossy(bytes).into_owned();
        if partial.cut {
            text.push_str(CUT_MARK);
        }
        *partial = Partial::default();
        self.log.push(LogLine {
            at_ms: now_ms(),
            revision: self.revision,
            instance: self.instance.to_string(),
            stream: stream.name().to_owned(),
            text,
        });
    }

    fn flush(&self) {
        let mut partial = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            let partial = &mut partial[stream as usize];
            if !partial.bytes.is_empty() || partial.cut {
                self.push(stream, partial);
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.flush();
    }
}
