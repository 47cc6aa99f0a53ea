//! Packaging: the same input makes the same digest, every kind of input is recognised, bad input is explained.

use crate::{
    chunks::executable,
    harness::{command, component, component_exporting},
};
use neap_registry::{
    manifest::{Descriptor, Manifest},
    package::{self, Content, LocalArtifact},
};
use neap_sdk::{
    Digest,
    artifact::{ArtifactKind, media_type},
};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

fn file(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(&path, bytes).expect("written");
    path
}

fn bytes_of(artifact: &LocalArtifact, digest: Digest) -> Vec<u8> {
    let blob = artifact.blobs.iter().find(|blob| blob.digest == digest).expect("the blob");
    match &blob.content {
        Content::Bytes(bytes) => bytes.to_vec(),
        Content::File(path) => fs::read(path).expect("readable"),
    }
}

/// Writes an artifact as an OCI layout.
fn layout(dir: &Path, artifact: &LocalArtifact) {
    file(dir, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    let index = json!({ "schemaVersion": 2, "manifests": [artifact.descriptor()] });
    file(dir, "index.json", index.to_string().as_bytes());
    file(dir, &format!("blobs/sha256/{}", artifact.digest.hex()), &artifact.manifest);
    for blob in &artifact.blobs {
        file(dir, &format!("blobs/sha256/{}", blob.digest.hex()), &bytes_of(artifact, blob.digest));
    }
}

fn tar_of(dir: &Path, to: &Path) {
    let mut archive = tar::Builder::new(fs::File::create(to).expect("a file"));
    archive.append_dir_all(".", dir).expect("archived");
    archive.finish().expect("archived");
}

#[test]
fn wasm_is_packaged_in_the_cncf_layout() {
    let dir = tempfile::tempdir().expect("a folder");
    // The name does not matter, the bytes do.
    let artifact = package::package(&file(dir.path(), "hello.bin", &component(3))).expect("packaged");
    assert_eq!(artifact.kind, ArtifactKind::WasmComponent);
    assert_eq!(artifact.digest, package::wasm(component(3)).expect("packaged").digest, "reproducible");
    let Ok(Manifest::Image(manifest)) = Manifest::parse(&artifact.manifest, media_type::MANIFEST) else {
        panic!("an image manifest");
    };
    assert_eq!(manifest.config.media_type, media_type::WASM_CONFIG);
    assert_eq!(manifest.layers, [Descriptor::of(media_type::WASM_LAYER, &component(3))]);
    let config: Value = serde_json::from_slice(&bytes_of(&artifact, manifest.config.digest)).expect("JSON");
    assert_eq!((&config["architecture"], &config["os"]), (&json!("wasm"), &json!("wasip2")));
    assert_eq!(config["layerDigests"], json!([manifest.layers[0].digest]));
    assert_eq!(config["component"]["exports"], json!(["wasi:http/incoming-handler@0.2.3"]));

    let module = package::wasm(command()).expect("packaged");
    assert_eq!(module.kind, ArtifactKind::WasmModule);
}

#[test]
fn a_static_executable_becomes_an_image() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = executable(dir.path(), 0);
    let artifact = package::package(&path).expect("packaged");
    assert_eq!(artifact.kind, ArtifactKind::Image);
    assert_eq!(artifact.digest, package::static_image(&path).expect("packaged").digest, "reproducible");
    let Ok(Manifest::Image(manifest)) = Manifest::parse(&artifact.manifest, media_type::MANIFEST) else {
        panic!("an image manifest");
    };
    let config: Value = serde_json::from_slice(&bytes_of(&artifact, manifest.config.digest)).expect("JSON");
    assert_eq!(config["config"]["Entrypoint"], json!(["/app"]));
    assert_eq!(config["rootfs"]["diff_ids"], json!([manifest.layers[0].digest]));
    let layer = bytes_of(&artifact, manifest.layers[0].digest);
    let mut archive = tar::Archive::new(layer.as_slice());
    let mut entries = archive.entries().expect("a tar");
    let entry = entries.next().expect("one entry").expect("a whole one");
    assert_eq!(
        (entry.path().expect("a path").to_str(), entry.header().mode().ok()),
        (Some("app"), Some(0o755))
    );
    assert_eq!(entry.size(), fs::metadata(&path).expect("there").len());

    let dynamic = std::env::current_exe().expect("this test");
    let error = package::package(&dynamic).expect_err("needs a loader").to_string();
    assert!(error.contains("dynamically linked") && error.contains("musl"), "{error}");
}

#[test]
fn layouts_and_archives_keep_their_digest() {
    let dir = tempfile::tempdir().expect("a folder");
    let artifact = package::static_image(&executable(dir.path(), 0)).expect("packaged");
    let folder = dir.path().join("layout");
    layout(&folder, &artifact);
    assert_eq!(package::package(&folder).expect("a layout").digest, artifact.digest);
    let archive = dir.path().join("image.tar");
    tar_of(&folder, &archive);
    assert_eq!(package::package(&archive).expect("an archive").digest, artifact.digest);
    let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::copy(&mut fs::File::open(&archive).expect("there"), &mut zip).expect("compressed");
    let zipped = file(dir.path(), "image.tar.gz", &zip.finish().expect("compressed"));
    let unpacked = package::package(&zipped).expect("a compressed archive");
    assert_eq!(unpacked.digest, artifact.digest);
    for blob in &artifact.blobs {
        assert_eq!(bytes_of(&unpacked, blob.digest), bytes_of(&artifact, blob.digest));
    }
    let layer = artifact.blobs.iter().find(|blob| blob.media_type == media_type::LAYER_TAR).expect("a layer");
    let path = folder.join("blobs/sha256").join(layer.digest.hex());
    let mut changed = fs::read(&path).expect("readable");
    changed[600] ^= 1;
    fs::write(&path, changed).expect("written");
    let error = package::package(&folder).expect_err("a changed layer").to_string();
    assert!(error.contains("was changed"), "{error}");
}

#[test]
fn what_docker_saves_is_taken_with_its_links() {
    let dir = tempfile::tempdir().expect("a folder");
    let layer = b"a layer, as a tar".repeat(50);
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": { "Cmd": ["/x"] },
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer), Digest::of(&layer)] },
    });
    let build = |to: &str, second: &str| {
        let path = dir.path().join(to);
        let mut archive = tar::Builder::new(fs::File::create(&path).expect("a file"));
        let mut add = |name: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, name, bytes).expect("added");
        };
        add("aa/layer.tar", &layer);
        add("config.json", config.to_string().as_bytes());
        let list = json!([{ "Config": "config.json", "RepoTags": null, "Layers": ["aa/layer.tar", "bb/layer.tar"] }]);
        add("manifest.json", list.to_string().as_bytes());
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        archive.append_link(&mut link, "bb/layer.tar", second).expect("added");
        archive.finish().expect("archived");
        path
    };
    let artifact = package::package(&build("saved.tar", "../aa/layer.tar")).expect("packaged");
    assert_eq!(artifact.kind, ArtifactKind::Image);
    let Ok(Manifest::Image(manifest)) = Manifest::parse(&artifact.manifest, media_type::MANIFEST) else {
        panic!("an image manifest");
    };
    let expected = Descriptor::of(media_type::LAYER_TAR, &layer);
    assert_eq!(manifest.layers, [expected.clone(), expected]);
    for outside in ["../../../etc/passwd", "/etc/passwd"] {
        let error =
            package::package(&build("evil.tar", outside)).expect_err("a link that leads out").to_string();
        assert!(error.contains("which it does not have"), "{error}");
    }
}

#[test]
fn nothing_is_written_outside_of_an_archive() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes()[..10].copy_from_slice(b"../../evil");
    header.set_size(0);
    header.set_cksum();
    let path = dir.path().join("evil.tar");
    let mut archive = tar::Builder::new(fs::File::create(&path).expect("a file"));
    archive.append(&header, std::io::empty()).expect("added");
    archive.finish().expect("archived");
    let error = package::package(&path).expect_err("climbs").to_string();
    assert!(error.contains("outside"), "{error}");
}

#[test]
fn bad_input_is_explained() {
    let dir = tempfile::tempdir().expect("a folder");
    let handler = component(1);
    for (name, bytes, expected) in [
        ("empty.wasm", b"".as_slice(), "is empty"),
        ("text.wasm", b"(component)", "not WebAssembly"),
        ("cut.wasm", &handler[..handler.len() - 3], "cut off"),
        ("header.wasm", b"\0asm", "cut off"),
        ("other.wasm", &component_exporting("a:b/c@1.0.0"), "wasi:http"),
        ("notes.txt", b"hello", "neither WebAssembly"),
        ("cut.elf", b"\x7fELF\x02\x01", "cut off"),
        ("elf32", b"\x7fELF\x01\x01\x01", "64-bit"),
    ] {
        let error = package::package(&file(dir.path(), name, bytes)).expect_err(name).to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
    let missing = package::package(&dir.path().join("missing")).expect_err("missing");
    assert!(missing.to_string().contains("missing"), "{missing}");
    let error = package::package(dir.path()).expect_err("no layout").to_string();
    assert!(error.contains("oci-layout"), "{error}");
}
