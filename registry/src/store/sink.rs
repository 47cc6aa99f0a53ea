//! Where bytes of an upload go: a file that grows while it is hashed. Knows neither HTTP nor repositories.

use super::blocking;
use crate::durable::{self, DiskError};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use neap_sdk::{Digest, limits};
use sha2::{Digest as _, Sha256};
use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    ops::DerefMut,
    path::{Path, PathBuf},
};

/// Why an upload, or a part of one, was not taken.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// No such session in this repository; it was finished, cancelled, or idle for too long.
    #[error("there is no such upload in this repository; begin a new one")]
    Unknown,
    /// As many sessions as may be open at once.
    #[error("{max} uploads are under way already; try again later", max = limits::UPLOADS_OPEN_MAX)]
    TooMany,
    /// Another request writes to this session.
    #[error("another request writes to this upload; wait for it to end")]
    Busy,
    /// The part does not begin where the upload ends.
    #[error("the upload has {offset} bytes, so the next part must begin there, not at {start}")]
    OutOfOrder {
        /// Bytes that are there.
        offset: u64,
        /// Where the part begins.
        start: u64,
    },
    /// The part's length is not the one that was announced.
    #[error("the part has {got} bytes but {announced} were announced")]
    Length {
        /// What came.
        got: u64,
        /// What was announced.
        announced: u64,
    },
    /// More bytes than a blob may have.
    #[error("a blob may have at most {max} bytes", max = limits::BLOB_BYTES_MAX)]
    TooLarge,
    /// The bytes are not the ones that were named.
    #[error("the bytes have digest {got}, not {wanted}")]
    DigestMismatch {
        /// What was named.
        wanted: Digest,
        /// What came.
        got: Digest,
    },
    /// The request's body ended early.
    #[error("the request body ended early")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// A file of an upload, open for appending.
#[derive(Debug)]
pub(super) struct Sink {
    file: File,
    path: PathBuf,
    len: u64,
    /// The state over all `len` bytes; `None` after a restart, until it is needed.
    hasher: Option<Sha256>,
}

impl Sink {
    /// An empty file at `path`, which must not exist.
    pub(super) fn create(path: PathBuf) -> Result<Self, DiskError> {
        let file = OpenOptions::new().append(true).create_new(true).open(&path);
        let file = file.map_err(durable::failed("make", &path))?;
        Ok(Self { file, path, len: 0, hasher: Some(Sha256::new()) })
    }

    /// The file that an earlier process left at `path`.
    pub(super) fn reopen(path: PathBuf) -> Result<Self, DiskError> {
        let file = OpenOptions::new().append(true).open(&path).map_err(durable::failed("open", &path))?;
        let len = file.metadata().map_err(durable::failed("look at", &path))?.len();
        Ok(Self { file, path, len, hasher: None })
    }

    /// Bytes that are there.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn hasher(&mut self) -> Result<&mut Sha256, DiskError> {
        if self.hasher.is_none() {
            let file = File::open(&self.path).map_err(durable::failed("open", &self.path))?;
            self.hasher = Some(hash(file.take(self.len)).map_err(durable::failed("read", &self.path))?);
        }
        Ok(self.hasher.get_or_insert_default())
    }

    fn write(&mut self, parts: &[Bytes]) -> Result<(), UploadError> {
        self.hasher()?;
        for part in parts {
            if self.len + part.len() as u64 > limits::BLOB_BYTES_MAX {
                return Err(UploadError::TooLarge);
            }
            if let Err(error) = self.file.write_all(part) {
                // Part of it may be in the file: go back to what is hashed, so that the client can resume.
                let _ = self.file.set_len(self.len);
                return Err(durable::failed("write", &self.path)(error).into());
            }
            self.hasher()?.update(part);
            self.len += part.len() as u64;
        }
        Ok(())
    }

    /// Makes the bytes durable, if they are the ones that `digest` names.
    pub(super) fn seal(&mut self, digest: Digest) -> Result<(), UploadError> {
        let got = Digest::from_sha256(self.hasher()?.clone().finalize().into());
        if got != digest {
            return Err(UploadError::DigestMismatch { wanted: digest, got });
        }
        self.file.sync_all().map_err(durable::failed("sync", &self.path))?;
        Ok(())
    }
}

/// Appends a body to a sink. What has come before an error stays. The sink is given back, or dropped once the
/// last write has ended when this future is dropped, so a lock that `G` holds covers that write too.
pub(super) async fn pour<G, B, E>(mut sink: G, body: B) -> Result<(G, u64), UploadError>
where
    G: DerefMut<Target = Sink> + Send + 'static,
    B: Stream<Item = Result<Bytes, E>>,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut body = std::pin::pin!(body);
    let mut received = 0;
    loop {
        let mut parts = Vec::new();
        let mut bytes = 0;
        let mut end = None;
        while bytes < limits::BLOB_BUFFER_BYTES && end.is_none() {
            match body.next().await {
                Some(Ok(part)) => {
                    bytes += part.len();
                    parts.push(part);
                }
                Some(Err(error)) => end = Some(Err(UploadError::Body(error.into()))),
                None => end = Some(Ok(())),
            }
        }
        received += bytes as u64;
        if bytes > 0 {
            let (back, written) = blocking(move || {
                let written = sink.write(&parts);
                (sink, written)
            })
            .await;
            written?;
            sink = back;
        }
        match end {
            Some(Ok(())) => return Ok((sink, received)),
            Some(Err(error)) => return Err(error),
            None => {}
        }
    }
}

/// Hashes everything in `reader`.
pub(super) fn hash(mut reader: impl std::io::Read) -> std::io::Result<Sha256> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; limits::BLOB_BUFFER_BYTES];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(hasher),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
