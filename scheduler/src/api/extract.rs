//! How requests are read and failures written: every malformed part becomes a problem document that names it.

use crate::cluster::FunctionKey;
use axum::{
    Json, RequestPartsExt as _,
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::JsonRejection},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use neap_sdk::{ErrorCode, FunctionName, Problem, TenantName};
use serde::{Deserialize, de::DeserializeOwned};

/// Names the stable code of a failure, for clients that do not read bodies.
const ERROR_HEADER: &str = "x-neap-error";

/// A failure as a problem document.
#[derive(Debug, Clone)]
pub struct Failed(Box<Problem>);

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let Self(problem) = self;
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static(Problem::MEDIA_TYPE)),
            (header::HeaderName::from_static(ERROR_HEADER), HeaderValue::from_static(problem.code.name())),
        ];
        (status, headers, problem.to_json()).into_response()
    }
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

fn invalid(text: impl Into<String>) -> Failed {
    Problem::new(ErrorCode::Invalid, text).into()
}

/// The query of a call. Its type denies unknown fields, or a misspelt filter would be none, and has a `tenant`.
pub(super) struct Asked<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + 'static> FromRequestParts<S> for Asked<T> {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failed> {
        match parts.extract::<Query<T>>().await {
            Ok(Query(query)) => Ok(Self(query)),
            Err(rejection) => Err(invalid(format!("the query is malformed: {}", rejection.body_text()))),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantQuery {
    #[serde(default)]
    tenant: TenantName,
}

/// Whose things a call is about that takes no other query: `?tenant=NAME`, or the default tenant.
pub(super) struct Tenant(pub TenantName);

impl<S: Send + Sync> FromRequestParts<S> for Tenant {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failed> {
        let Asked(query) = Asked::<TenantQuery>::from_request_parts(parts, state).await?;
        Ok(Self(query.tenant))
    }
}

/// The name in a path. Whose function it is, the query tells.
pub(super) struct NameOnly(pub FunctionName);

impl<S: Send + Sync> FromRequestParts<S> for NameOnly {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failed> {
        let path = parts.extract::<Path<String>>().await;
        let Path(name) = path.map_err(|rejection| invalid(rejection.body_text()))?;
        Ok(Self(name.parse().map_err(|error| invalid(format!("{error}")))?))
    }
}

/// The function that a path names, in a call without a query but for the tenant.
pub(super) struct Named(pub FunctionKey);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failed> {
        let Tenant(tenant) = Tenant::from_request_parts(parts, state).await?;
        let NameOnly(name) = NameOnly::from_request_parts(parts, state).await?;
        Ok(Self(FunctionKey { tenant, name }))
    }
}

/// A JSON body, whatever media type the client names for it.
pub(super) struct JsonBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + 'static> FromRequest<S> for JsonBody<T> {
    type Rejection = Failed;

    async fn from_request(mut request: Request, state: &S) -> Result<Self, Failed> {
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
        match Json::<T>::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(rejection) => Err(refused_body(&rejection)),
        }
    }
}

fn refused_body(rejection: &JsonRejection) -> Failed {
    let code = match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::TooLarge,
        _ => ErrorCode::Invalid,
    };
    Problem::new(code, rejection.body_text()).into()
}
