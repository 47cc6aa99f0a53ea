//! Lets the registry ask the node whether an artifact can run here, before it becomes a release. The two do not
//! know each other; this is the wire between them, and no more.

use futures_util::future::BoxFuture;
use neap_node::{Artifact, Node, PrepareError};
use neap_registry::{Preparer, Registry, Release};
use neap_sdk::{ErrorCode, admission::Reason};
use std::sync::OnceLock;

/// Asks `node` about what lies in the registry.
pub struct NodePreparer {
    node: Node,
    /// Set once the registry is open; it needs its preparer before.
    registry: OnceLock<Registry>,
}

impl NodePreparer {
    /// A preparer that waits for its registry.
    pub fn new(node: Node) -> Self {
        Self { node, registry: OnceLock::new() }
    }

    /// Says where the blobs lie.
    pub fn set_registry(&self, registry: Registry) {
        drop(self.registry.set(registry));
    }
}

impl Preparer for NodePreparer {
    fn prepare<'a>(&'a self, release: &'a Release) -> BoxFuture<'a, Result<(), Reason>> {
        Box::pin(async move {
            let Some(registry) = self.registry.get() else {
                let text = "the server is starting; push again in a moment".to_owned();
                return Err(Reason { code: ErrorCode::EvidenceUnavailable, text });
            };
            let artifact = Artifact::of(release, |digest| registry.blob_path(digest));
            self.node.prepare(&artifact).await.map_err(|error| match error {
                PrepareError::Unsupported(text) => Reason { code: ErrorCode::Unsupported, text },
                PrepareError::Unavailable(text) => Reason { code: ErrorCode::EvidenceUnavailable, text },
            })
        })
    }
}
