//! The fleet of one machine over a real node and a real registry, as far as that goes without a release.

use crate::{
    api::{node, registry},
    harness::revision_id,
};
use neap_scheduler::fleet::{Fleet, LocalFleet, StartOrder};
use neap_sdk::{Digest, FunctionSpec, InstanceId, artifact::ArtifactKind};
use std::sync::Arc;

#[tokio::test]
async fn what_is_not_admitted_does_not_start_whatever_the_desired_state_says() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = LocalFleet::new(node(dir.path()), registry(dir.path()).await);
    let nodes = fleet.nodes();
    assert!(nodes[0].memory_bytes > 0 && nodes[0].memory_promised_bytes == 0);
    let order = StartOrder {
        revision: revision_id("hello", 1),
        repository: "app".parse().unwrap(),
        digest: Digest::of(b"never pushed"),
        kind: ArtifactKind::Image,
        spec: Arc::new(FunctionSpec::default()),
    };
    let failure = fleet.start(&nodes[0].name, order).await.unwrap_err();
    assert!(failure.text.contains("not among the admitted releases"), "{failure}");
    fleet.stop(InstanceId(7)).await;
    assert!(fleet.thaw(InstanceId(7)).await.is_err());
    assert!(fleet.instances().is_empty());
}
