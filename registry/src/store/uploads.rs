//! Upload sessions: begun, appended to, resumed after a broken connection or a restart, finished or forgotten.
//!
//! Parts are not synced one by one. `kill -9` loses nothing that was acknowledged; a power cut may shorten an
//! unfinished upload, which the client sees in its offset. The finished blob is synced before it is acknowledged.

use super::{
    Store, blocking,
    sink::{Sink, UploadError, pour},
};
use crate::durable::{self, DiskError};
use bytes::Bytes;
use futures_util::Stream;
use neap_sdk::{Digest, artifact::Repository, limits};
use std::{
    collections::HashMap,
    fmt::{self, Write as _},
    fs::{self, File},
    io::Read as _,
    ops::Range,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::sync::OwnedMutexGuard;

/// How long a request waits for another one that writes to the same session: it may be a dead connection that
/// the server has not noticed yet.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// Names an upload session: 128 random bits, because whoever knows it may add bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UploadId(Box<str>);

impl UploadId {
    fn random() -> Result<Self, DiskError> {
        let source = Path::new("/dev/urandom");
        let mut bytes = [0; 16];
        File::open(source)
            .and_then(|mut file| file.read_exact(&mut bytes))
            .map_err(durable::failed("read", source))?;
        let mut text = String::with_capacity(32);
        for byte in bytes {
            let _ = write!(text, "{byte:02x}");
        }
        Ok(Self(text.into()))
    }
}

impl FromStr for UploadId {
    type Err = UploadError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if hex { Ok(Self(text.into())) } else { Err(UploadError::Unknown) }
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The open sessions.
#[derive(Debug)]
pub(super) struct Sessions(Mutex<HashMap<UploadId, Session>>);

#[derive(Debug, Clone)]
struct Session {
    repository: Repository,
    sink: Arc<tokio::sync::Mutex<Sink>>,
}

impl Sessions {
    /// The sessions that an earlier process left in `dir`. What is not a whole session is removed.
    pub(super) fn load(dir: &Path) -> Result<Self, DiskError> {
        let mut sessions = HashMap::new();
        for name in durable::names(dir)? {
            let path = dir.join(&name);
            match load_session(&name, &path)? {
                Some((id, session)) => _ = sessions.insert(id, session),
                None => fs::remove_dir_all(&path).map_err(durable::failed("remove", &path))?,
            }
        }
        Ok(Self(Mutex::new(sessions)))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UploadId, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn load_session(name: &str, path: &Path) -> Result<Option<(UploadId, Session)>, DiskError> {
    let Ok(id) = name.parse::<UploadId>() else { return Ok(None) };
    let repository = durable::read(&path.join("repository"))?;
    let repository = repository.and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok());
    let data = path.join("data");
    match repository {
        Some(repository) if data.is_file() => {
            let sink = Arc::new(tokio::sync::Mutex::new(Sink::reopen(data)?));
            Ok(Some((id, Session { repository, sink })))
        }
        _ => Ok(None),
    }
}

impl Store {
    fn upload_dir(&self, id: &UploadId) -> PathBuf {
        self.0.dir.join("uploads").join(&*id.0)
    }

    fn session(&self, repository: &Repository, id: &UploadId) -> Result<Session, UploadError> {
        let sessions = self.0.uploads.lock();
        // A session of another repository is not shown to exist.
        sessions
            .get(id)
            .filter(|session| session.repository == *repository)
            .cloned()
            .ok_or(UploadError::Unknown)
    }

    async fn own(
        &self,
        repository: &Repository,
        id: &UploadId,
    ) -> Result<OwnedMutexGuard<Sink>, UploadError> {
        let sink = self.session(repository, id)?.sink;
        let sink = tokio::time::timeout(BUSY_WAIT, sink.lock_owned()).await.map_err(|_| UploadError::Busy)?;
        // It may have been finished while we waited.
        self.session(repository, id).map(|_| sink)
    }

    /// Begins an upload to `repository`.
    pub async fn begin_upload(&self, repository: &Repository) -> Result<UploadId, UploadError> {
        let repository = repository.clone();
        self.run(move |store| {
            if store.0.uploads.lock().len() >= limits::UPLOADS_OPEN_MAX {
                store.expire_uploads(SystemTime::now())?;
            }
            let id = UploadId::random()?;
            let dir = store.upload_dir(&id);
            fs::create_dir(&dir).map_err(durable::failed("make the folder", &dir))?;
            let begun = || {
                durable::write(&store.scratch(), &dir.join("repository"), repository.as_str().as_bytes())?;
                Sink::create(dir.join("data"))
            };
            let sink = begun().inspect_err(|_| _ = fs::remove_dir_all(&dir))?;
            let mut sessions = store.0.uploads.lock();
            if sessions.len() >= limits::UPLOADS_OPEN_MAX {
                drop(sessions);
                let _ = fs::remove_dir_all(&dir);
                return Err(UploadError::TooMany);
            }
            let sink = Arc::new(tokio::sync::Mutex::new(sink));
            sessions.insert(id.clone(), Session { repository, sink });
            Ok(id)
        })
        .await
    }

    /// Bytes that an upload has.
    pub async fn upload_offset(&self, repository: &Repository, id: &UploadId) -> Result<u64, UploadError> {
        Ok(self.own(repository, id).await?.len())
    }

    /// Appends a part and returns the bytes that the upload has now. `range` is what the client says the part
    /// covers: it must begin at the end, and the part must have its length. What came before an error stays.
    pub async fn append<B, E>(
        &self,
        repository: &Repository,
        id: &UploadId,
        range: Option<Range<u64>>,
        body: B,
    ) -> Result<u64, UploadError>
    where
        B: Stream<Item = Result<Bytes, E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let sink = self.own(repository, id).await?;
        append_to(sink, range, body).await.map(|sink| sink.len())
    }

    /// Appends a last part and makes the upload the blob `digest` of its repository. Once this returns, the blob
    /// survives a crash. Bytes with another digest end the upload.
    pub async fn finish_upload<B, E>(
        &self,
        repository: &Repository,
        id: &UploadId,
        range: Option<Range<u64>>,
        body: B,
        digest: Digest,
    ) -> Result<(), UploadError>
    where
        B: Stream<Item = Result<Bytes, E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let sink = self.own(repository, id).await?;
        let mut sink = append_to(sink, range, body).await?;
        let (repository, id) = (repository.clone(), id.clone());
        self.run(move |store| {
            let finished =
                sink.seal(digest).and_then(|()| Ok(store.place(sink.path(), &repository, digest)?));
            // Even when the disk failed: after a failed sync nobody knows which bytes are there, and trying again
            // could succeed without them.
            if let Err(error) = store.forget(&id) {
                tracing::warn!(upload = %id, error = %error, "a finished upload's folder stays until the next start");
            }
            finished
        })
        .await
    }

    /// Takes a whole blob in one go, without a session that could be resumed.
    pub async fn put_blob<B, E>(
        &self,
        repository: &Repository,
        digest: Digest,
        body: B,
    ) -> Result<(), UploadError>
    where
        B: Stream<Item = Result<Bytes, E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let scratch = self.scratch();
        let (folder, sink) = blocking(move || {
            let folder =
                tempfile::tempdir_in(&scratch).map_err(durable::failed("make a folder in", &scratch))?;
            let sink = Sink::create(folder.path().join("data"))?;
            Ok::<_, UploadError>((folder, sink))
        })
        .await?;
        let (mut sink, _) = pour(Box::new(sink), body).await?;
        let repository = repository.clone();
        self.run(move |store| {
            sink.seal(digest)?;
            store.place(sink.path(), &repository, digest)?;
            drop(folder);
            Ok(())
        })
        .await
    }

    /// Ends an upload and forgets its bytes.
    pub async fn cancel_upload(&self, repository: &Repository, id: &UploadId) -> Result<(), UploadError> {
        let sink = self.own(repository, id).await?;
        let id = id.clone();
        self.run(move |store| {
            let _sink = sink;
            Ok(store.forget(&id)?)
        })
        .await
    }

    fn forget(&self, id: &UploadId) -> Result<(), DiskError> {
        self.0.uploads.lock().remove(id);
        let dir = self.upload_dir(id);
        fs::remove_dir_all(&dir).map_err(durable::failed("remove", &dir))
    }

    /// Forgets sessions that nobody wrote to for [`limits::UPLOAD_IDLE_S`]; returns how many.
    pub fn expire_uploads(&self, now: SystemTime) -> Result<usize, DiskError> {
        let sessions = self.0.uploads.lock().clone();
        let mut expired = 0;
        for (id, session) in sessions {
            // Whoever holds the lock writes right now.
            let Ok(sink) = session.sink.try_lock() else { continue };
            let modified = fs::metadata(sink.path()).and_then(|data| data.modified());
            let modified = modified.map_err(durable::failed("look at", sink.path()))?;
            if now.duration_since(modified).is_ok_and(|idle| idle.as_secs() >= limits::UPLOAD_IDLE_S) {
                self.forget(&id)?;
                expired += 1;
            }
        }
        Ok(expired)
    }
}

async fn append_to<B, E>(
    sink: OwnedMutexGuard<Sink>,
    range: Option<Range<u64>>,
    body: B,
) -> Result<OwnedMutexGuard<Sink>, UploadError>
where
    B: Stream<Item = Result<Bytes, E>>,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let offset = sink.len();
    if let Some(range) = range.as_ref().filter(|range| range.start != offset) {
        return Err(UploadError::OutOfOrder { offset, start: range.start });
    }
    let (sink, got) = pour(sink, body).await?;
    match range.map(|range| range.end - range.start) {
        Some(announced) if announced != got => Err(UploadError::Length { got, announced }),
        _ => Ok(sink),
    }
}
