//! Answers that the gateway gives itself: RFC 9457 problem documents, always with a code, the request's id, and
//! where it helps a hint and a time to try again.

use crate::{host::HostError, limit::TooLarge};
use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
};
use neap_scheduler::{AcquireError, CallError};
use neap_sdk::{ErrorCode, FunctionName, Problem, id::RequestId, limits};
use std::time::Duration;

const X_NEAP_ERROR: HeaderName = HeaderName::from_static("x-neap-error");

/// A request that got no answer of a function: what the client is told instead.
#[derive(Debug)]
pub(crate) struct Refusal {
    problem: Box<Problem>,
    retry_after: Option<Duration>,
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem: Box::new(problem), retry_after: None }
    }
}

impl From<HostError> for Refusal {
    fn from(error: HostError) -> Self {
        let hint = "send exactly one Host header, like NAME.localhost:8080";
        Problem::new(ErrorCode::Invalid, error.to_string()).with_hint(hint).into()
    }
}

impl From<TooLarge> for Refusal {
    fn from(error: TooLarge) -> Self {
        let hint = "send less at once; the operator of this server sets the limit";
        Problem::new(ErrorCode::TooLarge, error.to_string()).with_hint(hint).into()
    }
}

impl From<AcquireError> for Refusal {
    fn from(error: AcquireError) -> Self {
        Self { problem: Box::new(error.problem()), retry_after: error.retry_after() }
    }
}

impl From<CallError> for Refusal {
    fn from(error: CallError) -> Self {
        error.problem().into()
    }
}

impl Refusal {
    /// No function answers there.
    pub(crate) fn no_route(host: &str) -> Self {
        let detail = format!("no function answers at this path of {host}");
        Problem::new(ErrorCode::NoRoute, detail)
            .with_hint("`neap ls` shows the functions and their URLs")
            .into()
    }

    /// The function has no revision to send a request to.
    pub(crate) fn no_revision(function: &FunctionName) -> Self {
        let detail = format!("function {function} has no revision that takes traffic");
        Problem::new(ErrorCode::NoRoute, detail).with_hint("deploy one with `neap push`").into()
    }

    /// The answer.
    pub(crate) fn into_response(self, request_id: &RequestId) -> Response<Bytes> {
        let Self { mut problem, retry_after } = self;
        problem.request_id = Some(request_id.to_string());
        let mut response = Response::new(Bytes::from(problem.to_json()));
        *response.status_mut() =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(Problem::MEDIA_TYPE));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_NEAP_ERROR, HeaderValue::from_static(problem.code.name()));
        if let Some(after) = retry_after.or_else(|| default_retry_after(problem.status)) {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

fn default_retry_after(status: u16) -> Option<Duration> {
    matches!(status, 429 | 503).then(|| Duration::from_secs(limits::RETRY_AFTER_S))
}
