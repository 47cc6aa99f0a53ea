//! GET, HEAD, PUT and DELETE of manifests by tag or digest.

use super::{
    CONTENT_DIGEST, Call, OCI_SUBJECT,
    error::{ApiError, Code},
    json, value,
};
use crate::manifest::Manifest;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use neap_sdk::{
    artifact::{Repository, TagOrDigest},
    limits,
};

fn unknown(target: &TagOrDigest) -> ApiError {
    ApiError::new(Code::ManifestUnknown, format!("this repository has no manifest {target}"))
}

pub(super) async fn get(
    call: Call,
    repository: Repository,
    target: TagOrDigest,
) -> Result<Response, ApiError> {
    let wanted = target.clone();
    let found = call.store.run(move |store| store.manifest(&repository, &wanted)).await?;
    let manifest = found.ok_or_else(|| unknown(&target))?;
    let mut response = json(StatusCode::OK, &manifest.media_type, manifest.bytes.into());
    response.headers_mut().insert(CONTENT_DIGEST, value(manifest.digest));
    response.headers_mut().insert(header::ETAG, value(format_args!("\"{}\"", manifest.digest)));
    Ok(response)
}

pub(super) async fn put(
    call: Call,
    repository: Repository,
    target: TagOrDigest,
) -> Result<Response, ApiError> {
    let limit = usize::try_from(limits::MANIFEST_BYTES_MAX).unwrap_or(usize::MAX);
    let bytes = match Limited::new(call.body, limit).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            let text = format!("a manifest may have at most {limit} bytes");
            return Err(ApiError::new(Code::ManifestInvalid, text).status(413));
        }
        Err(error) => return Err(ApiError::caused(Code::ManifestInvalid, error.as_ref())),
    };
    let media_type = match call.parts.headers.get(header::CONTENT_TYPE).map(|value| value.to_str()) {
        // A media type has parameters after ';'; those of manifests mean nothing.
        Some(Ok(text)) => text.split(';').next().unwrap_or(text).trim().to_ascii_lowercase(),
        Some(Err(_)) => return Err(ApiError::new(Code::ManifestInvalid, "Content-Type is not readable")),
        None => Manifest::media_type_of(&bytes)
            .map_err(|error| ApiError::caused(Code::ManifestInvalid, &error))?,
    };
    let name = repository.clone();
    let put =
        call.store.run(move |store| store.put_manifest(&repository, &target, &media_type, &bytes)).await?;
    let mut headers = HeaderMap::from_iter([
        (header::LOCATION, value(format_args!("/v2/{name}/manifests/{}", put.digest))),
        (CONTENT_DIGEST, value(put.digest)),
    ]);
    headers.extend(put.subject.map(|subject| (OCI_SUBJECT, value(subject))));
    Ok((StatusCode::CREATED, headers).into_response())
}

pub(super) async fn delete(
    call: Call,
    repository: Repository,
    target: TagOrDigest,
) -> Result<Response, ApiError> {
    let wanted = target.clone();
    match call.store.run(move |store| store.delete_manifest(&repository, &wanted)).await? {
        true => Ok(StatusCode::ACCEPTED.into_response()),
        false => Err(unknown(&target)),
    }
}
