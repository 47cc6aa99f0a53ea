//! From a tag or digest to the one manifest that would run, once: afterwards only its digest is used.

use crate::{
    manifest::{Descriptor, IndexManifest, Manifest},
    store::{Pin, ReadError, Store, StoredManifest},
};
use bytes::Bytes;
use neap_sdk::{
    Digest, ErrorCode,
    admission::Reason,
    artifact::{Repository, TagOrDigest},
    limits,
};

/// A manifest that was found.
pub(super) struct Resolved {
    /// Its digest.
    pub(super) digest: Digest,
    /// Its bytes, which have that digest.
    pub(super) bytes: Bytes,
    /// The indexes that lead to it, outermost first; each holds the next one's descriptor.
    pub(super) ancestors: Vec<Digest>,
    /// Keeps it, and what it names, while it is judged.
    pub(super) pin: Pin,
}

pub(super) enum Resolution {
    Found(Resolved),
    /// The manifest that was asked for is there, but nothing of it can run.
    Refused(Digest, Reason),
    Missing,
}

fn refused(digest: Digest, code: ErrorCode, text: String) -> Resolution {
    Resolution::Refused(digest, Reason { code, text })
}

/// Follows indexes down to the manifest for this machine. Blocks on disk.
pub(super) fn resolve(
    store: &Store,
    repository: &Repository,
    target: &TagOrDigest,
) -> Result<Resolution, ReadError> {
    let first = match store.manifest(repository, target) {
        Ok(Some(stored)) => stored,
        Ok(None) => return Ok(Resolution::Missing),
        Err(error @ ReadError::Corrupt(digest)) => {
            return Ok(refused(digest, ErrorCode::Mismatch, error.to_string()));
        }
        Err(error) => return Err(error),
    };
    let asked = first.digest;
    let mut ancestors = Vec::new();
    let mut stored = first;
    loop {
        let manifest = match Manifest::parse(&stored.bytes, &stored.media_type) {
            Ok(manifest) => manifest,
            Err(error) => {
                let text = format!("manifest {} is not one that neap accepts: {error}", stored.digest);
                return Ok(refused(asked, ErrorCode::Unsupported, text));
            }
        };
        let index = match manifest {
            Manifest::Image(image) => {
                let named = Manifest::Image(image);
                let mut digests: Vec<Digest> =
                    named.references().map(|descriptor| descriptor.digest).collect();
                digests.push(stored.digest);
                let StoredManifest { digest, bytes, .. } = stored;
                return Ok(Resolution::Found(Resolved { digest, bytes, ancestors, pin: store.pin(digests) }));
            }
            Manifest::Index(index) => index,
        };
        if ancestors.len() == limits::INDEX_DEPTH_MAX {
            let text = format!("more than {} indexes are nested", limits::INDEX_DEPTH_MAX);
            return Ok(refused(asked, ErrorCode::Unsupported, text));
        }
        ancestors.push(stored.digest);
        stored = match child(store, repository, &index)? {
            Ok(stored) => stored,
            Err(reason) => return Ok(Resolution::Refused(asked, reason)),
        };
    }
}

/// The index's child for this machine, as it lies in the same repository.
fn child(
    store: &Store,
    repository: &Repository,
    index: &IndexManifest,
) -> Result<Result<StoredManifest, Reason>, ReadError> {
    let unsupported = |text| Ok(Err(Reason { code: ErrorCode::Unsupported, text }));
    let Some(chosen) = index.choose() else {
        let text = format!("the index has no manifest for linux/amd64; it has {}", platforms(index));
        return unsupported(text);
    };
    let stored = match store.manifest(repository, &TagOrDigest::Digest(chosen.digest)) {
        Err(error @ ReadError::Corrupt(_)) => {
            return Ok(Err(Reason { code: ErrorCode::Mismatch, text: error.to_string() }));
        }
        other => other?,
    };
    match stored {
        Some(stored)
            if stored.media_type == chosen.media_type && stored.bytes.len() as u64 == chosen.size =>
        {
            Ok(Ok(stored))
        }
        Some(_) => unsupported(format!("the index describes {} with another type or size", chosen.digest)),
        None => unsupported(format!(
            "the index names {}, which was not pushed; push all of it (`skopeo copy --all`)",
            chosen.digest
        )),
    }
}

fn platforms(index: &IndexManifest) -> String {
    let platform = |child: &Descriptor| {
        let platform = child.platform.as_ref()?;
        Some(format!("{:.40}/{:.40}", platform.os, platform.architecture))
    };
    let names: Vec<String> = index.manifests.iter().filter_map(platform).take(10).collect();
    if names.is_empty() { "no platforms at all".to_owned() } else { names.join(", ") }
}

/// Reads all content through; the reason why some of it must not run, if so.
pub(super) fn verify_all(store: &Store, content: &[(Digest, u64)]) -> Result<Option<Reason>, ReadError> {
    for (digest, size) in content {
        match store.verify_content(*digest, *size) {
            Ok(true) => {}
            Ok(false) => {
                let text = format!("blob {digest} is missing or has another size; push it again");
                return Ok(Some(Reason { code: ErrorCode::Mismatch, text }));
            }
            Err(error @ ReadError::Corrupt(_)) => {
                return Ok(Some(Reason { code: ErrorCode::Mismatch, text: error.to_string() }));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}
