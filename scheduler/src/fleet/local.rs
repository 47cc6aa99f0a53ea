//! The fleet of one machine: the node of this process, and the registry that tells where a release's files lie.

use super::{
    Body, CallError, ExitEvent, Fleet, FreezeError, InstanceExit, InvocationCall, NodeName, NodeState,
    RunningInstance, StartFailure, StartOrder, StartReport,
};
use futures_util::{future::BoxFuture, stream, stream::BoxStream};
use http::{Request, Response};
use neap_node::{Artifact, ArtifactLayer, Node, instance::State};
use neap_registry::Registry;
use neap_sdk::{InstanceId, artifact::ArtifactKind};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::broadcast::error::RecvError;

/// The node of this process.
pub struct LocalFleet {
    node: Node,
    registry: Registry,
    name: NodeName,
    memory_bytes: u64,
    /// What was promised to instances that are up.
    promised: Mutex<HashMap<InstanceId, u64>>,
}

impl LocalFleet {
    /// A fleet of this node, which runs what is in this registry.
    pub fn new(node: Node, registry: Registry) -> Self {
        // Placement on one machine only tells early what the node would refuse itself; unknown is no reason to refuse.
        let memory_bytes = neap_node::capacity::machine_memory_bytes().unwrap_or(u64::MAX);
        let promised = Mutex::default();
        Self { node, registry, name: NodeName("local".into()), memory_bytes, promised }
    }

    fn promised(&self) -> MutexGuard<'_, HashMap<InstanceId, u64>> {
        self.promised.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn artifact(&self, order: &StartOrder) -> Result<Artifact, StartFailure> {
        let releases = self.registry.releases();
        let release = releases.borrow().get(&order.repository, &order.digest).cloned();
        let Some(release) = release else {
            let StartOrder { repository, digest, .. } = order;
            let text = format!("{repository}@{digest} is not among the admitted releases; push it again");
            return Err(StartFailure { text });
        };
        let layers = release.layers.iter().map(|layer| ArtifactLayer {
            digest: layer.digest,
            media_type: layer.media_type.clone(),
            path: self.registry.blob_path(&layer.digest),
        });
        Ok(Artifact {
            digest: release.digest,
            kind: release.kind,
            config: self.registry.blob_path(&release.config),
            layers: layers.collect(),
        })
    }
}

impl Fleet for LocalFleet {
    fn nodes(&self) -> Vec<NodeState> {
        let up = self.node.instances();
        let mut promised = self.promised();
        promised.retain(|id, _| up.iter().any(|info| info.instance == *id));
        let memory_promised_bytes = promised.values().sum();
        let instances = up.len() as u32;
        vec![NodeState {
            name: self.name.clone(),
            memory_bytes: self.memory_bytes,
            memory_promised_bytes,
            instances,
        }]
    }

    fn start<'a>(
        &'a self,
        _node: &'a NodeName,
        order: StartOrder,
    ) -> BoxFuture<'a, Result<StartReport, StartFailure>> {
        Box::pin(async move {
            let artifact = self.artifact(&order)?;
            let memory_bytes = order.spec.memory_bytes;
            let start = neap_node::StartOrder { revision: order.revision, artifact, spec: order.spec };
            let started = self.node.start(start).await;
            let report = started.map_err(|failure| StartFailure { text: failure.to_string() })?;
            if order.kind == ArtifactKind::Image {
                self.promised().insert(report.instance, memory_bytes);
            }
            Ok(StartReport { instance: report.instance, took: report.took, pid: report.pid })
        })
    }

    fn call(
        &self,
        instance: InstanceId,
        request: Request<Body>,
        call: InvocationCall,
    ) -> BoxFuture<'_, Result<Response<Body>, CallError>> {
        Box::pin(async move {
            let call = neap_node::InvocationCall { request_id: call.request_id, cold: call.cold };
            let answer = self.node.call(instance, request, call).await;
            answer.map_err(|error| CallError::new(error.problem(), error.began()))
        })
    }

    fn freeze(&self, instance: InstanceId) -> BoxFuture<'_, Result<(), FreezeError>> {
        Box::pin(async move {
            self.node.freeze(instance).await.map_err(|error| FreezeError { text: error.to_string() })
        })
    }

    fn thaw(&self, instance: InstanceId) -> BoxFuture<'_, Result<(), FreezeError>> {
        Box::pin(async move {
            self.node.thaw(instance).await.map_err(|error| FreezeError { text: error.to_string() })
        })
    }

    fn stop(&self, instance: InstanceId) -> BoxFuture<'_, ()> {
        Box::pin(self.node.stop(instance))
    }

    fn exits(&self) -> BoxStream<'static, ExitEvent> {
        Box::pin(stream::unfold(self.node.exits(), |mut exits| async move {
            match exits.recv().await {
                Ok(exit) => {
                    let neap_node::InstanceExit { instance, revision, reason } = exit;
                    Some((ExitEvent::Ended(InstanceExit { instance, revision, reason }), exits))
                }
                Err(RecvError::Lagged(_)) => Some((ExitEvent::Lost, exits)),
                Err(RecvError::Closed) => None,
            }
        }))
    }

    fn instances(&self) -> Vec<RunningInstance> {
        let coming_or_gone =
            |state: &State| matches!(state, State::Starting | State::Aborting) || state.is_final();
        let up = self.node.instances().into_iter().filter(|info| !coming_or_gone(&info.state));
        up.map(|info| RunningInstance {
            instance: info.instance,
            revision: info.revision,
            frozen: info.state == State::Frozen,
            started_at_ms: info.started_at_ms,
            pid: info.pid,
        })
        .collect()
    }
}
