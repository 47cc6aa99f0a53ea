//! A content store in memory, which can also fail or lie.

use super::super::{ContentStore, ReadError};
use crate::{manifest::Descriptor, sign::Attachment};
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _, ready};
use neap_sdk::{
    Digest,
    artifact::{Repository, TagOrDigest, media_type},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Everything by digest, tags, and which manifests list themselves under which subject.
#[derive(Debug, Default, Clone)]
pub(crate) struct MemoryStore {
    pub content: BTreeMap<Digest, Bytes>,
    pub tags: BTreeMap<String, Digest>,
    pub referrers: BTreeMap<Digest, Vec<Digest>>,
    /// Every read fails from now on.
    pub broken: bool,
}

impl MemoryStore {
    pub fn put(&mut self, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        self.content.insert(digest, bytes);
        digest
    }

    pub fn put_manifest(&mut self, manifest: &[u8]) -> Digest {
        let digest = self.put(manifest.to_vec());
        let value: Option<Value> = serde_json::from_slice(manifest).ok();
        let subject = value.and_then(|value| value["subject"]["digest"].as_str()?.parse().ok());
        if let Some(subject) = subject {
            self.referrers.entry(subject).or_default().push(digest);
        }
        digest
    }

    pub fn tag(&mut self, tag: &str, manifest: &[u8]) {
        let digest = self.put(manifest.to_vec());
        self.tags.insert(tag.to_owned(), digest);
    }

    /// Pushes what `sign` made.
    pub fn attach(&mut self, attachment: &Attachment) -> Digest {
        for blob in &attachment.blobs {
            self.put(blob.clone());
        }
        self.put_manifest(&attachment.manifest)
    }

    /// Pushes any bundle as a referrer of `subject`.
    pub fn attach_bundle(&mut self, subject: Digest, bundle: &[u8]) -> Digest {
        self.put(bundle.to_vec());
        let manifest = referrer(subject, &Descriptor::of(media_type::SIGSTORE_BUNDLE, bundle));
        self.put_manifest(manifest.to_string().as_bytes())
    }
}

/// A referrer manifest with one layer.
pub(crate) fn referrer(subject: Digest, layer: &Descriptor) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": media_type::MANIFEST,
        "artifactType": media_type::SIGSTORE_BUNDLE,
        "config": Descriptor::of(media_type::EMPTY, b"{}"),
        "layers": [layer],
        "subject": Descriptor::new(media_type::MANIFEST, subject, 7),
    })
}

impl MemoryStore {
    fn answer<T>(&self, answer: T) -> BoxFuture<'_, Result<T, ReadError>>
    where
        T: Send + 'static,
    {
        let failure = || ReadError { what: "the test's store".to_owned(), source: "disk on fire".into() };
        ready(if self.broken { Err(failure()) } else { Ok(answer) }).boxed()
    }
}

impl ContentStore for MemoryStore {
    fn referrers<'a>(
        &'a self,
        _: &'a Repository,
        digest: Digest,
    ) -> BoxFuture<'a, Result<Vec<Digest>, ReadError>> {
        self.answer(self.referrers.get(&digest).cloned().unwrap_or_default())
    }

    fn manifest<'a>(
        &'a self,
        _: &'a Repository,
        target: &'a TagOrDigest,
    ) -> BoxFuture<'a, Result<Option<Bytes>, ReadError>> {
        let digest = match target {
            TagOrDigest::Tag(tag) => self.tags.get(tag.as_str()).copied(),
            TagOrDigest::Digest(digest) => Some(*digest),
        };
        self.answer(digest.and_then(|digest| self.content.get(&digest).cloned()))
    }

    fn blob<'a>(
        &'a self,
        _: &'a Repository,
        digest: Digest,
        _: u64,
    ) -> BoxFuture<'a, Result<Option<Bytes>, ReadError>> {
        self.answer(self.content.get(&digest).cloned())
    }
}
