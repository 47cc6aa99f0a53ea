//! GET, HEAD and DELETE of blobs.
//!
//! A whole blob is hashed while it streams, and its last piece is held back until the digest is right: bytes that
//! were changed on disk end in a broken connection, never in a complete answer, and are moved aside.

use super::{
    CONTENT_DIGEST, Call,
    error::{ApiError, Code},
    range::{self, Wanted},
    value,
};
use crate::store::{OpenBlob, Store};
use axum::{
    body::{Body, Bytes},
    response::{IntoResponse, Response},
};
use futures_util::{Stream, stream};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use neap_sdk::{Digest, artifact::Repository, limits};
use sha2::{Digest as _, Sha256};
use std::{io, ops::Range};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

fn unknown(digest: Digest) -> ApiError {
    ApiError::new(Code::BlobUnknown, format!("this repository has no blob {digest}"))
}

pub(super) async fn get(call: Call, repository: Repository, digest: Digest) -> Result<Response, ApiError> {
    let mut headers = HeaderMap::from_iter([
        (CONTENT_DIGEST, value(digest)),
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (header::ACCEPT_RANGES, HeaderValue::from_static("bytes")),
        (header::ETAG, value(format_args!("\"{digest}\""))),
    ]);
    if call.parts.method == Method::HEAD {
        let size = call.store.run(move |store| store.blob_size(&repository, digest)).await?;
        headers.insert(header::CONTENT_LENGTH, value(size.ok_or_else(|| unknown(digest))?));
        return Ok((headers, Body::empty()).into_response());
    }
    let blob = call.store.run(move |store| store.open_blob(&repository, digest)).await?;
    let OpenBlob { file, size } = blob.ok_or_else(|| unknown(digest))?;
    if size == 0 && digest != Digest::of(b"") {
        // No piece could be held back of it.
        call.store.run(move |store| store.move_aside(digest, &file)).await;
        return Err(unknown(digest));
    }
    let file = tokio::fs::File::from_std(file);
    let wanted = call.parts.headers.get(header::RANGE).and_then(|header| header.to_str().ok());
    match range::wanted(wanted, size) {
        Wanted::All => {
            headers.insert(header::CONTENT_LENGTH, value(size));
            Ok((headers, Body::from_stream(checked(call.store, file, size, digest))).into_response())
        }
        Wanted::Part(range) => {
            headers.insert(header::CONTENT_LENGTH, value(range.end - range.start));
            let shown = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            headers.insert(header::CONTENT_RANGE, value(shown));
            let body = part(file, range).await.map_err(|error| ApiError::caused(Code::Storage, &error))?;
            Ok((StatusCode::PARTIAL_CONTENT, headers, body).into_response())
        }
        Wanted::Unsatisfiable => {
            let text = format!("the blob has {size} bytes; the range is outside of it");
            let shown = value(format_args!("bytes */{size}"));
            Err(ApiError::new(Code::RangeInvalid, text).header(header::CONTENT_RANGE, shown))
        }
    }
}

/// What is left of a blob to send.
struct Rest {
    store: Store,
    file: tokio::fs::File,
    bytes: u64,
    hasher: Sha256,
    digest: Digest,
}

impl Rest {
    /// The next piece; the last one only if the digest over all is right.
    async fn piece(&mut self) -> io::Result<Bytes> {
        let want = self.bytes.min(limits::BLOB_BUFFER_BYTES as u64);
        let mut buffer = vec![0; usize::try_from(want).unwrap_or(limits::BLOB_BUFFER_BYTES)];
        self.file.read_exact(&mut buffer).await?;
        self.hasher.update(&buffer);
        self.bytes -= want;
        let got = || Digest::from_sha256(self.hasher.clone().finalize().into());
        if self.bytes == 0 && got() != self.digest {
            let (file, digest) = (self.file.try_clone().await?.into_std().await, self.digest);
            self.store.run(move |store| store.move_aside(digest, &file)).await;
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the blob was changed on disk"));
        }
        Ok(buffer.into())
    }
}

fn checked(
    store: Store,
    file: tokio::fs::File,
    bytes: u64,
    digest: Digest,
) -> impl Stream<Item = io::Result<Bytes>> {
    stream::unfold(Some(Rest { store, file, bytes, hasher: Sha256::new(), digest }), async |rest| {
        let mut rest = rest.filter(|rest| rest.bytes > 0)?;
        match rest.piece().await {
            Ok(piece) => Some((Ok(piece), Some(rest))),
            Err(error) => Some((Err(error), None)),
        }
    })
}

async fn part(mut file: tokio::fs::File, range: Range<u64>) -> io::Result<Body> {
    file.seek(io::SeekFrom::Start(range.start)).await?;
    let reader = file.take(range.end - range.start);
    Ok(Body::from_stream(tokio_util::io::ReaderStream::with_capacity(reader, limits::BLOB_BUFFER_BYTES)))
}

pub(super) async fn delete(call: Call, repository: Repository, digest: Digest) -> Result<Response, ApiError> {
    match call.store.run(move |store| store.unlink_blob(&repository, digest)).await? {
        true => Ok(StatusCode::ACCEPTED.into_response()),
        false => Err(unknown(digest)),
    }
}
