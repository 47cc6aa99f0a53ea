//! Garbage collection: marks what manifests, releases, pins and fresh uploads need, and removes the rest.
//!
//! It is planned without a lock; only when there is something to remove is it planned again, with new links held
//! off, and carried out. Reading and receiving bytes never wait for it. Manifests are never garbage: they go when
//! somebody deletes them.

use crate::{
    durable::{self, DiskError},
    manifest::Manifest,
    release::ReleaseSet,
    store::{Store, digest_of_damaged, digest_of_hex},
};
use neap_sdk::{
    Digest,
    artifact::{Repository, TagOrDigest},
};
use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

/// What a garbage collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Blobs that nothing needed, and damaged ones that were moved aside.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Links of repositories to blobs that none of their manifests names.
    pub links: usize,
    /// Uploads that nobody went on with.
    pub uploads: usize,
}

#[derive(Debug, Default)]
struct Plan {
    links: Vec<PathBuf>,
    blobs: Vec<(PathBuf, u64)>,
}

/// Removes what nothing needed at `now` and for `grace` before. `releases` is asked after the pins were read, so
/// that what moves from a pin into a release in between is seen once at least.
pub(crate) fn collect(
    store: &Store,
    releases: impl Fn() -> Arc<ReleaseSet>,
    now: SystemTime,
    grace: Duration,
) -> Result<Swept, DiskError> {
    let mut swept = Swept { uploads: store.expire_uploads(now)?, ..Swept::default() };
    let planned = plan(store, &releases, now, grace)?;
    if planned.links.is_empty() && planned.blobs.is_empty() {
        return Ok(swept);
    }
    store.unlinking(|| {
        let plan = plan(store, &releases, now, grace)?;
        for link in &plan.links {
            durable::remove(link)?;
            swept.links += 1;
        }
        for (path, bytes) in &plan.blobs {
            match fs::remove_file(path) {
                Ok(()) => {
                    swept.blobs += 1;
                    swept.bytes += bytes;
                }
                // A reader found it damaged and moved it aside.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(durable::failed("remove", path)(error)),
            }
        }
        Ok(swept)
    })
}

fn plan(
    store: &Store,
    releases: &impl Fn() -> Arc<ReleaseSet>,
    now: SystemTime,
    grace: Duration,
) -> Result<Plan, DiskError> {
    let is_old = |path: &Path| age(path, now).map(|age| age.is_some_and(|age| age >= grace));
    let mut needed: HashSet<Digest> = store.pinned().into_iter().collect();
    needed.extend(releases().iter().flat_map(|release| release.digests()));
    let mut plan = Plan::default();
    for repository in store.repositories()? {
        let shown = store.linked_blobs(&repository)?;
        let named = named_by_manifests(store, &repository, &shown)?;
        for digest in shown {
            let link = store.blob_link(&repository, &digest);
            if !named.contains(&digest) && is_old(&link)? {
                plan.links.push(link);
            } else {
                needed.insert(digest);
            }
        }
        needed.extend(named);
    }
    for folder in durable::names(&store.blobs_dir())? {
        let folder = store.blobs_dir().join(folder);
        for name in durable::names(&folder)? {
            let path = folder.join(&name);
            let unneeded = digest_of_hex(&name).is_some_and(|digest| !needed.contains(&digest));
            if (unneeded || digest_of_damaged(&name).is_some()) && is_old(&path)? {
                let bytes = fs::metadata(&path).map_or(0, |data| data.len());
                plan.blobs.push((path, bytes));
            }
        }
    }
    Ok(plan)
}

/// The manifests of a repository and the blobs that they name. Where a manifest cannot be read, nobody knows what
/// it names, so the repository keeps everything.
fn named_by_manifests(
    store: &Store,
    repository: &Repository,
    shown: &[Digest],
) -> Result<HashSet<Digest>, DiskError> {
    let mut named = HashSet::new();
    for digest in store.linked_manifests(repository)? {
        named.insert(digest);
        let manifest = match store.manifest(repository, &TagOrDigest::Digest(digest)) {
            Ok(Some(stored)) => Manifest::parse(&stored.bytes, &stored.media_type).ok(),
            Ok(None) | Err(_) => None,
        };
        match manifest {
            Some(manifest) => named.extend(manifest.references().map(|descriptor| descriptor.digest)),
            None => {
                tracing::warn!(%repository, %digest, "a manifest cannot be read; its repository keeps all blobs");
                named.extend(shown);
            }
        }
    }
    Ok(named)
}

/// How long a file was not written to; `None` where it is gone or from the future.
fn age(path: &Path, now: SystemTime) -> Result<Option<Duration>, DiskError> {
    match fs::metadata(path).and_then(|data| data.modified()) {
        Ok(modified) => Ok(now.duration_since(modified).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(durable::failed("look at", path)(error)),
    }
}
