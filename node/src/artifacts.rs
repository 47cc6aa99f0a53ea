//! What a runtime needs to know of an admitted artifact: its kind and where its verified files lie.
//! Copies nothing: the registry's blobs are read in place. Must not decide what may run.

use neap_registry::Release;
use neap_sdk::{Digest, artifact::ArtifactKind};
use std::path::PathBuf;

/// An admitted artifact as files on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// The manifest that runs; the name under which runtimes cache what they make of it.
    pub digest: Digest,
    /// What it is.
    pub kind: ArtifactKind,
    /// The configuration blob.
    pub config: PathBuf,
    /// The layers, lowest first; exactly one for Wasm.
    pub layers: Vec<ArtifactLayer>,
}

/// One layer of an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactLayer {
    /// Of its bytes.
    pub digest: Digest,
    /// How they are packed.
    pub media_type: String,
    /// Where they lie.
    pub path: PathBuf,
}

impl Artifact {
    /// The files of an admitted release; `blob_path` says where the registry keeps a blob.
    pub fn of(release: &Release, blob_path: impl Fn(&Digest) -> PathBuf) -> Self {
        let layers = release.layers.iter().map(|layer| ArtifactLayer {
            digest: layer.digest,
            media_type: layer.media_type.clone(),
            path: blob_path(&layer.digest),
        });
        Self {
            digest: release.digest,
            kind: release.kind,
            config: blob_path(&release.config),
            layers: layers.collect(),
        }
    }
}
