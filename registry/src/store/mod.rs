//! The content store on disk: blobs by digest, and per repository what of them it may show.
//!
//! ```text
//! DIR/blobs/sha256/ab/<hex>                      content; manifests too
//! DIR/blobs/sha256/ab/<hex>.damaged              what was found there with another digest; never read
//! DIR/repositories/<name…>/_blobs/<hex>          this repository may show that blob (empty file)
//! DIR/repositories/<name…>/_manifests/<hex>      the same for a manifest, with its media type
//! DIR/repositories/<name…>/_tags/<tag>           a digest
//! DIR/repositories/<name…>/_referrers/<hex>/<hex>  subject / referrer: its descriptor
//! DIR/uploads/<id>/{repository,data}             an upload that is under way
//! DIR/scratch/                                   files that are not in their place yet; emptied at open
//! ```
//! A part of a repository's name never begins with `_`, so the folders cannot collide. Every file comes into its
//! place by one rename of a synced file: after `kill -9` or a power cut it is there whole or not at all.
//!
//! Decisions about who may read what, and which artifacts may run, are not made here.

mod blobs;
mod content;
mod damage;
mod manifests;
mod referrers;
mod sink;
mod uploads;

pub(crate) use damage::digest_of_damaged;

pub use crate::durable::DiskError;
pub use blobs::OpenBlob;
pub use manifests::{PutManifest, PutManifestError, StoredManifest};
pub use referrers::ReferrersPage;
pub use sink::UploadError;
pub use uploads::UploadId;

use crate::durable;
use neap_sdk::{
    Digest,
    artifact::{Repository, Tag},
};
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

/// Why content could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The file does not hold what its name says.
    #[error("the file of {0} was changed on disk: its bytes have another digest; push it again")]
    Corrupt(Digest),
    /// Longer than the reader accepts.
    #[error("{digest} has {size} bytes; at most {max} are accepted here")]
    TooLarge {
        /// Which content.
        digest: Digest,
        /// Its length.
        size: u64,
        /// The limit.
        max: u64,
    },
}

/// The store. Cheap to clone; all clones are one store. Methods that are not `async` block on disk.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    uploads: uploads::Sessions,
    /// Readers give content a new link; the writer is a garbage collection that removes what has none.
    links: RwLock<()>,
    /// Readers put content into its place; the writer moves damaged content out of it. Taken after `links`, and
    /// never while waiting for them.
    places: RwLock<()>,
    /// Content that is in use without a link, with the number of its users.
    pins: Mutex<HashMap<Digest, usize>>,
}

/// Keeps content from the garbage collection until it is dropped.
#[derive(Debug)]
pub struct Pin {
    store: Store,
    digests: Vec<Digest>,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.store.pins();
        for digest in &self.digests {
            match pins.get_mut(digest) {
                Some(users) if *users > 1 => *users -= 1,
                _ => _ = pins.remove(digest),
            }
        }
    }
}

impl Store {
    /// Opens the store in `dir`, making it where it is missing. Uploads that were under way can be resumed.
    pub async fn open(dir: PathBuf) -> Result<Self, DiskError> {
        blocking(move || Self::open_blocking(dir)).await
    }

    fn open_blocking(dir: PathBuf) -> Result<Self, DiskError> {
        let scratch = dir.join("scratch");
        if scratch.is_dir() {
            fs::remove_dir_all(&scratch).map_err(durable::failed("empty", &scratch))?;
        }
        for name in ["scratch", "blobs/sha256", "repositories", "uploads"] {
            durable::create_dir(&dir.join(name))?;
        }
        let uploads = uploads::Sessions::load(&dir.join("uploads"))?;
        let (links, places) = (RwLock::new(()), RwLock::new(()));
        let store = Self(Arc::new(Inner { dir, uploads, links, places, pins: Mutex::new(HashMap::new()) }));
        store.rebuild_referrers_where_missing()?;
        Ok(store)
    }

    /// Runs `work` on the blocking pool. It runs to its end even when the future is dropped.
    pub async fn run<T, F>(&self, work: F) -> T
    where
        T: Send + 'static,
        F: FnOnce(&Self) -> T + Send + 'static,
    {
        let store = self.clone();
        blocking(move || work(&store)).await
    }

    /// Keeps `digests` from the garbage collection while the pin lives.
    pub fn pin(&self, digests: Vec<Digest>) -> Pin {
        let mut pins = self.pins();
        for digest in &digests {
            *pins.entry(*digest).or_default() += 1;
        }
        drop(pins);
        Pin { store: self.clone(), digests }
    }

    /// The pinned digests.
    pub(crate) fn pinned(&self) -> Vec<Digest> {
        self.pins().keys().copied().collect()
    }

    fn pins(&self) -> MutexGuard<'_, HashMap<Digest, usize>> {
        self.0.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` while no garbage collection removes anything.
    fn linking<T>(&self, work: impl FnOnce() -> T) -> T {
        let _links = self.0.links.read().unwrap_or_else(PoisonError::into_inner);
        work()
    }

    /// Runs `work` while nobody gives content a new link.
    pub(crate) fn unlinking<T>(&self, work: impl FnOnce() -> T) -> T {
        let _links = self.0.links.write().unwrap_or_else(PoisonError::into_inner);
        work()
    }

    /// Where the content of `digest` lies, whether it is there or not.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.blobs_dir().join(&hex[..2]).join(hex)
    }

    /// The folder of all content.
    pub(crate) fn blobs_dir(&self) -> PathBuf {
        self.0.dir.join("blobs/sha256")
    }

    fn scratch(&self) -> PathBuf {
        self.0.dir.join("scratch")
    }

    fn repositories_dir(&self) -> PathBuf {
        self.0.dir.join("repositories")
    }

    fn repository_dir(&self, repository: &Repository) -> PathBuf {
        self.repositories_dir().join(repository.as_str())
    }

    /// The link through which `repository` shows a blob.
    pub(crate) fn blob_link(&self, repository: &Repository, digest: &Digest) -> PathBuf {
        self.repository_dir(repository).join("_blobs").join(digest.hex())
    }

    fn manifest_link(&self, repository: &Repository, digest: &Digest) -> PathBuf {
        self.repository_dir(repository).join("_manifests").join(digest.hex())
    }

    fn tag_path(&self, repository: &Repository, tag: &Tag) -> PathBuf {
        self.repository_dir(repository).join("_tags").join(tag.as_str())
    }

    fn referrers_dir(&self, repository: &Repository, subject: &Digest) -> PathBuf {
        self.repository_dir(repository).join("_referrers").join(subject.hex())
    }

    /// Whether anything was ever pushed to `repository`.
    pub fn has_repository(&self, repository: &Repository) -> bool {
        let dir = self.repository_dir(repository);
        ["_blobs", "_manifests"].iter().any(|kind| dir.join(kind).is_dir())
    }

    /// Every repository, sorted.
    pub fn repositories(&self) -> Result<Vec<Repository>, DiskError> {
        let mut found = Vec::new();
        let mut folders = vec![(self.repositories_dir(), String::new())];
        while let Some((dir, name)) = folders.pop() {
            let names = durable::names(&dir)?;
            if names.iter().any(|entry| entry == "_blobs" || entry == "_manifests") {
                found.extend(name.parse::<Repository>().ok());
            }
            for part in names.into_iter().filter(|entry| !entry.starts_with('_')) {
                let child = if name.is_empty() { part.clone() } else { format!("{name}/{part}") };
                folders.push((dir.join(part), child));
            }
        }
        found.sort();
        Ok(found)
    }

    /// The digests that have a link in one of the store's folders.
    fn linked(&self, dir: &Path) -> Result<Vec<Digest>, DiskError> {
        Ok(durable::names(dir)?.iter().filter_map(|hex| digest_of_hex(hex)).collect())
    }

    /// The blobs that `repository` shows.
    pub(crate) fn linked_blobs(&self, repository: &Repository) -> Result<Vec<Digest>, DiskError> {
        self.linked(&self.repository_dir(repository).join("_blobs"))
    }

    /// The manifests that `repository` shows.
    pub(crate) fn linked_manifests(&self, repository: &Repository) -> Result<Vec<Digest>, DiskError> {
        self.linked(&self.repository_dir(repository).join("_manifests"))
    }
}

/// The digest whose file name is `hex`.
pub(crate) fn digest_of_hex(hex: &str) -> Option<Digest> {
    format!("sha256:{hex}").parse().ok()
}

/// Runs `work` on the blocking pool and waits for it; a panic goes on in the caller.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down: nobody waits for the answer any more.
            Err(_) => std::future::pending().await,
        },
    }
}
