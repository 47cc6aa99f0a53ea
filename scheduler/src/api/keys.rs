//! Calls about trust: verify, and the trusted keys.

use super::{
    Api, Failed,
    extract::{JsonBody, Tenant},
};
use crate::{error::with_causes, target::unix_ms};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use neap_registry::{Registry, keys::TrustError};
use neap_sdk::{
    ErrorCode, Problem,
    admission::Verdict,
    api::{KeyView, TrustKeyRequest, VerifyRequest},
    artifact::TagOrDigest,
};

pub(super) async fn verify(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    JsonBody(request): JsonBody<VerifyRequest>,
) -> Result<Json<Verdict>, Failed> {
    let VerifyRequest { repository, target } = request;
    if repository.tenant().as_ref() != Some(&tenant) {
        let text = format!("{repository} does not belong to tenant {tenant}");
        return Err(Problem::new(ErrorCode::Forbidden, text).into());
    }
    let target: TagOrDigest =
        target.parse().map_err(|error| Problem::new(ErrorCode::Invalid, format!("{error}")))?;
    let verdict = api.scheduler.inner.admissions.verify(&repository, &target).await;
    Ok(Json(verdict.map_err(|error| error.problem())?))
}

/// The keys are files: whoever reads or writes them blocks.
async fn with_keys<T: Send + 'static>(
    api: &Api,
    work: impl FnOnce(&Registry) -> Result<T, Failed> + Send + 'static,
) -> Result<T, Failed> {
    let registry = api.registry.clone();
    let stopped = |_| Problem::new(ErrorCode::Draining, "the server is stopping").into();
    tokio::task::spawn_blocking(move || work(&registry)).await.unwrap_or_else(|join| Err(stopped(join)))
}

pub(super) async fn list(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
) -> Result<Json<Vec<KeyView>>, Failed> {
    let views = with_keys(&api, move |registry| {
        Ok(registry.keys().list(&tenant).iter().map(|key| key.view()).collect())
    });
    views.await.map(Json)
}

pub(super) async fn trust(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    JsonBody(request): JsonBody<TrustKeyRequest>,
) -> Result<Json<KeyView>, Failed> {
    let view = with_keys(&api, move |registry| {
        let trusted = registry.keys().trust(&tenant, &request.name, &request.pem, unix_ms());
        trusted.map(|key| key.view()).map_err(|error| {
            let code = match &error {
                TrustError::Disk(_) => ErrorCode::Storage,
                _ => ErrorCode::Invalid,
            };
            Problem::new(code, with_causes(&error)).into()
        })
    });
    view.await.map(Json)
}

pub(super) async fn revoke(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    Path(key_id): Path<String>,
) -> Result<StatusCode, Failed> {
    with_keys(&api, move |registry| match registry.keys().revoke(&tenant, &key_id) {
        Ok(true) => Ok(StatusCode::NO_CONTENT),
        Ok(false) => {
            let text = format!("tenant {tenant} trusts no key of its own with the id {key_id}");
            Err(Problem::new(ErrorCode::NotFound, text).into())
        }
        Err(error) => Err(Problem::new(ErrorCode::Storage, with_causes(&error)).into()),
    })
    .await
}
