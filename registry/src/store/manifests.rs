//! Manifests and tags of a repository. Judges only whether a manifest is well-formed and complete, not whether
//! it may run.

use super::{ReadError, Store};
use crate::{
    durable::{self, DiskError},
    manifest::{Descriptor, Manifest, ManifestError},
};
use bytes::Bytes;
use neap_sdk::{
    Digest,
    artifact::{Repository, Tag, TagOrDigest},
    limits,
};
use serde::{Deserialize, Serialize};

/// A manifest as it was pushed, checked against its digest.
#[derive(Debug, Clone)]
pub struct StoredManifest {
    /// Its digest.
    pub digest: Digest,
    /// What it was pushed as.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Bytes,
}

/// What a link of a manifest holds.
#[derive(Serialize, Deserialize)]
struct Link {
    media_type: String,
}

/// A manifest that was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutManifest {
    /// Its digest.
    pub digest: Digest,
    /// The manifest that it speaks about, whether that is there or not.
    pub subject: Option<Digest>,
}

/// Why a manifest was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PutManifestError {
    /// It is not a manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The bytes are not the ones that were named.
    #[error("the manifest has digest {got}, not {wanted}")]
    DigestMismatch {
        /// What was named.
        wanted: Digest,
        /// What came.
        got: Digest,
    },
    /// It refers to blobs that were not pushed to this repository.
    #[error("the manifest refers to {0:?}, which this repository does not have; push the blobs first")]
    BlobUnknown(Vec<Digest>),
    /// A descriptor's size is not the blob's.
    #[error("the manifest says that {digest} has {described} bytes, but it has {actual}")]
    Size {
        /// Which blob.
        digest: Digest,
        /// What the descriptor says.
        described: u64,
        /// What it has.
        actual: u64,
    },
    /// The repository has as many tags as it may.
    #[error("the repository has {max} tags, which is the most; delete one first", max = limits::TAGS_PER_REPOSITORY_MAX)]
    TooManyTags,
    /// The subject has as many referrers as it may.
    #[error("{subject} has {max} referrers, which is the most; delete one first", max = limits::REFERRERS_PER_MANIFEST_MAX)]
    TooManyReferrers {
        /// Which subject.
        subject: Digest,
    },
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Layers that a client need not upload: they are fetched from elsewhere by licence.
fn is_foreign(descriptor: &Descriptor) -> bool {
    let media_type = descriptor.media_type.as_str();
    media_type.starts_with("application/vnd.oci.image.layer.nondistributable.v1.")
        || media_type == "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
}

impl Store {
    /// Takes a manifest that was sent as `media_type` under a tag or its own digest. Blobs of an image manifest
    /// must be there; children of an index and the subject may be missing. Once this returns it survives a crash.
    pub fn put_manifest(
        &self,
        repository: &Repository,
        target: &TagOrDigest,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<PutManifest, PutManifestError> {
        let manifest = Manifest::parse(bytes, media_type)?;
        let digest = Digest::of(bytes);
        match target {
            TagOrDigest::Digest(wanted) if *wanted != digest => {
                return Err(PutManifestError::DigestMismatch { wanted: *wanted, got: digest });
            }
            TagOrDigest::Digest(_) => {}
            TagOrDigest::Tag(tag) => self.check_tag_count(repository, tag)?,
        }
        let put = self.linking(|| {
            self.check_blobs(repository, &manifest)?;
            self.placing(|| durable::write(&self.scratch(), &self.blob_path(&digest), bytes))?;
            // In this order: whoever sees the manifest finds it among the referrers of its subject.
            self.add_referrer(repository, &manifest, digest, bytes.len() as u64)?;
            let link = Link { media_type: media_type.to_owned() };
            let link = serde_json::to_vec(&link).expect("a string always serialises");
            durable::write(&self.scratch(), &self.manifest_link(repository, &digest), &link)?;
            if let TagOrDigest::Tag(tag) = target {
                let path = self.tag_path(repository, tag);
                durable::write(&self.scratch(), &path, digest.to_string().as_bytes())?;
            }
            Ok(PutManifest { digest, subject: manifest.subject().map(|subject| subject.digest) })
        });
        match put {
            // Either the manifest is wrong or the file is. Reading it may take long, so nobody waits for it.
            Err(PutManifestError::Size { digest, described, .. })
                if self.is_damaged(digest, described)? =>
            {
                Err(PutManifestError::BlobUnknown(vec![digest]))
            }
            put => put,
        }
    }

    /// Whether content is damaged, which is then moved aside.
    fn is_damaged(&self, digest: Digest, size: u64) -> Result<bool, DiskError> {
        match self.verify_content(digest, size) {
            Err(ReadError::Disk(error)) => Err(error),
            checked => Ok(checked.is_err()),
        }
    }

    fn check_blobs(&self, repository: &Repository, manifest: &Manifest) -> Result<(), PutManifestError> {
        let Manifest::Image(_) = manifest else { return Ok(()) };
        let mut missing = Vec::new();
        for descriptor in manifest.references().filter(|descriptor| !is_foreign(descriptor)) {
            let linked = self.blob_link(repository, &descriptor.digest).is_file();
            match self.file_size(descriptor.digest)?.filter(|_| linked) {
                None => missing.push(descriptor.digest),
                Some(actual) if actual != descriptor.size => {
                    let (digest, described) = (descriptor.digest, descriptor.size);
                    return Err(PutManifestError::Size { digest, described, actual });
                }
                Some(_) => {}
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(PutManifestError::BlobUnknown(missing)) }
    }

    fn check_tag_count(&self, repository: &Repository, tag: &Tag) -> Result<(), PutManifestError> {
        if self.tag_path(repository, tag).is_file() {
            return Ok(());
        }
        let count = durable::names(&self.repository_dir(repository).join("_tags"))?.len();
        if count < limits::TAGS_PER_REPOSITORY_MAX { Ok(()) } else { Err(PutManifestError::TooManyTags) }
    }

    /// The digest that a tag points at now.
    pub fn resolve_tag(&self, repository: &Repository, tag: &Tag) -> Result<Option<Digest>, DiskError> {
        let text = durable::read(&self.tag_path(repository, tag))?;
        Ok(text.and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok()))
    }

    /// The manifest that `repository` shows under a tag or digest, with its bytes checked.
    pub fn manifest(
        &self,
        repository: &Repository,
        target: &TagOrDigest,
    ) -> Result<Option<StoredManifest>, ReadError> {
        let digest = match target {
            TagOrDigest::Digest(digest) => *digest,
            TagOrDigest::Tag(tag) => match self.resolve_tag(repository, tag)? {
                Some(digest) => digest,
                None => return Ok(None),
            },
        };
        let Some(link) = durable::read(&self.manifest_link(repository, &digest))? else { return Ok(None) };
        let link: Link = serde_json::from_slice(&link).map_err(|_| ReadError::Corrupt(digest))?;
        let bytes = self.read_content(digest, limits::MANIFEST_BYTES_MAX)?;
        Ok(bytes.map(|bytes| StoredManifest { digest, media_type: link.media_type, bytes }))
    }

    /// Whether `repository` shows that manifest.
    pub(super) fn has_manifest(&self, repository: &Repository, digest: &Digest) -> bool {
        self.manifest_link(repository, digest).is_file()
    }

    /// Removes a tag, or a manifest with every tag that points at it; `false` where there was none.
    pub fn delete_manifest(&self, repository: &Repository, target: &TagOrDigest) -> Result<bool, ReadError> {
        let digest = match target {
            TagOrDigest::Tag(tag) => return Ok(durable::remove(&self.tag_path(repository, tag))?),
            TagOrDigest::Digest(digest) => *digest,
        };
        let Some(manifest) = self.manifest(repository, target)? else { return Ok(false) };
        for tag in self.tags(repository)? {
            if self.resolve_tag(repository, &tag)? == Some(digest) {
                durable::remove(&self.tag_path(repository, &tag))?;
            }
        }
        let existed = durable::remove(&self.manifest_link(repository, &digest))?;
        if let Ok(manifest) = Manifest::parse(&manifest.bytes, &manifest.media_type) {
            self.remove_referrer(repository, &manifest, digest)?;
        }
        Ok(existed)
    }

    /// The tags of a repository, sorted by bytes.
    pub fn tags(&self, repository: &Repository) -> Result<Vec<Tag>, DiskError> {
        let names = durable::names(&self.repository_dir(repository).join("_tags"))?;
        let mut tags: Vec<Tag> = names.into_iter().filter_map(|name| name.parse().ok()).collect();
        tags.sort();
        Ok(tags)
    }
}
