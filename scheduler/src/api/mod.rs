//! The admin API: `/api/v1/…` as the table in [`neap_sdk::api`] has it. Parses, calls the scheduler, the registry or the
//! node, and writes what they answer; decides nothing. Who may call it is the platform's business.

mod extract;
mod functions;
mod keys;
mod streams;

pub use extract::Failed;

use crate::scheduler::Scheduler;
use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{Method, StatusCode, Uri},
    routing::{delete, get, post, put},
};
use neap_node::Node;
use neap_registry::Registry;
use neap_sdk::{ErrorCode, Problem, limits};

#[derive(Clone)]
struct Api {
    scheduler: Scheduler,
    /// Holds logs and usage.
    node: Node,
    /// Holds trusted keys.
    registry: Registry,
}

impl Scheduler {
    /// The admin API but for `/api/v1/server`, which whoever mounts it knows and adds. Callers were let in before.
    pub fn api(&self, node: Node, registry: Registry) -> Router {
        let functions = "/api/v1/functions";
        let of = |call: &str| format!("{functions}/{{name}}{call}");
        Router::new()
            .route(functions, get(functions::list))
            .route(&of(""), get(functions::show).delete(functions::delete))
            .route(&of("/deploy"), post(functions::deploy))
            .route(&of("/rollback"), post(functions::rollback))
            .route(&of("/traffic"), put(functions::traffic))
            .route(&of("/logs"), get(streams::logs))
            .route("/api/v1/usage", get(streams::usage))
            .route("/api/v1/usage/records", get(streams::usage_records))
            .route("/api/v1/verify", post(keys::verify))
            .route("/api/v1/keys", get(keys::list).post(keys::trust))
            .route("/api/v1/keys/{key_id}", delete(keys::revoke))
            .fallback(no_such_call)
            .method_not_allowed_fallback(no_such_method)
            .layer(DefaultBodyLimit::max(limits::ADMIN_BODY_BYTES_MAX))
            .with_state(Api { scheduler: self.clone(), node, registry })
    }
}

async fn no_such_call(uri: Uri) -> Failed {
    Problem::new(ErrorCode::NotFound, format!("the admin API has no {}", uri.path())).into()
}

async fn no_such_method(method: Method, uri: Uri) -> Failed {
    let problem = Problem::new(ErrorCode::Invalid, format!("{} does not take {method}", uri.path()));
    Problem { status: StatusCode::METHOD_NOT_ALLOWED.as_u16(), ..problem }.into()
}
