//! Pushing: what the registry has already is not sent, what it has elsewhere is mounted, the rest is streamed.

use super::{
    ClientError, Progress, RegistryClient, TransferProgress,
    http::{Call, Payload, read_body, refusal},
};
use crate::{
    manifest::Descriptor,
    package::{Content, LocalArtifact, LocalBlob},
    sign::Attachment,
};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use neap_sdk::{
    Digest,
    artifact::{Repository, Tag, TagOrDigest, media_type},
    limits,
};
use reqwest::Url;
use serde_json::json;

const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

impl RegistryClient {
    /// Pushes an artifact, its blobs first, and points `tag` at it where one is given.
    pub async fn push(
        &self,
        repository: &Repository,
        tag: Option<&Tag>,
        artifact: &LocalArtifact,
        progress: Progress,
    ) -> Result<Digest, ClientError> {
        // Owned: a borrowed blob in the closure would make the whole future not `Send`.
        let sends = artifact.blobs.clone().into_iter().map(|blob| {
            let progress = progress.clone();
            async move { self.push_blob(repository, &blob, None, progress).await }
        });
        stream::iter(sends).buffer_unordered(limits::TRANSFERS_CONCURRENT_MAX).try_collect::<()>().await?;
        let digest = TagOrDigest::Digest(artifact.digest);
        self.push_manifest(repository, &digest, &artifact.media_type, artifact.manifest.clone()).await?;
        if let Some(tag) = tag {
            let tag = TagOrDigest::Tag(tag.clone());
            self.push_manifest(repository, &tag, &artifact.media_type, artifact.manifest.clone()).await?;
        }
        Ok(artifact.digest)
    }

    /// Pushes a signature or attestation. Where the registry has no referrers API, the fallback tag is brought up to
    /// date too; two clients that do that at once can lose one entry, as the specification says.
    pub async fn push_attachment(
        &self,
        repository: &Repository,
        attachment: &Attachment,
    ) -> Result<Digest, ClientError> {
        for bytes in &attachment.blobs {
            let blob = LocalBlob::of("", bytes.clone());
            self.push_blob(repository, &blob, None, super::no_progress()).await?;
        }
        let digest = attachment.digest();
        let manifest = Bytes::from(attachment.manifest.clone());
        let target = TagOrDigest::Digest(digest);
        let headers = self.push_manifest(repository, &target, media_type::MANIFEST, manifest.clone()).await?;
        if !headers.contains_key("oci-subject") {
            self.add_to_fallback(repository, &manifest).await?;
        }
        Ok(digest)
    }

    async fn add_to_fallback(&self, repository: &Repository, manifest: &Bytes) -> Result<(), ClientError> {
        let parsed = crate::manifest::Manifest::parse(manifest, media_type::MANIFEST)?;
        let Some(subject) = parsed.subject() else { return Ok(()) };
        let mut entries = self.fallback_referrers(repository, subject.digest).await?;
        let entry = Descriptor {
            artifact_type: parsed.artifact_type().map(str::to_owned),
            annotations: parsed.annotations().clone(),
            ..Descriptor::of(media_type::MANIFEST, manifest)
        };
        if entries.iter().any(|known| known.digest == entry.digest) {
            return Ok(());
        }
        entries.push(entry);
        let index = json!({ "schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": entries });
        let tag = TagOrDigest::Tag(super::referrers::fallback_tag(subject.digest));
        self.push_manifest(repository, &tag, media_type::INDEX, index.to_string().into()).await?;
        Ok(())
    }

    /// Puts a manifest under a tag or its digest; returns the headers of the answer.
    pub async fn push_manifest(
        &self,
        repository: &Repository,
        target: &TagOrDigest,
        media_type: &str,
        manifest: Bytes,
    ) -> Result<HeaderMap, ClientError> {
        let url = self.host.url(&self.path(repository, &format!("manifests/{target}")))?;
        let content_type = HeaderValue::from_str(media_type)
            .map_err(|_| ClientError::Protocol(format!("{media_type:?} is no media type")))?;
        let call = Call::new(Method::PUT, url).header(header::CONTENT_TYPE, content_type);
        let response =
            self.send(call.payload(Payload::Bytes(manifest)), &self.scope(repository, "pull,push")).await?;
        match response.status() {
            StatusCode::CREATED => Ok(response.headers().clone()),
            _ => Err(refusal(format!("manifest {target}"), response).await),
        }
    }

    /// Pushes one blob, unless the repository has it. `mount_from` is a repository of the same registry that may
    /// have it.
    pub async fn push_blob(
        &self,
        repository: &Repository,
        blob: &LocalBlob,
        mount_from: Option<&Repository>,
        progress: Progress,
    ) -> Result<(), ClientError> {
        let progress =
            TransferProgress { report: progress, digest: blob.digest, total_bytes: blob.size_bytes };
        progress.at(0);
        if !self.has_blob(repository, blob).await? {
            match self.begin(repository, blob.digest, mount_from).await? {
                Begun::Mounted => {}
                Begun::Upload { location, chunk_min } => {
                    let upload = Upload {
                        client: self,
                        scope: self.scope(repository, "pull,push"),
                        blob,
                        progress: &progress,
                    };
                    upload.run(location, chunk_min).await?;
                }
            }
        }
        progress.at(blob.size_bytes);
        Ok(())
    }

    /// Whether a repository has a blob. One of another length is damaged there: sending it again repairs it.
    async fn has_blob(&self, repository: &Repository, blob: &LocalBlob) -> Result<bool, ClientError> {
        let digest = blob.digest;
        let url = self.host.url(&self.path(repository, &format!("blobs/{digest}")))?;
        let response = self.send(Call::new(Method::HEAD, url), &self.scope(repository, "pull,push")).await?;
        match response.status() {
            StatusCode::OK => {
                let length = response.headers().get(header::CONTENT_LENGTH);
                let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
                Ok(length.is_none_or(|length| length == blob.size_bytes))
            }
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(refusal(format!("asking for blob {digest}"), response).await),
        }
    }

    async fn begin(
        &self,
        repository: &Repository,
        digest: Digest,
        mount_from: Option<&Repository>,
    ) -> Result<Begun, ClientError> {
        let mut url = self.host.url(&self.path(repository, "blobs/uploads/"))?;
        if let Some(from) = mount_from {
            let from = self.host.repository(from.as_str());
            url.query_pairs_mut().append_pair("mount", &digest.to_string()).append_pair("from", &from);
        }
        let response =
            self.send(Call::new(Method::POST, url.clone()), &self.scope(repository, "pull,push")).await?;
        match response.status() {
            StatusCode::CREATED => Ok(Begun::Mounted),
            StatusCode::ACCEPTED => {
                let chunk_min = response.headers().get("oci-chunk-min-length");
                let chunk_min = chunk_min.and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
                Ok(Begun::Upload { location: self.location(&url, response.headers())?, chunk_min })
            }
            _ => Err(refusal(format!("uploading blob {digest}"), response).await),
        }
    }
}

enum Begun {
    Mounted,
    Upload { location: Url, chunk_min: u64 },
}

struct Upload<'a> {
    client: &'a RegistryClient,
    scope: String,
    blob: &'a LocalBlob,
    progress: &'a TransferProgress,
}

impl Upload<'_> {
    /// Sends small blobs in the closing request, large ones in chunks that can be taken up again.
    async fn run(&self, mut location: Url, chunk_min: u64) -> Result<(), ClientError> {
        let size = self.blob.size_bytes;
        let chunk = limits::UPLOAD_CHUNK_BYTES.max(chunk_min);
        let mut offset = 0;
        let mut resumes = 0;
        while size > chunk && offset < size {
            let end = size.min(offset + chunk);
            match self.patch(&location, offset..end).await {
                Ok(next) => (location, offset) = (next, end),
                Err(error) if resumes == limits::UPLOAD_RESUMES_MAX || !is_passing(&error) => {
                    return Err(error);
                }
                Err(_) => {
                    resumes += 1;
                    tokio::time::sleep(std::time::Duration::from_millis(100 << resumes)).await;
                    (location, offset) = self.resume(&location).await?;
                }
            }
        }
        self.finish(location, offset..size).await
    }

    fn part(&self, range: std::ops::Range<u64>) -> Payload {
        match &self.blob.content {
            Content::File(path) => Payload::File(path.clone(), range),
            Content::Bytes(bytes) => {
                let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                Payload::Bytes(bytes.slice(at(range.start)..at(range.end)))
            }
        }
    }

    async fn patch(&self, location: &Url, range: std::ops::Range<u64>) -> Result<Url, ClientError> {
        let covered = format!("{}-{}", range.start, range.end - 1);
        let covered = HeaderValue::from_str(&covered).unwrap_or(HeaderValue::from_static("0-0"));
        let call = Call::new(Method::PATCH, location.clone())
            .header(header::CONTENT_TYPE, OCTETS)
            .header(header::CONTENT_RANGE, covered)
            .payload(self.part(range))
            .progress(self.progress.clone());
        let response = self.client.send(call, &self.scope).await?;
        match response.status() {
            StatusCode::ACCEPTED | StatusCode::CREATED | StatusCode::NO_CONTENT => {
                self.client.location(location, response.headers())
            }
            _ => Err(refusal(format!("a chunk of blob {}", self.blob.digest), response).await),
        }
    }

    /// Where the registry stands after something went wrong.
    async fn resume(&self, location: &Url) -> Result<(Url, u64), ClientError> {
        let response = self.client.send(Call::new(Method::GET, location.clone()), &self.scope).await?;
        if response.status() != StatusCode::NO_CONTENT {
            return Err(refusal(format!("resuming blob {}", self.blob.digest), response).await);
        }
        let last = response.headers().get(header::RANGE).and_then(|range| range.to_str().ok());
        let last =
            last.and_then(|range| range.trim_start_matches("bytes=").strip_prefix("0-")?.parse::<u64>().ok());
        // `0-0` is how registries say "nothing", and one byte is cheap to be sent again by a new upload.
        let offset = last.filter(|last| *last > 0).map_or(0, |last| last + 1);
        if offset > self.blob.size_bytes {
            return Err(ClientError::Protocol("the registry has more bytes than were sent".to_owned()));
        }
        self.progress.at(offset);
        Ok((self.client.location(location, response.headers()).unwrap_or_else(|_| location.clone()), offset))
    }

    async fn finish(&self, mut location: Url, range: std::ops::Range<u64>) -> Result<(), ClientError> {
        location.query_pairs_mut().append_pair("digest", &self.blob.digest.to_string());
        let call = Call::new(Method::PUT, location)
            .header(header::CONTENT_TYPE, OCTETS)
            .payload(self.part(range))
            .progress(self.progress.clone());
        let response = self.client.send(call, &self.scope).await?;
        match response.status() {
            StatusCode::CREATED | StatusCode::NO_CONTENT => {
                let _ = read_body(response, limits::REGISTRY_ANSWER_BYTES_MAX).await;
                Ok(())
            }
            _ => Err(refusal(format!("blob {}", self.blob.digest), response).await),
        }
    }
}

/// Whether it may work the next time.
fn is_passing(error: &ClientError) -> bool {
    match error {
        ClientError::Connect { .. } | ClientError::Stalled(_) => true,
        ClientError::Refused { status, .. } => matches!(status, 408 | 409 | 416 | 429 | 500..=599),
        _ => false,
    }
}
