//! Releases: artifacts that were admitted. Each is one durable JSON file; all of them together are one value that
//! others watch. Judges nothing.

use crate::durable::{self, DiskError};
use neap_sdk::{
    Digest,
    admission::Verdict,
    artifact::{ArtifactKind, Repository},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::{Mutex, watch};

/// An artifact that may run. Immutable but for its verdict, which a later admission renews.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Where it was pushed.
    pub repository: Repository,
    /// The manifest that runs: for an index, the child for this machine.
    pub digest: Digest,
    /// What it is.
    pub kind: ArtifactKind,
    /// Its configuration.
    pub config: Digest,
    /// Its layers, lowest first.
    pub layers: Vec<Layer>,
    /// Why it may run.
    pub verdict: Verdict,
}

/// One layer of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Its digest.
    pub digest: Digest,
    /// What it is.
    pub media_type: String,
    /// Its length in bytes.
    pub size_bytes: u64,
}

impl Release {
    /// All content that it needs to run.
    pub fn digests(&self) -> impl Iterator<Item = Digest> {
        [self.digest, self.config].into_iter().chain(self.layers.iter().map(|layer| layer.digest))
    }
}

/// Every release at one moment.
#[derive(Debug, Clone, Default)]
pub struct ReleaseSet(BTreeMap<Repository, BTreeMap<Digest, Arc<Release>>>);

impl ReleaseSet {
    /// The release of a manifest in a repository.
    pub fn get(&self, repository: &Repository, digest: &Digest) -> Option<&Arc<Release>> {
        self.0.get(repository)?.get(digest)
    }

    /// All releases, by repository and digest.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Release>> {
        self.0.values().flat_map(BTreeMap::values)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn insert(&mut self, release: Arc<Release>) {
        self.0.entry(release.repository.clone()).or_default().insert(release.digest, release);
    }
}

/// The files and the value that is made of them. The only writer of both.
#[derive(Debug)]
pub(crate) struct Releases {
    dir: PathBuf,
    scratch: PathBuf,
    writing: Mutex<()>,
    set: watch::Sender<Arc<ReleaseSet>>,
}

impl Releases {
    /// Reads every release in `dir`; `scratch` takes files that are being written. A file that cannot be understood
    /// is reported and left alone: it costs its own function, not all others.
    pub(crate) fn open(dir: PathBuf, scratch: PathBuf) -> Result<Self, DiskError> {
        durable::create_dir(&dir)?;
        durable::create_dir(&scratch)?;
        let mut set = ReleaseSet::default();
        for name in durable::names(&dir)? {
            let path = dir.join(&name);
            let Some(bytes) = durable::read(&path)? else { continue };
            match serde_json::from_slice::<Release>(&bytes) {
                Ok(release) if release.verdict.admitted && path == release_path(&dir, &release) => {
                    set.insert(Arc::new(release));
                }
                Ok(_) => {
                    tracing::error!(path = %path.display(), "not a release of this store; push it again")
                }
                Err(error) => {
                    tracing::error!(path = %path.display(), error = %error, "a release is damaged; push it again");
                }
            }
        }
        let (set, _) = watch::channel(Arc::new(set));
        Ok(Self { dir, scratch, writing: Mutex::new(()), set })
    }

    /// The set now, and a notice when it changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<ReleaseSet>> {
        self.set.subscribe()
    }

    /// The set now.
    pub(crate) fn current(&self) -> Arc<ReleaseSet> {
        self.set.borrow().clone()
    }

    /// Makes a release durable, then visible.
    pub(crate) async fn publish(&self, release: Release) -> Result<Arc<Release>, DiskError> {
        let _writing = self.writing.lock().await;
        let path = release_path(&self.dir, &release);
        let bytes = serde_json::to_vec_pretty(&release).expect("a release is plain data");
        let scratch = self.scratch.clone();
        crate::store::blocking(move || durable::write(&scratch, &path, &bytes)).await?;
        let release = Arc::new(release);
        self.set.send_modify(|set| Arc::make_mut(set).insert(release.clone()));
        Ok(release)
    }
}

/// `DIR/<digest>.<hash of the repository>.json`: repositories are too long, and have slashes, for a file name.
fn release_path(dir: &Path, release: &Release) -> PathBuf {
    let repository = Digest::of(release.repository.as_str().as_bytes()).short();
    dir.join(format!("{}.{repository}.json", release.digest.hex()))
}
