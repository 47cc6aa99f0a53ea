//! Failures in the distribution API's JSON form: `{"errors":[{"code":…,"message":…}]}`.
//!
//! Source: OCI distribution-spec 1.1, "Error Codes". A message never holds credentials or paths of the server; those
//! of a disk that failed go to the log.

use crate::store::{DiskError, PutManifestError, ReadError, UploadError};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use neap_sdk::ErrorCode;
use serde_json::json;
use std::{error::Error, fmt};

/// What went wrong, in the specification's words where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    TagInvalid,
    Unauthorized,
    Denied,
    Unsupported,
    TooManyRequests,
    RangeInvalid,
    Conflict,
    /// The disk is full or failed.
    Storage,
}

impl Code {
    fn name(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::TagInvalid => "TAG_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::RangeInvalid => "RANGE_INVALID",
            Self::Conflict => "CONFLICT",
            Self::Storage => "STORAGE",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::BlobUnknown | Self::BlobUploadUnknown | Self::ManifestUnknown | Self::NameUnknown => {
                StatusCode::NOT_FOUND
            }
            Self::BlobUploadInvalid
            | Self::DigestInvalid
            | Self::ManifestBlobUnknown
            | Self::ManifestInvalid
            | Self::NameInvalid
            | Self::SizeInvalid
            | Self::TagInvalid => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::Unsupported => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::RangeInvalid => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Conflict => StatusCode::CONFLICT,
            Self::Storage => status_of(ErrorCode::Storage),
        }
    }
}

fn status_of(code: ErrorCode) -> StatusCode {
    StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// A refusal with its status and extra headers.
#[derive(Debug)]
pub(super) struct ApiError {
    code: Code,
    status: StatusCode,
    message: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl ApiError {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        let challenge = (header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"neap\""));
        let headers = if code == Code::Unauthorized { vec![challenge] } else { Vec::new() };
        Self { code, status: code.status(), message: message.into(), headers }
    }

    /// The message of an error with its causes.
    pub(super) fn caused(code: Code, error: &dyn Error) -> Self {
        Self::new(code, chain(error))
    }

    pub(super) fn status(mut self, status: u16) -> Self {
        self.status = StatusCode::from_u16(status).unwrap_or(self.status);
        self
    }

    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// An error's text with those of its causes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::error!(status = self.status.as_u16(), error = %self.message, "registry request failed");
        }
        let body = json!({ "errors": [{ "code": self.code.name(), "message": self.message }] });
        let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        (self.status, HeaderMap::from_iter(self.headers), json, body.to_string()).into_response()
    }
}

impl From<DiskError> for ApiError {
    fn from(error: DiskError) -> Self {
        tracing::error!(error = %chain(&error), "the registry's disk failed");
        let text = match error.is_full() {
            true => "the registry's disk is full; free some space and try again",
            false => "the registry's disk failed; its log says how",
        };
        Self::new(Code::Storage, text)
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Disk(error) => error.into(),
            other => Self::caused(Code::Storage, &other).status(500),
        }
    }
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        let code = match error {
            UploadError::Disk(error) => return error.into(),
            UploadError::Unknown => Code::BlobUploadUnknown,
            UploadError::TooMany => Code::TooManyRequests,
            UploadError::Busy => Code::Conflict,
            UploadError::OutOfOrder { .. } => Code::RangeInvalid,
            UploadError::Length { .. } | UploadError::TooLarge => Code::SizeInvalid,
            UploadError::DigestMismatch { .. } => Code::DigestInvalid,
            UploadError::Body(_) => Code::BlobUploadInvalid,
        };
        let too_large = matches!(error, UploadError::TooLarge);
        let answer = Self::caused(code, &error);
        if too_large { answer.status(413) } else { answer }
    }
}

impl From<PutManifestError> for ApiError {
    fn from(error: PutManifestError) -> Self {
        let code = match error {
            PutManifestError::Disk(error) => return error.into(),
            PutManifestError::Manifest(_) => Code::ManifestInvalid,
            PutManifestError::DigestMismatch { .. } => Code::DigestInvalid,
            PutManifestError::BlobUnknown(_) => Code::ManifestBlobUnknown,
            PutManifestError::Size { .. } => Code::SizeInvalid,
            PutManifestError::TooManyTags | PutManifestError::TooManyReferrers { .. } => Code::Denied,
        };
        Self::caused(code, &error)
    }
}
