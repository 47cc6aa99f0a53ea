//! The steps of one call, inline on the caller's task: find, enter, begin the record, call, hand the body on.
//! No lock is held across an await, and nothing is spawned.

use super::{
    CallError, InvocationCall,
    body::{CountedBody, MeteredBody},
};
use crate::{
    Body,
    instance::pool::{Cell, Running},
    meter::recorder::Recorder,
    node::Shared,
    runtime::RuntimeCall,
};
use http::{HeaderMap, Method, Request, Response, StatusCode, header::CONTENT_LENGTH};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use neap_sdk::{InstanceId, artifact::ArtifactKind};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until, timeout};

/// How long a call that was cut off waits for word that its instance has ended: the broken connection is often
/// seen a moment before the exit, and only the exit says why.
const EXIT_NOTICE_WAIT: Duration = Duration::from_millis(50);

/// See [`crate::Node::call`].
pub(crate) async fn invoke(
    shared: &Arc<Shared>,
    instance: InstanceId,
    request: Request<Body>,
    call: InvocationCall,
) -> Result<Response<Body>, CallError> {
    let cell = shared.pool.get(instance).ok_or(CallError::NoInstance(instance))?;
    let ticket = cell.enter().await?;
    // The gate opens only after the driver has set this.
    let running = cell.running.get().ok_or(CallError::NoInstance(instance))?;
    let mut recorder = Recorder::begin(shared, &cell, ticket, call);
    let timeout_ms = cell.spec.timeout_ms;
    let deadline = Instant::now() + Duration::from_millis(timeout_ms);
    let head_only = request.method() == Method::HEAD;

    match head(&cell, running, &recorder, request, deadline).await {
        Ok(response) => {
            recorder.status = response.status().as_u16();
            Ok(metered(response, recorder, deadline, timeout_ms, head_only))
        }
        Err(error) => {
            recorder.status = error.code().status();
            recorder.finish();
            Err(error)
        }
    }
}

/// Waits for the response's head, the deadline, or the instance's end.
async fn head(
    cell: &Cell,
    running: &Running,
    recorder: &Recorder,
    request: Request<Body>,
    deadline: Instant,
) -> Result<Response<Body>, CallError> {
    let timeout_ms = cell.spec.timeout_ms;
    let meter = recorder.meter();
    let call = RuntimeCall { timeout: Duration::from_millis(timeout_ms), meter: meter.clone() };
    let request = request.map(|body| CountedBody::wrap(body, meter));
    let result = tokio::select! {
        biased;
        result = running.instance.call(request, call) => result,
        () = cell.ended.cancelled() => Err(CallError::Failed(cell.end_reason().to_string())),
        () = sleep_until(deadline) => Err(CallError::Timeout { timeout_ms }),
    };
    match result {
        Err(CallError::Failed(reason)) if cell.kind == ArtifactKind::Image => {
            let ended = timeout(EXIT_NOTICE_WAIT, cell.ended.cancelled()).await;
            Err(CallError::Failed(if ended.is_ok() { cell.end_reason().to_string() } else { reason }))
        }
        result => result,
    }
}

fn metered(
    response: Response<Body>,
    mut recorder: Recorder,
    deadline: Instant,
    timeout_ms: u64,
    head_only: bool,
) -> Response<Body> {
    let length = content_length(response.headers());
    let bodyless = matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    // No frame of such a body is ever asked for, so the response ends with its head.
    if head_only || bodyless || length == Some(0) || response.body().is_end_stream() {
        recorder.finish();
    }
    response.map(|inner| MeteredBody::new(inner, recorder, deadline, timeout_ms, length).boxed_unsync())
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
