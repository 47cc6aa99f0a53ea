//! Calls about functions: deploy, show, roll back, shift traffic, delete.

use super::{
    Api, Failed,
    extract::{JsonBody, Named, Tenant},
};
use crate::{cluster::ClusterError, deploy::DeployError, scheduler::ChangeError};
use axum::{Json, body::Bytes, extract::State, http::StatusCode};
use neap_sdk::{
    ErrorCode, Problem,
    api::{DeployRequest, FunctionView, RollbackRequest, TrafficShare},
};

type Answer<T> = Result<Json<T>, Failed>;

impl From<DeployError> for Failed {
    fn from(error: DeployError) -> Self {
        error.problem().into()
    }
}

impl From<ChangeError> for Failed {
    fn from(error: ChangeError) -> Self {
        error.problem().into()
    }
}

impl From<ClusterError> for Failed {
    fn from(error: ClusterError) -> Self {
        error.problem().into()
    }
}

pub(super) async fn list(State(api): State<Api>, Tenant(tenant): Tenant) -> Json<Vec<FunctionView>> {
    Json(api.scheduler.functions(&tenant))
}

pub(super) async fn show(State(api): State<Api>, Named(key): Named) -> Answer<FunctionView> {
    Ok(Json(api.scheduler.function(&key)?))
}

pub(super) async fn deploy(
    State(api): State<Api>,
    Named(key): Named,
    JsonBody(request): JsonBody<DeployRequest>,
) -> Answer<FunctionView> {
    Ok(Json(api.scheduler.deploy(&key, request).await?))
}

pub(super) async fn rollback(State(api): State<Api>, Named(key): Named, body: Bytes) -> Answer<FunctionView> {
    // No body at all means: to where it was before.
    let body: &[u8] = if body.is_empty() { b"{}" } else { &body };
    let request: RollbackRequest = serde_json::from_slice(body)
        .map_err(|error| Problem::new(ErrorCode::Invalid, format!("the body is malformed: {error}")))?;
    Ok(Json(api.scheduler.rollback(&key, request.revision).await?))
}

pub(super) async fn traffic(
    State(api): State<Api>,
    Named(key): Named,
    JsonBody(shares): JsonBody<Vec<TrafficShare>>,
) -> Answer<FunctionView> {
    Ok(Json(api.scheduler.set_traffic(&key, &shares).await?))
}

pub(super) async fn delete(State(api): State<Api>, Named(key): Named) -> Result<StatusCode, Failed> {
    api.scheduler.delete(&key).await?;
    Ok(StatusCode::NO_CONTENT)
}
