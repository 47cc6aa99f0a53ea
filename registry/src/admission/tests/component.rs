//! The artifact itself: kinds, and what contradicts itself or cannot run here.

use super::MemoryStore;
use crate::{
    admission::component::{InspectError, inspect, wasm_kind},
    manifest::Descriptor,
};
use neap_sdk::{
    ErrorCode,
    artifact::{ArtifactKind, Repository, media_type},
};
use serde_json::{Value, json};

const MODULE: &[u8] = b"\0asm\x01\0\0\0\
    \x01\x04\x01\x60\0\0\
    \x03\x02\x01\0\
    \x07\x0a\x01\x06_start\0\0\
    \x0a\x04\x01\x02\0\x0b";

/// A component that exports one empty instance under `name`.
fn component(name: &str) -> Vec<u8> {
    let mut export = vec![1, 0, u8::try_from(name.len()).unwrap()];
    export.extend_from_slice(name.as_bytes());
    export.extend_from_slice(&[5, 0, 0]);
    let mut bytes = b"\0asm\x0d\0\x01\0\x05\x03\x01\x01\0\x0b".to_vec();
    bytes.push(u8::try_from(export.len()).unwrap());
    bytes.extend(export);
    bytes
}

#[test]
fn the_bytes_decide_the_kind() {
    for handler in
        ["wasi:http/incoming-handler@0.2.0", "wasi:http/incoming-handler@0.2.7", "wasi:http/handler@0.3.0"]
    {
        assert_eq!(wasm_kind(&component(handler)), Ok(ArtifactKind::WasmComponent), "{handler}");
    }
    assert_eq!(wasm_kind(MODULE), Ok(ArtifactKind::WasmModule));
    let refused = |bytes: &[u8]| wasm_kind(bytes).expect_err("must be refused");
    assert!(refused(b"#!/bin/sh").contains("not WebAssembly"));
    assert!(refused(b"").contains("not WebAssembly"));
    assert!(refused(&component("wasi:cli/run@0.2.0")).contains("exports wasi:cli/run@0.2.0"));
    assert!(refused(b"\0asm\x01\0\0\0").contains("no _start"));
    assert!(refused(b"\0asm\x0d\0\x01\0").contains("exports nothing"));
    for length in 4..MODULE.len() {
        // Cut exactly between two sections it is a shorter module, which then lacks its export or its code.
        let cut = wasm_kind(&MODULE[..length]);
        assert!(cut.is_err() || length == MODULE.len() - 6, "{length} bytes: {cut:?}");
    }
    let whole = component("wasi:http/incoming-handler@0.2.0");
    for length in 4..whole.len() {
        assert!(wasm_kind(&whole[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn only_the_outermost_exports_count() {
    let inner = component("wasi:http/incoming-handler@0.2.0");
    let mut outer = b"\0asm\x0d\0\x01\0\x04".to_vec();
    outer.push(u8::try_from(inner.len()).unwrap());
    outer.extend(inner);
    assert!(wasm_kind(&outer).expect_err("must be refused").contains("exports nothing"));
}

struct Artifact {
    config_type: &'static str,
    config: Value,
    layers: Vec<Descriptor>,
}

impl Artifact {
    fn wasm(store: &mut MemoryStore, bytes: &[u8], os: &str) -> Self {
        let layer = Descriptor::of(media_type::WASM_LAYER, bytes);
        store.put(bytes.to_vec());
        let config = json!({ "architecture": "wasm", "os": os, "layerDigests": [layer.digest] });
        Self { config_type: media_type::WASM_CONFIG, config, layers: vec![layer] }
    }

    fn image(architecture: &str) -> Self {
        let layer = Descriptor::of(media_type::LAYER_TAR, b"tar");
        let rootfs = json!({ "type": "layers", "diff_ids": [layer.digest] });
        let config = json!({ "architecture": architecture, "os": "linux", "rootfs": rootfs });
        Self { config_type: media_type::IMAGE_CONFIG, config, layers: vec![layer] }
    }

    async fn inspect(&self, store: &MemoryStore) -> Result<ArtifactKind, InspectError> {
        let mut store = store.clone();
        let config = self.config.to_string();
        store.put(config.clone());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type::MANIFEST,
            "config": Descriptor::of(self.config_type, config.as_bytes()),
            "layers": self.layers,
        });
        let repository: Repository = "team/app".parse().unwrap();
        inspect(&store, &repository, manifest.to_string().as_bytes()).await.map(|found| found.kind)
    }
}

fn host() -> &'static str {
    if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }
}

#[tokio::test]
async fn what_agrees_with_itself_is_accepted() {
    let mut store = MemoryStore::default();
    let bytes = component("wasi:http/handler@0.3.0");
    let wasm = Artifact::wasm(&mut store, &bytes, "wasip2");
    assert_eq!(wasm.inspect(&store).await.unwrap(), ArtifactKind::WasmComponent);
    let module = Artifact::wasm(&mut store, MODULE, "wasip1");
    assert_eq!(module.inspect(&store).await.unwrap(), ArtifactKind::WasmModule);
    assert_eq!(Artifact::image(host()).inspect(&store).await.unwrap(), ArtifactKind::Image);
}

#[tokio::test]
async fn what_contradicts_itself_is_not() {
    let mut store = MemoryStore::default();
    let bytes = component("wasi:http/handler@0.3.0");
    let mut cases: Vec<(&str, Artifact)> = Vec::new();
    let mut other = Artifact::wasm(&mut store, &bytes, "wasip2");
    other.config["layerDigests"] = json!([]);
    cases.push(("different layers", other));
    cases.push(("says os \"wasip1\"", Artifact::wasm(&mut store, &bytes, "wasip1")));
    let mut other = Artifact::wasm(&mut store, &bytes, "wasip2");
    other.config["architecture"] = json!("amd64");
    cases.push(("architecture", other));
    let mut other = Artifact::wasm(&mut store, &bytes, "wasip2");
    other.layers.push(other.layers[0].clone());
    cases.push(("one layer", other));
    let mut other = Artifact::wasm(&mut store, &bytes, "wasip2");
    other.layers[0].size -= 1;
    cases.push(("another size", other));
    cases.push(("not WebAssembly", Artifact::wasm(&mut store, b"ELF", "wasip2")));
    let mut other = Artifact::image(host());
    other.config["os"] = json!("windows");
    cases.push(("windows", other));
    cases.push(("s390x", Artifact::image("s390x")));
    let mut other = Artifact::image(host());
    other.config["rootfs"]["diff_ids"] = json!([]);
    cases.push(("lists 0 layers", other));
    let mut other = Artifact::image(host());
    other.layers.clear();
    cases.push(("0 layers", other));
    let mut other = Artifact::image(host());
    other.layers[0].media_type = media_type::WASM_LAYER.to_owned();
    cases.push(("no file tree", other));
    let mut other = Artifact::image(host());
    other.config_type = "application/vnd.cncf.helm.config.v1+json";
    cases.push(("helm", other));
    for (needed, artifact) in cases {
        let error = artifact.inspect(&store).await.expect_err(needed);
        assert_eq!(error.reason().code, ErrorCode::Unsupported);
        assert!(error.to_string().contains(needed), "{needed:?} is missing in: {error}");
    }
}

#[tokio::test]
async fn a_store_that_fails_decides_nothing() {
    let store = MemoryStore { broken: true, ..MemoryStore::default() };
    let error = Artifact::image(host()).inspect(&store).await.expect_err("nothing can be read");
    assert_eq!(error.reason().code, ErrorCode::EvidenceUnavailable);
}
