//! Uploads of blobs: in one request, in chunks, or by mounting one that another repository has.

use super::{
    CONTENT_DIGEST, Call, UPLOAD_UUID,
    error::{ApiError, Code},
    range, value,
};
use crate::{
    access::Operation,
    store::{Store, UploadError, UploadId},
};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use neap_sdk::{Digest, artifact::Repository};
use serde::Deserialize;
use std::ops::Range;

#[derive(Deserialize)]
struct Begin {
    digest: Option<String>,
    mount: Option<String>,
    from: Option<String>,
}

#[derive(Deserialize)]
struct Finish {
    digest: Option<String>,
}

fn digest(text: &str) -> Result<Digest, ApiError> {
    text.parse().map_err(|error| ApiError::caused(Code::DigestInvalid, &error))
}

/// POST: a mount, a whole blob, or a new session.
pub(super) async fn begin(call: Call, repository: Repository) -> Result<Response, ApiError> {
    let asked: Begin = call.query()?;
    if let (Some(mount), Some(from)) = (&asked.mount, &asked.from) {
        let digest = digest(mount)?;
        let from = readable(&call, from);
        if mount_blob(&call.store, from, &repository, digest).await? {
            return Ok(created(&repository, digest));
        }
    }
    if let Some(text) = asked.digest.filter(|_| asked.mount.is_none()) {
        let digest = digest(&text)?;
        check_whole_length(&call)?;
        call.store.put_blob(&repository, digest, call.body.into_data_stream()).await?;
        return Ok(created(&repository, digest));
    }
    let id = call.store.begin_upload(&repository).await?;
    Ok(session(StatusCode::ACCEPTED, &repository, &id, 0))
}

/// The repository to mount from, if the caller may read it. Everything else becomes an ordinary upload, so that
/// the answer tells nothing about repositories of others.
fn readable(call: &Call, from: &str) -> Option<Repository> {
    let from = from.parse::<Repository>().ok()?;
    call.access.decide(&call.parts, Operation::Pull, Some(&from)).is_ok().then_some(from)
}

async fn mount_blob(
    store: &Store,
    from: Option<Repository>,
    to: &Repository,
    digest: Digest,
) -> Result<bool, ApiError> {
    let Some(from) = from else { return Ok(false) };
    let to = to.clone();
    Ok(store.run(move |store| store.mount(&from, &to, digest)).await?)
}

/// A blob that cannot fit is refused before it is sent.
fn check_whole_length(call: &Call) -> Result<(), ApiError> {
    match content_length(&call.parts.headers) {
        Some(length) if length > neap_sdk::limits::BLOB_BYTES_MAX => Err(UploadError::TooLarge.into()),
        _ => Ok(()),
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What the client says a part covers. A range that its length contradicts is refused before a byte is taken.
fn announced(headers: &HeaderMap) -> Result<Option<Range<u64>>, ApiError> {
    let Some(text) = headers.get(header::CONTENT_RANGE) else { return Ok(None) };
    let malformed =
        || ApiError::new(Code::BlobUploadInvalid, "Content-Range must be START-END, both inclusive");
    let range = text.to_str().ok().and_then(range::content_range).ok_or_else(malformed)?;
    match content_length(headers) {
        Some(got) if got != range.end - range.start => {
            Err(UploadError::Length { got, announced: range.end - range.start }.into())
        }
        _ => Ok(Some(range)),
    }
}

/// Adds to a refusal of a part where the upload stands, so that the client can go on from there.
fn out_of_order(error: UploadError, repository: &Repository, id: &UploadId) -> ApiError {
    let offset = match &error {
        UploadError::OutOfOrder { offset, .. } => Some(*offset),
        _ => None,
    };
    let answer = ApiError::from(error);
    match offset {
        Some(offset) => answer
            .header(header::RANGE, received(offset))
            .header(header::LOCATION, value(format_args!("/v2/{repository}/blobs/uploads/{id}"))),
        None => answer,
    }
}

/// PATCH: one part.
pub(super) async fn append(call: Call, repository: Repository, id: UploadId) -> Result<Response, ApiError> {
    let range = announced(&call.parts.headers)?;
    let appended = call.store.append(&repository, &id, range, call.body.into_data_stream()).await;
    let offset = appended.map_err(|error| out_of_order(error, &repository, &id))?;
    Ok(session(StatusCode::ACCEPTED, &repository, &id, offset))
}

/// PUT: the last part, if any, and the digest of all.
pub(super) async fn finish(call: Call, repository: Repository, id: UploadId) -> Result<Response, ApiError> {
    let asked: Finish = call.query()?;
    let missing = || ApiError::new(Code::DigestInvalid, "add ?digest=sha256:… to say what was uploaded");
    let digest = digest(&asked.digest.ok_or_else(missing)?)?;
    let range = announced(&call.parts.headers)?;
    let body = call.body.into_data_stream();
    let finished = call.store.finish_upload(&repository, &id, range, body, digest).await;
    finished.map_err(|error| out_of_order(error, &repository, &id))?;
    Ok(created(&repository, digest))
}

/// GET: where an upload stands.
pub(super) async fn status(call: Call, repository: Repository, id: UploadId) -> Result<Response, ApiError> {
    let offset = call.store.upload_offset(&repository, &id).await?;
    Ok(session(StatusCode::NO_CONTENT, &repository, &id, offset))
}

/// DELETE: forget it.
pub(super) async fn cancel(call: Call, repository: Repository, id: UploadId) -> Result<Response, ApiError> {
    call.store.cancel_upload(&repository, &id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `0-LAST`; the specification has no form for "nothing yet", and clients expect `0-0`.
fn received(offset: u64) -> HeaderValue {
    value(format_args!("0-{}", offset.saturating_sub(1)))
}

fn session(status: StatusCode, repository: &Repository, id: &UploadId, offset: u64) -> Response {
    let location = value(format_args!("/v2/{repository}/blobs/uploads/{id}"));
    let headers = [(header::LOCATION, location), (header::RANGE, received(offset)), (UPLOAD_UUID, value(id))];
    (status, headers).into_response()
}

fn created(repository: &Repository, digest: Digest) -> Response {
    let location = value(format_args!("/v2/{repository}/blobs/{digest}"));
    (StatusCode::CREATED, [(header::LOCATION, location), (CONTENT_DIGEST, value(digest))]).into_response()
}
