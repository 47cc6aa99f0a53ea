//! Pulling: every byte is counted and hashed while it comes, and what is not as described is thrown away.

use super::{
    ClientError, Progress, RegistryClient, TransferProgress,
    http::{Call, next_piece, read_body, refusal},
    scratch,
};
use crate::{
    durable,
    manifest::{Descriptor, Manifest},
    package::{LocalArtifact, LocalBlob},
};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::{HeaderValue, Method, StatusCode, header};
use neap_sdk::{
    Digest,
    artifact::{Repository, TagOrDigest, media_type},
    limits,
};
use sha2::{Digest as _, Sha256};
use std::{path::Path, sync::Arc};
use tokio::io::AsyncWriteExt as _;

/// A manifest as a registry sent it, checked against the digest it was asked for by.
#[derive(Debug, Clone)]
pub struct RemoteManifest {
    /// The digest of its bytes.
    pub digest: Digest,
    /// What it was sent as.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Bytes,
}

impl RegistryClient {
    /// Fetches a manifest; `None` where there is none.
    pub async fn manifest(
        &self,
        repository: &Repository,
        target: &TagOrDigest,
    ) -> Result<Option<RemoteManifest>, ClientError> {
        let url = self.host.url(&self.path(repository, &format!("manifests/{target}")))?;
        let accept =
            [media_type::MANIFEST, media_type::INDEX, media_type::DOCKER_MANIFEST, media_type::DOCKER_INDEX];
        let accept = HeaderValue::from_str(&accept.join(", ")).unwrap_or(HeaderValue::from_static("*/*"));
        let call = Call::new(Method::GET, url).header(header::ACCEPT, accept);
        let response = self.send(call, &self.scope(repository, "pull")).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            _ => return Err(refusal(format!("manifest {target}"), response).await),
        }
        let sent_as = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let sent_as = sent_as.map(|text| text.split(';').next().unwrap_or(text).trim().to_owned());
        let max = usize::try_from(limits::MANIFEST_BYTES_MAX).unwrap_or(usize::MAX);
        let bytes = read_body(response, max).await?;
        let digest = Digest::of(&bytes);
        if let TagOrDigest::Digest(wanted) = target
            && *wanted != digest
        {
            return Err(mismatch("the manifest", wanted, &digest));
        }
        let media_type = match sent_as {
            Some(media_type) => media_type,
            None => Manifest::media_type_of(&bytes)?,
        };
        Ok(Some(RemoteManifest { digest, media_type, bytes }))
    }

    /// Pulls an artifact: of an index, the child for linux/amd64 or Wasm. Its files are gone with the last clone of
    /// what is returned.
    pub async fn pull(
        &self,
        repository: &Repository,
        target: &TagOrDigest,
        progress: Progress,
    ) -> Result<LocalArtifact, ClientError> {
        let missing = |target: &TagOrDigest| {
            ClientError::NotFound(format!("{}/{repository} {target}", self.host.name()))
        };
        let mut found = self.manifest(repository, target).await?.ok_or_else(|| missing(target))?;
        for _ in 0..=limits::INDEX_DEPTH_MAX {
            let parsed = match Manifest::parse(&found.bytes, &found.media_type)? {
                image @ Manifest::Image(_) => {
                    return self.pull_blobs(repository, found, &image, progress).await;
                }
                Manifest::Index(index) => index,
            };
            let chosen = match parsed.manifests.as_slice() {
                [only] => Some(only),
                _ => parsed.choose(),
            };
            let nothing = || ClientError::NotFound("a manifest for linux/amd64".to_owned());
            let chosen = chosen.ok_or_else(nothing)?;
            let child = TagOrDigest::Digest(chosen.digest);
            found = self.manifest(repository, &child).await?.ok_or_else(|| missing(&child))?;
            if found.bytes.len() as u64 != chosen.size || found.media_type != chosen.media_type {
                let text = format!("the index describes {} with another size or type", chosen.digest);
                return Err(ClientError::Protocol(text));
            }
        }
        Err(ClientError::Protocol("too many indexes are nested".to_owned()))
    }

    async fn pull_blobs(
        &self,
        repository: &Repository,
        found: RemoteManifest,
        manifest: &Manifest,
        progress: Progress,
    ) -> Result<LocalArtifact, ClientError> {
        let folder = Arc::new(scratch().await?);
        let mut parts: Vec<Descriptor> = manifest.references().cloned().collect();
        parts.sort_by_key(|part| part.digest);
        parts.dedup_by_key(|part| part.digest);
        let fetches = parts.into_iter().map(|part| {
            let (path, progress) = (folder.path().join(part.digest.hex()), progress.clone());
            async move {
                self.pull_blob(repository, &part, &path, progress).await?;
                Ok::<_, ClientError>(LocalBlob::file(&part, path))
            }
        });
        let blobs =
            stream::iter(fetches).buffer_unordered(limits::TRANSFERS_CONCURRENT_MAX).try_collect().await?;
        let RemoteManifest { media_type, bytes, .. } = found;
        let made = super::blocking(move || LocalArtifact::new(bytes, &media_type, blobs, Some(folder))).await;
        Ok(made?)
    }

    /// Fetches one blob into a new file. A blob of another length or digest is an error, found while it streams.
    pub async fn pull_blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        path: &Path,
        progress: Progress,
    ) -> Result<(), ClientError> {
        let Descriptor { digest, size, .. } = *descriptor;
        if size > limits::BLOB_BYTES_MAX {
            let max = limits::BLOB_BYTES_MAX;
            return Err(ClientError::Protocol(format!(
                "blob {digest} has {size} bytes; at most {max} are taken"
            )));
        }
        let progress = TransferProgress { report: progress, digest, total_bytes: size };
        let url = self.host.url(&self.path(repository, &format!("blobs/{digest}")))?;
        let mut response = self.send(Call::new(Method::GET, url), &self.scope(repository, "pull")).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(ClientError::NotFound(format!("blob {digest}"))),
            _ => return Err(refusal(format!("blob {digest}"), response).await),
        }
        let failed = |error| ClientError::from(durable::failed("write", path)(error));
        let mut file = tokio::fs::File::create_new(path).await.map_err(failed)?;
        let mut hasher = Sha256::new();
        let mut done = 0;
        progress.at(0);
        while let Some(piece) = next_piece(&mut response, &self.host.name()).await? {
            done += piece.len() as u64;
            if done > size {
                return Err(ClientError::Protocol(format!("blob {digest} has more than its {size} bytes")));
            }
            hasher.update(&piece);
            file.write_all(&piece).await.map_err(failed)?;
            progress.at(done);
        }
        file.flush().await.map_err(failed)?;
        if done != size {
            return Err(ClientError::Protocol(format!("blob {digest} ended after {done} of {size} bytes")));
        }
        let got = Digest::from_sha256(hasher.finalize().into());
        if got == digest { Ok(()) } else { Err(mismatch("the blob", &digest, &got)) }
    }
}

fn mismatch(what: &str, expected: &Digest, got: &Digest) -> ClientError {
    ClientError::Digest { what: what.to_owned(), expected: expected.to_string(), got: got.to_string() }
}
