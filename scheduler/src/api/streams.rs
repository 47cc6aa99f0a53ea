//! Calls that answer line by line (NDJSON): logs, and the records of the usage ledger; and the sums of the latter.
//! Nothing is held in memory that the client has not asked for yet.

use super::{
    Api, Failed,
    extract::{Asked, NameOnly},
};
use crate::{cluster::FunctionKey, error::with_causes};
use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::{Stream, StreamExt as _, future, stream};
use neap_node::{LogEvent, LogFollower, UsageFilter};
use neap_sdk::{
    ErrorCode, FunctionName, Problem, TenantName,
    api::{FunctionUsage, LogLine},
};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;

const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");

fn lines<T: Serialize, E: Into<axum::BoxError>>(
    items: impl Stream<Item = Result<T, E>> + Send + 'static,
) -> Response {
    let bytes = items.map(|item| -> Result<Vec<u8>, axum::BoxError> {
        let mut line = serde_json::to_vec(&item.map_err(Into::into)?)?;
        line.push(b'\n');
        Ok(line)
    });
    ([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(bytes)).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogsQuery {
    #[serde(default)]
    tenant: TenantName,
    /// Present without a value, or `true`.
    follow: Option<String>,
    #[serde(default)]
    since_ms: u64,
}

impl LogsQuery {
    fn follows(&self) -> bool {
        self.follow.as_deref().is_some_and(|value| !matches!(value, "false" | "0"))
    }
}

pub(super) async fn logs(
    State(api): State<Api>,
    NameOnly(name): NameOnly,
    Asked(query): Asked<LogsQuery>,
) -> Result<Response, Failed> {
    let key = FunctionKey { tenant: query.tenant.clone(), name };
    let logs = api.node.logs();
    let known = api.scheduler.function(&key);
    if query.follows() {
        known?;
        let follower = logs.follow(&key.tenant, &key.name, query.since_ms);
        return Ok(lines(followed(follower, api.scheduler.left(key))));
    }
    // The log outlives its function.
    let kept = logs.tail(&key.tenant, &key.name, query.since_ms);
    if kept.is_empty() {
        known?;
    }
    Ok(lines(stream::iter(kept).map(|line| Ok::<_, Infallible>((*line).clone()))))
}

/// The log as it grows, until the function has `left`.
fn followed(
    follower: LogFollower,
    left: impl Future<Output = ()> + Send + 'static,
) -> impl Stream<Item = Result<LogLine, Infallible>> {
    stream::unfold((follower, Box::pin(left)), |(mut follower, mut left)| async move {
        let event = tokio::select! {
            // What was written before the function left is still told.
            biased;
            event = follower.next() => event?,
            () = &mut left => return None,
        };
        let line = match event {
            LogEvent::Line(line) => (*line).clone(),
            LogEvent::Lost(count) => lost_lines(count),
        };
        Some((Ok(line), (follower, left)))
    })
}

/// Tells a slow reader, in its own stream, what it missed.
fn lost_lines(count: u64) -> LogLine {
    LogLine {
        at_ms: crate::target::unix_ms(),
        revision: 0,
        instance: "-".to_owned(),
        stream: "stderr".to_owned(),
        text: format!("[neap: {count} lines are missing here, because they came faster than they were read]"),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UsageQuery {
    #[serde(default)]
    tenant: TenantName,
    function: Option<FunctionName>,
    #[serde(default)]
    since_ms: u64,
}

impl From<UsageQuery> for UsageFilter {
    fn from(UsageQuery { tenant, function, since_ms }: UsageQuery) -> Self {
        Self { tenant: Some(tenant), function, since_ms }
    }
}

fn unreadable(error: &dyn std::error::Error) -> Failed {
    Problem::new(ErrorCode::Storage, with_causes(error)).into()
}

pub(super) async fn usage(
    State(api): State<Api>,
    Asked(query): Asked<UsageQuery>,
) -> Result<Json<Vec<FunctionUsage>>, Failed> {
    let sums = api.node.usage().sums(query.into()).await;
    sums.map(Json).map_err(|error| unreadable(&error))
}

pub(super) async fn usage_records(
    State(api): State<Api>,
    Asked(query): Asked<UsageQuery>,
) -> Result<Response, Failed> {
    let mut records = api.node.usage().stream(query.into());
    // A ledger that cannot be read at all is a failure, not an answer that breaks off.
    let first = records.recv().await.transpose().map_err(|error| unreadable(&error))?;
    let rest = stream::unfold(records, |mut records| async move { Some((records.recv().await?, records)) });
    let first = stream::iter(first.map(Ok));
    let all = first.chain(rest).scan(false, |broken, record| {
        let ended = std::mem::replace(broken, record.is_err());
        future::ready((!ended).then_some(record))
    });
    Ok(lines(all))
}
