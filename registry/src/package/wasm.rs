//! A Wasm component or module as an OCI artifact in the CNCF layout.
//!
//! Source: CNCF TAG Runtime "Wasm OCI Artifact": one layer `application/wasm`, and a configuration that repeats
//! the layer's digest and names what the component imports and exports.

use super::{LocalArtifact, LocalBlob, PackageError, image::ManifestFile};
use crate::admission::component;
use bytes::Bytes;
use neap_sdk::{
    Digest,
    artifact::{ArtifactKind, media_type},
    limits,
};
use serde::Serialize;
use wasmparser::{BinaryReaderError, Parser, Payload};

/// Some readers of this layout insist on a time; a fixed one keeps the digest the same.
const CREATED: &str = "1970-01-01T00:00:00Z";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WasmConfig {
    created: &'static str,
    architecture: &'static str,
    os: &'static str,
    layer_digests: [Digest; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    component: Option<ComponentNames>,
}

#[derive(Serialize, Default)]
struct ComponentNames {
    exports: Vec<String>,
    imports: Vec<String>,
}

/// Packages the bytes of a `.wasm` file.
pub fn wasm(bytes: impl Into<Bytes>) -> Result<LocalArtifact, PackageError> {
    named("the Wasm program", bytes.into())
}

/// The same with the name of the file for messages.
pub(super) fn named(what: &str, bytes: Bytes) -> Result<LocalArtifact, PackageError> {
    let wrong = |reason| PackageError::Wasm { what: what.to_owned(), reason };
    if bytes.len() as u64 > limits::WASM_BYTES_MAX {
        let (size, max) = (bytes.len(), limits::WASM_BYTES_MAX);
        return Err(wrong(format!("it has {size} bytes; at most {max} are accepted")));
    }
    let kind = component::wasm_kind(&bytes).map_err(wrong)?;
    let (os, component) = match kind {
        ArtifactKind::WasmComponent => {
            let names = component_names(&bytes).map_err(|error| wrong(error.to_string()))?;
            ("wasip2", Some(names))
        }
        _ => ("wasip1", None),
    };
    let layer = LocalBlob::of(media_type::WASM_LAYER, bytes);
    let config =
        WasmConfig { created: CREATED, architecture: "wasm", os, layer_digests: [layer.digest], component };
    let config = serde_json::to_vec(&config).expect("strings and digests always serialise");
    let config = LocalBlob::of(media_type::WASM_CONFIG, config);
    let manifest = ManifestFile::new(config.descriptor(), vec![layer.descriptor()]).to_bytes();
    LocalArtifact::new(manifest, media_type::MANIFEST, vec![config, layer], None)
}

/// What a component itself imports and exports, without the components inside of it.
fn component_names(bytes: &[u8]) -> Result<ComponentNames, BinaryReaderError> {
    let mut names = ComponentNames::default();
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    names.imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    names.exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(names)
}
