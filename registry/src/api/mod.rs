//! The OCI distribution API, version 1.1, under `/v2/`: what docker, skopeo, cosign and `neap push` speak.
//!
//! Source: OCI distribution-spec 1.1 `spec.md`. Requests are parsed into an `endpoint::Endpoint`, the access hook is
//! asked, a handler calls the store. Nothing is decided here about what may run, and no body is held in memory
//! but manifests, which are small.

mod blobs;
mod endpoint;
mod error;
mod listings;
mod manifests;
mod range;
mod uploads;

use crate::{
    access::{Access, Denied},
    store::Store,
};
use axum::{
    Router,
    body::Body,
    extract::{Query, Request, State},
    response::{IntoResponse, Response},
    routing::any,
};
use endpoint::{Action, Endpoint};
use error::{ApiError, Code};
use http::{HeaderName, HeaderValue, StatusCode, header, request::Parts};
use std::sync::Arc;

/// The name of the digest header, older than the specification.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// Tells that a manifest's subject was understood.
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
/// Tells which filters the referrers API applied.
const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
/// An upload's id for clients older than the specification.
const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
/// Tells old clients which API this is.
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

#[derive(Debug)]
struct Api {
    store: Store,
    access: Access,
}

/// One request after its path was understood.
struct Call {
    store: Store,
    access: Access,
    parts: Parts,
    body: Body,
}

impl Call {
    /// The parameters behind the path's `?`.
    fn query<T: serde::de::DeserializeOwned>(&self) -> Result<T, ApiError> {
        let query = Query::<T>::try_from_uri(&self.parts.uri);
        Ok(query.map_err(|error| ApiError::caused(Code::Unsupported, &error).status(400))?.0)
    }
}

/// Everything under `/v2/`.
pub fn router(store: Store, access: Access) -> Router {
    let api = Arc::new(Api { store, access });
    Router::new()
        .route("/v2", any(handle))
        .route("/v2/", any(handle))
        .route("/v2/{*path}", any(handle))
        .with_state(api)
}

async fn handle(State(api): State<Arc<Api>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let call = Call { store: api.store.clone(), access: api.access.clone(), parts, body };
    let mut response = answer(call).await.unwrap_or_else(IntoResponse::into_response);
    response.headers_mut().insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    response
}

async fn answer(call: Call) -> Result<Response, ApiError> {
    let endpoint = Endpoint::parse(call.parts.uri.path())?;
    let action = endpoint.action(&call.parts.method)?;
    match call.access.decide(&call.parts, action.operation(), endpoint.repository()) {
        Ok(()) => {}
        Err(Denied::Unauthenticated) => {
            return Err(ApiError::new(Code::Unauthorized, "this needs credentials; log in first"));
        }
        Err(Denied::Forbidden(reason)) => return Err(ApiError::new(Code::Denied, reason)),
    }
    match (endpoint, action) {
        (Endpoint::Base, _) => Ok(json(StatusCode::OK, "application/json", b"{}".to_vec())),
        (Endpoint::Catalog, _) => listings::catalog(call).await,
        (Endpoint::Tags(repository), _) => listings::tags(call, repository).await,
        (Endpoint::Referrers(repository, subject), _) => listings::referrers(call, repository, subject).await,
        (Endpoint::Blob(repository, digest), Action::Delete) => blobs::delete(call, repository, digest).await,
        (Endpoint::Blob(repository, digest), _) => blobs::get(call, repository, digest).await,
        (Endpoint::Manifest(repository, target), action) => match action {
            Action::Put => manifests::put(call, repository, target).await,
            Action::Delete => manifests::delete(call, repository, target).await,
            _ => manifests::get(call, repository, target).await,
        },
        (Endpoint::Uploads(repository), _) => uploads::begin(call, repository).await,
        (Endpoint::Upload(repository, id), action) => match action {
            Action::Patch => uploads::append(call, repository, id).await,
            Action::Put => uploads::finish(call, repository, id).await,
            Action::Cancel => uploads::cancel(call, repository, id).await,
            _ => uploads::status(call, repository, id).await,
        },
    }
}

/// A response with a whole body. hyper drops the body of an answer to HEAD and keeps its length.
fn json(status: StatusCode, media_type: &str, body: Vec<u8>) -> Response {
    let media_type =
        HeaderValue::from_str(media_type).unwrap_or(HeaderValue::from_static("application/json"));
    (status, [(header::CONTENT_TYPE, media_type)], body).into_response()
}

/// A header value of text that we made ourselves from digests, names and numbers.
fn value(text: impl std::fmt::Display) -> HeaderValue {
    HeaderValue::from_str(&text.to_string()).unwrap_or(HeaderValue::from_static(""))
}
