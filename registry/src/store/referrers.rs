//! The index from a manifest to those that name it as their subject: signatures, attestations, SBOMs.
//! It holds nothing that the manifests do not say, so it can be rebuilt from them.

use super::{PutManifestError, Store, digest_of_hex};
use crate::{
    durable::{self, DiskError},
    manifest::{Descriptor, Manifest},
};
use neap_sdk::{
    Digest,
    artifact::{Repository, TagOrDigest},
    limits,
};

/// Some of a manifest's referrers, by ascending digest.
#[derive(Debug, Default)]
pub struct ReferrersPage {
    /// Their descriptors, with artifact type and annotations.
    pub descriptors: Vec<Descriptor>,
    /// The last digest that was looked at, where there are more after it.
    pub next: Option<Digest>,
}

impl Store {
    pub(super) fn add_referrer(
        &self,
        repository: &Repository,
        manifest: &Manifest,
        digest: Digest,
        size: u64,
    ) -> Result<(), PutManifestError> {
        let Some(subject) = manifest.subject().map(|subject| subject.digest) else { return Ok(()) };
        let dir = self.referrers_dir(repository, &subject);
        let path = dir.join(digest.hex());
        if !path.is_file() && durable::names(&dir)?.len() >= limits::REFERRERS_PER_MANIFEST_MAX {
            return Err(PutManifestError::TooManyReferrers { subject });
        }
        let mut descriptor = Descriptor {
            artifact_type: manifest.artifact_type().map(str::to_owned),
            annotations: manifest.annotations().clone(),
            ..Descriptor::new(manifest.media_type(), digest, size)
        };
        let mut bytes = serde_json::to_vec(&descriptor).expect("a descriptor always serialises");
        if bytes.len() > limits::REFERRERS_PAGE_BYTES_MAX {
            // A list that clients can read matters more than annotations of megabytes, which are in the manifest.
            descriptor.annotations.clear();
            bytes = serde_json::to_vec(&descriptor).expect("a descriptor always serialises");
        }
        Ok(durable::write(&self.scratch(), &path, &bytes)?)
    }

    pub(super) fn remove_referrer(
        &self,
        repository: &Repository,
        manifest: &Manifest,
        digest: Digest,
    ) -> Result<(), DiskError> {
        let Some(subject) = manifest.subject().map(|subject| subject.digest) else { return Ok(()) };
        durable::remove(&self.referrers_dir(repository, &subject).join(digest.hex()))?;
        Ok(())
    }

    /// The referrers of `subject` after `last`, only those of `artifact_type` where one is given. A page ends at
    /// [`limits::REFERRERS_LISTED_MAX`] entries or [`limits::REFERRERS_PAGE_BYTES_MAX`] bytes.
    pub fn referrers(
        &self,
        repository: &Repository,
        subject: Digest,
        artifact_type: Option<&str>,
        last: Option<Digest>,
    ) -> Result<ReferrersPage, DiskError> {
        let dir = self.referrers_dir(repository, &subject);
        let mut digests: Vec<Digest> =
            durable::names(&dir)?.iter().filter_map(|hex| digest_of_hex(hex)).collect();
        digests.sort_unstable();
        digests.retain(|digest| last.is_none_or(|last| *digest > last));
        let mut page = ReferrersPage::default();
        let mut page_bytes = 0;
        let mut looked_at = last;
        for digest in digests {
            // An entry without its manifest is left over from a push or a deletion that was cut off.
            let entry =
                durable::read(&dir.join(digest.hex()))?.filter(|_| self.has_manifest(repository, &digest));
            let descriptor = entry.and_then(|bytes| {
                let descriptor = serde_json::from_slice::<Descriptor>(&bytes).ok()?;
                let fits =
                    artifact_type.is_none_or(|wanted| descriptor.artifact_type.as_deref() == Some(wanted));
                fits.then_some((descriptor, bytes.len()))
            });
            if let Some((descriptor, bytes)) = descriptor {
                let full = page.descriptors.len() == limits::REFERRERS_LISTED_MAX
                    || (page_bytes + bytes > limits::REFERRERS_PAGE_BYTES_MAX
                        && !page.descriptors.is_empty());
                if full {
                    page.next = looked_at;
                    return Ok(page);
                }
                page_bytes += bytes;
                page.descriptors.push(descriptor);
            }
            looked_at = Some(digest);
        }
        Ok(page)
    }

    /// Rebuilds the whole index where its mark is missing: a store of an earlier version, or one that somebody
    /// repaired by removing the index.
    pub(super) fn rebuild_referrers_where_missing(&self) -> Result<(), DiskError> {
        let mark = self.0.dir.join("referrers-built");
        if mark.is_file() {
            return Ok(());
        }
        for repository in self.repositories()? {
            for digest in self.linked_manifests(&repository)? {
                self.rebuild_referrer(&repository, digest)?;
            }
        }
        durable::write(&self.scratch(), &mark, b"")
    }

    fn rebuild_referrer(&self, repository: &Repository, digest: Digest) -> Result<(), DiskError> {
        let stored = match self.manifest(repository, &TagOrDigest::Digest(digest)) {
            Ok(Some(stored)) => stored,
            Ok(None) => return Ok(()),
            Err(error) => {
                tracing::error!(%repository, %digest, error = %error, "a manifest cannot be read; not indexed");
                return Ok(());
            }
        };
        let Ok(manifest) = Manifest::parse(&stored.bytes, &stored.media_type) else { return Ok(()) };
        match self.add_referrer(repository, &manifest, digest, stored.bytes.len() as u64) {
            Err(PutManifestError::Disk(error)) => Err(error),
            _ => Ok(()),
        }
    }
}
