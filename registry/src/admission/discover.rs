//! Finds what might be evidence: referrers, the referrers' fallback tag, and cosign's `.sig` and `.att` tags.
//!
//! Everything found is a candidate only: it has the right digest and size and names the right subject, no more.
//! Absence is an empty list; a store that fails, or hands out other bytes than asked for, is an error. It must
//! not verify signatures.

use super::{
    ContentStore, ReadError,
    strict::{self, Twins},
};
use crate::manifest::{Descriptor, ImageManifest, Manifest};
use bytes::Bytes;
use neap_sdk::{
    Digest,
    artifact::{Repository, TagOrDigest, media_type},
    limits::{BUNDLE_BYTES_MAX, REFERRERS_EXAMINED_MAX, REFERRERS_LISTED_MAX, SIMPLE_SIGNING_BYTES_MAX},
};
use std::collections::BTreeSet;

/// One thing that might be a signature or an attestation.
#[derive(Debug, Clone)]
pub enum Candidate {
    /// A sigstore bundle.
    Bundle(Bytes),
    /// A bare DSSE envelope, as cosign before 3 wrote attestations.
    Envelope(Bytes),
    /// A simple-signing payload and its signature in base64, as cosign before 3 wrote signatures.
    Simple {
        /// What was signed.
        payload: Bytes,
        /// The signature as it stands in the annotation.
        signature: String,
    },
    /// Something in the place of one that cannot be read as one; the text says why.
    Broken(String),
}

/// How much of what is attached was examined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// All of it.
    All,
    /// The first `REFERRERS_EXAMINED_MAX`.
    Some,
}

/// A blob of cosign's older signatures.
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// A blob of cosign's older attestations.
const DSSE_ENVELOPE: &str = "application/vnd.dsse.envelope.v1+json";
/// The annotation that carries a simple-signing signature.
const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// Bundles of any version; which ones count is decided when they are read.
const BUNDLE_PREFIX: &str = "application/vnd.dev.sigstore.bundle";

/// Who judges a candidate.
type Judge<'a> = &'a mut (dyn FnMut(Candidate) + Send);

/// Hands the candidates for `target` to `judge`, one after another, so that one at a time is in memory.
pub async fn discover(
    store: &dyn ContentStore,
    repository: &Repository,
    target: Digest,
    judge: Judge<'_>,
) -> Result<Seen, ReadError> {
    let mut examined = 0;
    let mut referrers: BTreeSet<Digest> = BTreeSet::new();
    let listed = store.referrers(repository, target).await?;
    referrers.extend(listed.into_iter().take(REFERRERS_LISTED_MAX));
    let fallback = tag(&format!("sha256-{}", target.hex()))?;
    if let Some(index) = store.manifest(repository, &fallback).await? {
        referrers.extend(children(&index).into_iter().take(REFERRERS_LISTED_MAX));
    }
    for digest in referrers {
        let Some(bytes) = manifest_by_digest(store, repository, digest).await? else { continue };
        let Some(layer) = bundle_about(target, &bytes) else { continue };
        if examined == REFERRERS_EXAMINED_MAX {
            return Ok(Seen::Some);
        }
        examined += 1;
        judge(read(store, repository, &layer, BUNDLE_BYTES_MAX, Candidate::Bundle).await?);
    }
    for suffix in ["sig", "att"] {
        let name = tag(&format!("sha256-{}.{suffix}", target.hex()))?;
        let Some(bytes) = store.manifest(repository, &name).await? else { continue };
        let layers = match image_manifest(&bytes) {
            Ok(manifest) => manifest.layers,
            Err(why) => {
                judge(Candidate::Broken(why));
                continue;
            }
        };
        for layer in &layers {
            if examined == REFERRERS_EXAMINED_MAX {
                return Ok(Seen::Some);
            }
            if let Some(candidate) = legacy(store, repository, layer).await? {
                examined += 1;
                judge(candidate);
            }
        }
    }
    Ok(Seen::All)
}

/// One artifact's manifest, read without ambiguity; the error says why it is none.
pub fn image_manifest(bytes: &[u8]) -> Result<ImageManifest, String> {
    strict::check(bytes, Twins::Exact).map_err(|error| format!("the manifest is {error}"))?;
    let media_type = Manifest::media_type_of(bytes).map_err(|error| error.to_string())?;
    match Manifest::parse(bytes, &media_type).map_err(|error| error.to_string())? {
        Manifest::Image(image)
            if image.layers.iter().chain([&image.config]).all(|part| part.urls.is_empty()) =>
        {
            Ok(image)
        }
        Manifest::Image(_) => {
            Err("the manifest has a foreign layer (`urls`), which is never fetched".to_owned())
        }
        Manifest::Index(_) => Err("the manifest is an index, not one artifact".to_owned()),
    }
}

/// The digests that an index lists; none where the bytes are no index.
fn children(bytes: &[u8]) -> Vec<Digest> {
    let read = Manifest::media_type_of(bytes).and_then(|media_type| Manifest::parse(bytes, &media_type));
    match read {
        Ok(Manifest::Index(index)) => index.manifests.into_iter().map(|child| child.digest).collect(),
        _ => Vec::new(),
    }
}

fn tag(text: &str) -> Result<TagOrDigest, ReadError> {
    text.parse().map(TagOrDigest::Tag).map_err(|error| ReadError {
        what: format!("tag {text}"),
        source: Box::<dyn std::error::Error + Send + Sync>::from(error),
    })
}

async fn manifest_by_digest(
    store: &dyn ContentStore,
    repository: &Repository,
    digest: Digest,
) -> Result<Option<Bytes>, ReadError> {
    let bytes = store.manifest(repository, &TagOrDigest::Digest(digest)).await?;
    match bytes {
        Some(bytes) if Digest::of(&bytes) != digest => Err(damaged("manifest", digest)),
        other => Ok(other),
    }
}

fn damaged(what: &str, digest: Digest) -> ReadError {
    ReadError { what: format!("{what} {digest}"), source: "the stored bytes have another digest".into() }
}

/// The bytes that a descriptor promises, with its exact size and digest; `None` where they are not stored.
pub async fn blob(
    store: &dyn ContentStore,
    repository: &Repository,
    descriptor: &Descriptor,
) -> Result<Option<Bytes>, ReadError> {
    let bytes = store.blob(repository, descriptor.digest, descriptor.size).await?;
    match bytes {
        Some(bytes) if Digest::of(&bytes) != descriptor.digest => Err(damaged("blob", descriptor.digest)),
        other => Ok(other.filter(|bytes| bytes.len() as u64 == descriptor.size)),
    }
}

/// The layer of a referrer that carries one bundle about `target`; `None` for any other kind of referrer. What
/// lists itself as a referrer but is no strict manifest, or refers to something else, is not evidence.
fn bundle_about(target: Digest, manifest: &[u8]) -> Option<Descriptor> {
    let manifest = image_manifest(manifest).ok()?;
    let about_target = manifest.subject.is_some_and(|subject| subject.digest == target);
    let empty = manifest.config.media_type == media_type::EMPTY;
    let [layer] = <[Descriptor; 1]>::try_from(manifest.layers).ok()?;
    (about_target && empty && layer.media_type.starts_with(BUNDLE_PREFIX)).then_some(layer)
}

/// A layer of cosign's `.sig` and `.att` manifests: one signature or attestation; `None` for anything else.
async fn legacy(
    store: &dyn ContentStore,
    repository: &Repository,
    layer: &Descriptor,
) -> Result<Option<Candidate>, ReadError> {
    match (layer.media_type.as_str(), layer.annotations.get(SIGNATURE_ANNOTATION)) {
        (SIMPLE_SIGNING, Some(signature)) => {
            let simple = |payload| Candidate::Simple { payload, signature: signature.clone() };
            read(store, repository, layer, SIMPLE_SIGNING_BYTES_MAX, simple).await.map(Some)
        }
        (DSSE_ENVELOPE, _) => {
            read(store, repository, layer, BUNDLE_BYTES_MAX, Candidate::Envelope).await.map(Some)
        }
        _ => Ok(None),
    }
}

async fn read(
    store: &dyn ContentStore,
    repository: &Repository,
    layer: &Descriptor,
    bytes_max: u64,
    make: impl FnOnce(Bytes) -> Candidate + Send,
) -> Result<Candidate, ReadError> {
    if layer.size > bytes_max {
        let size = layer.size;
        return Ok(Candidate::Broken(format!(
            "an attachment has {size} bytes; at most {bytes_max} are read"
        )));
    }
    Ok(match blob(store, repository, layer).await? {
        Some(bytes) => make(bytes),
        None => Candidate::Broken(format!("attachment {} is missing or has another size", layer.digest)),
    })
}
