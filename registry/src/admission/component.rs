//! Cheap checks of the artifact itself, before anything is compiled or unpacked: which kind it is, that the
//! manifest, the configuration and the bytes agree, and that a handler is exported for the platform to call.
//!
//! The kind is decided from the bytes. What a configuration claims may only contradict it, never decide. Imports
//! are left to the runtime, which knows what it offers.
//! Sources: CNCF "Wasm OCI Artifact" layout, OCI image-spec `config.md`, WASI 0.2 and 0.3 `wasi:http`.

use super::{
    ContentStore, ReadError, discover,
    strict::{self, Twins},
};
use crate::manifest::{Descriptor, ImageManifest};
use neap_sdk::{
    Digest, ErrorCode,
    admission::Reason,
    artifact::{ArtifactKind, Repository, media_type},
    limits::{CONFIG_BYTES_MAX, IMAGE_LAYERS_MAX, WASM_BYTES_MAX},
};
use serde::Deserialize;
use wasmparser::{Encoding, ExternalKind, Parser, Payload};

/// What an artifact was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// Its kind.
    pub kind: ArtifactKind,
    /// Its configuration.
    pub config: Descriptor,
    /// Its layers, lowest first.
    pub layers: Vec<Descriptor>,
}

/// Why an artifact cannot run here.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The artifact itself is the reason; the text says what to do.
    #[error("{0}")]
    Unsupported(String),
    /// A part of it could not be read; nothing was decided.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl InspectError {
    /// The refusal that it leads to.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unsupported(text) => Reason { code: ErrorCode::Unsupported, text: text.clone() },
            Self::Read(error) => error.reason(),
        }
    }
}

fn unsupported<T>(text: impl Into<String>) -> Result<T, InspectError> {
    Err(InspectError::Unsupported(text.into()))
}

const LAYER_TYPES: [&str; 5] = [
    media_type::LAYER_TAR,
    media_type::LAYER_TAR_GZIP,
    media_type::LAYER_TAR_ZSTD,
    media_type::DOCKER_LAYER_TAR_GZIP,
    "application/vnd.docker.image.rootfs.diff.tar",
];

/// Inspects the artifact of `manifest`, whose bytes the caller verified. Reads the configuration, and for Wasm
/// the one layer.
pub async fn inspect(
    store: &dyn ContentStore,
    repository: &Repository,
    manifest: &[u8],
) -> Result<Inspected, InspectError> {
    let manifest = discover::image_manifest(manifest).map_err(InspectError::Unsupported)?;
    let kind = match manifest.config.media_type.as_str() {
        media_type::WASM_CONFIG => wasm(store, repository, &manifest).await?,
        media_type::IMAGE_CONFIG | media_type::DOCKER_IMAGE_CONFIG => {
            image(store, repository, &manifest).await?
        }
        other => {
            let other: String = other.chars().take(120).collect();
            return unsupported(format!(
                "its configuration is {other:?}: neither a container image nor a Wasm artifact in the CNCF \
                 layout ({}); push the .wasm file or the image with `neap push`",
                media_type::WASM_CONFIG
            ));
        }
    };
    Ok(Inspected { kind, config: manifest.config, layers: manifest.layers })
}

async fn part(
    store: &dyn ContentStore,
    repository: &Repository,
    (what, descriptor): (&str, &Descriptor),
    bytes_max: u64,
) -> Result<bytes::Bytes, InspectError> {
    if descriptor.size > bytes_max {
        let size = descriptor.size;
        return unsupported(format!("its {what} has {size} bytes; at most {bytes_max} are accepted"));
    }
    match discover::blob(store, repository, descriptor).await? {
        Some(bytes) => Ok(bytes),
        None => unsupported(format!(
            "its {what} {} is missing or has another size; push it again",
            descriptor.digest
        )),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WasmConfig {
    architecture: String,
    os: String,
    layer_digests: Vec<Digest>,
}

async fn wasm(
    store: &dyn ContentStore,
    repository: &Repository,
    manifest: &ImageManifest,
) -> Result<ArtifactKind, InspectError> {
    let [layer] = manifest.layers.as_slice() else {
        return unsupported(format!("a Wasm artifact has one layer; this one has {}", manifest.layers.len()));
    };
    if layer.media_type != media_type::WASM_LAYER {
        return unsupported(format!("its layer is {:.120?}, not application/wasm", layer.media_type));
    }
    let config = part(store, repository, ("configuration", &manifest.config), CONFIG_BYTES_MAX).await?;
    let config: WasmConfig = match strict::from_slice(&config, Twins::Exact) {
        Ok(config) => config,
        Err(error) => return unsupported(format!("its Wasm configuration is {error}")),
    };
    if config.architecture != "wasm" {
        return unsupported(format!(
            "its configuration says architecture {:.40?}, not wasm",
            config.architecture
        ));
    }
    if config.layer_digests != [layer.digest] {
        return unsupported("its configuration and its manifest list different layers");
    }
    let bytes = part(store, repository, ("Wasm layer", layer), WASM_BYTES_MAX).await?;
    let kind = wasm_kind(&bytes).map_err(InspectError::Unsupported)?;
    if (kind == ArtifactKind::WasmComponent) == (config.os == "wasip1") {
        return unsupported(format!(
            "its configuration says os {:.40?}, but the bytes are a {kind}",
            config.os
        ));
    }
    Ok(kind)
}

/// Tells a component from a module and checks that it exports what the platform calls: a `wasi:http` handler,
/// or `_start`. The error says what the bytes are instead, and what to do.
pub fn wasm_kind(bytes: &[u8]) -> Result<ArtifactKind, String> {
    if !bytes.starts_with(b"\0asm") {
        return Err("it is not WebAssembly: the file does not begin with \\0asm".to_owned());
    }
    let mut encoding = None;
    let mut depth = 0_u32;
    let mut exports: Vec<String> = Vec::new();
    let mut has_start = false;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(|error| format!("the Wasm bytes are damaged or cut off: {error}"))? {
            Payload::Version { encoding: found, .. } => {
                encoding.get_or_insert(found);
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    let export =
                        export.map_err(|error| format!("the component's exports are damaged: {error}"))?;
                    exports.push(export.name.name.to_owned());
                }
            }
            Payload::ExportSection(section) if depth == 0 => {
                for export in section {
                    let export =
                        export.map_err(|error| format!("the module's exports are damaged: {error}"))?;
                    has_start |= export.name == "_start" && export.kind == ExternalKind::Func;
                }
            }
            _ => {}
        }
    }
    match encoding {
        Some(Encoding::Component) if exports.iter().any(|name| is_handler(name)) => {
            Ok(ArtifactKind::WasmComponent)
        }
        Some(Encoding::Component) => Err(format!(
            "the component exports no wasi:http handler (wasi:http/incoming-handler@0.2 or wasi:http/handler@0.3); \
             it exports {}",
            shown(&exports)
        )),
        Some(Encoding::Module) if has_start => Ok(ArtifactKind::WasmModule),
        Some(Encoding::Module) => Err(
            "the module has no _start: build it as a WASI command (target wasm32-wasip1), or as a component \
                 with a wasi:http handler"
                .to_owned(),
        ),
        None => Err("the Wasm bytes are cut off before the first section".to_owned()),
    }
}

fn is_handler(export: &str) -> bool {
    export.starts_with("wasi:http/incoming-handler@0.2.") || export.starts_with("wasi:http/handler@0.3.")
}

fn shown(exports: &[String]) -> String {
    const SHOWN_MAX: usize = 8;
    match exports {
        [] => "nothing".to_owned(),
        names => {
            let names: Vec<String> = names.iter().take(SHOWN_MAX).map(|name| format!("{name:.80}")).collect();
            names.join(", ")
        }
    }
}

#[derive(Deserialize)]
struct ImageConfig {
    architecture: String,
    os: String,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

async fn image(
    store: &dyn ContentStore,
    repository: &Repository,
    manifest: &ImageManifest,
) -> Result<ArtifactKind, InspectError> {
    if manifest.layers.is_empty() || manifest.layers.len() > IMAGE_LAYERS_MAX {
        let count = manifest.layers.len();
        return unsupported(format!("the image has {count} layers; 1 to {IMAGE_LAYERS_MAX} are accepted"));
    }
    if let Some(other) =
        manifest.layers.iter().find(|layer| !LAYER_TYPES.contains(&layer.media_type.as_str()))
    {
        return unsupported(format!(
            "the image has a layer of type {:.120?}, which is no file tree",
            other.media_type
        ));
    }
    let config = part(store, repository, ("configuration", &manifest.config), CONFIG_BYTES_MAX).await?;
    let config: ImageConfig = match strict::from_slice(&config, Twins::Exact) {
        Ok(config) => config,
        Err(error) => return unsupported(format!("the image's configuration is {error}")),
    };
    let here = host_architecture();
    if config.os != "linux" || config.architecture != here {
        return unsupported(format!(
            "the image is for {:.40}/{:.40}; this server runs linux/{here}: build it with `--platform linux/{here}`",
            config.os, config.architecture
        ));
    }
    if config.rootfs.diff_ids.len() != manifest.layers.len() {
        return unsupported(format!(
            "the image's configuration lists {} layers and its manifest {}",
            config.rootfs.diff_ids.len(),
            manifest.layers.len()
        ));
    }
    Ok(ArtifactKind::Image)
}

/// This machine's architecture in Go's words.
fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
