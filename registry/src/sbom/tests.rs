//! SBOMs: what is read from each format and version, what is refused, and that what is made is honest, the same
//! every time, and readable again.

use super::{
    Contents, ContentsError, ContentsSource, Family, Inventory, InventoryError, Part, Target, generate,
};
use crate::manifest::Descriptor;
use neap_sdk::{Digest, artifact::ArtifactKind};
use serde_json::{Value, json};
use std::io::Write as _;

const LOCK: &str = r#"
version = 4

[[package]]
name = "app"
version = "0.1.0"
dependencies = ["itoa", "rand 0.8.5", "ours"]

[[package]]
name = "itoa"
version = "1.0.1+build"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "1aab8fc367588b89dcee83ab0fd66b72b50b72fa1904d7095045ace2b0c81c35"

[[package]]
name = "ours"
version = "2.0.0"
source = "git+https://example.com/ours?rev=1#abc"

[[package]]
name = "rand"
version = "0.7.3"
source = "registry+https://github.com/rust-lang/crates.io-index"

[[package]]
name = "rand"
version = "0.8.5"
source = "registry+https://github.com/rust-lang/crates.io-index"
dependencies = ["itoa"]

[[package]]
name = "unrelated"
version = "1.0.0"
"#;

fn read(document: &Value) -> Result<Inventory, InventoryError> {
    Inventory::read(document.to_string().as_bytes())
}

fn names(contents: &Contents) -> Vec<String> {
    contents.packages.iter().map(|package| format!("{}@{}", package.name, package.version)).collect()
}

#[test]
fn cyclonedx_is_read_with_nested_components_and_licences() {
    for version in ["1.2", "1.3", "1.4", "1.5", "1.6", "1.7"] {
        let inventory = read(&json!({
            "bomFormat": "CycloneDX", "specVersion": version, "unknown": [1.5, null],
            "metadata": { "component": { "name": "app" } },
            "components": [
                { "name": "core", "group": "@angular", "version": "1", "purl": "pkg:npm/%40angular/core@1",
                  "licenses": [{ "license": { "id": "MIT" } }, { "license": { "name": "Ours" } }],
                  "components": [{ "name": "inner", "licenses": [{ "expression": "MIT OR Apache-2.0" }] }] },
                { "version": "without a name" },
                { "name": "last", "version": 3 },
            ],
        }));
        let inventory = inventory.unwrap();
        assert_eq!((inventory.family, inventory.root.as_deref()), (Family::CycloneDx, Some("app")));
        assert_eq!(inventory.format, format!("CycloneDX {version}"));
        let names: Vec<&str> = inventory.components.iter().map(|component| component.name.as_str()).collect();
        assert_eq!(names, ["@angular/core", "inner", "last"]);
        assert_eq!(inventory.components[0].licence.as_deref(), Some("(MIT) AND (Ours)"));
        assert_eq!(inventory.components[1].licence.as_deref(), Some("MIT OR Apache-2.0"));
        assert_eq!(inventory.components[2].version, None);
    }
}

#[test]
fn spdx_is_read_with_package_urls_and_licences() {
    for version in ["SPDX-2.2", "SPDX-2.3"] {
        let inventory = read(&json!({
            "spdxVersion": version, "name": "app",
            "packages": [
                { "name": "a", "versionInfo": "1", "licenseConcluded": "NOASSERTION", "licenseDeclared": "MIT",
                  "externalRefs": [
                      { "referenceType": "cpe23Type", "referenceLocator": "cpe:2.3:a" },
                      { "referenceType": "purl", "referenceLocator": "pkg:cargo/a@1" },
                  ] },
                { "name": "b", "licenseDeclared": "NONE" },
            ],
        }));
        let inventory = inventory.unwrap();
        assert_eq!((inventory.format.as_str(), inventory.components.len()), (version, 2));
        assert_eq!(inventory.components[0].purl.as_deref(), Some("pkg:cargo/a@1"));
        assert_eq!(inventory.components[0].licence.as_deref(), Some("MIT"));
        assert_eq!(inventory.components[1].licence, None);
    }
}

#[test]
fn what_is_no_sbom_or_ambiguous_is_refused() {
    assert!(matches!(
        read(&json!({ "bomFormat": "CycloneDX", "specVersion": "2.0" })),
        Err(InventoryError::Version(_))
    ));
    assert!(matches!(read(&json!({ "spdxVersion": "SPDX-3.0" })), Err(InventoryError::Version(_))));
    assert!(matches!(read(&json!([])), Err(InventoryError::Format(_))));
    assert!(matches!(read(&json!("SPDXVersion: SPDX-2.3")), Err(InventoryError::Format(_))));
    let twice =
        br#"{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{"name":"a"}],"components":[]}"#;
    assert!(matches!(Inventory::read(twice), Err(InventoryError::Json(_))));
    let deep = "[".repeat(500);
    let deep = format!(r#"{{"bomFormat":"CycloneDX","x":{deep}"#);
    assert!(matches!(Inventory::read(deep.as_bytes()), Err(InventoryError::Json(_))));
}

#[test]
fn a_lock_file_gives_what_the_artifact_is_built_from() {
    let contents = Contents::from_cargo_lock(LOCK, Some("app")).unwrap();
    assert_eq!(names(&contents), ["app@0.1.0", "itoa@1.0.1+build", "ours@2.0.0", "rand@0.8.5"]);
    let urls: Vec<Option<String>> = contents.packages.iter().map(super::Package::purl).collect();
    assert_eq!(urls[0], None, "a local crate has no public home");
    assert_eq!(urls[1].as_deref(), Some("pkg:cargo/itoa@1.0.1%2Bbuild"));
    assert!(
        urls[2]
            .as_deref()
            .unwrap()
            .starts_with("pkg:cargo/ours@2.0.0?vcs_url=git%2Bhttps://example.com/ours")
    );
    assert_eq!(contents.packages[0].dependencies, [1, 2, 3]);
    assert_eq!(contents.packages[3].dependencies, [1], "places are renumbered");
    assert_eq!(names(&Contents::from_cargo_lock(LOCK, None).unwrap()).len(), 6);
    assert!(matches!(Contents::from_cargo_lock(LOCK, Some("other")), Err(ContentsError::NoRoot(_))));
    assert!(matches!(Contents::from_cargo_lock("hello", None), Err(ContentsError::Lock(_))));
}

/// A Wasm module with the section that cargo-auditable embeds.
fn auditable_module(data: &[u8]) -> Vec<u8> {
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    zlib.write_all(data).unwrap();
    section(b"\0asm\x01\0\0\0", 0, &[b"\x07.dep-v0", zlib.finish().unwrap().as_slice()].concat())
}

fn section(before: &[u8], id: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = before.to_vec();
    bytes.push(id);
    let mut length = content.len();
    while length >= 0x80 {
        bytes.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    bytes.push(u8::try_from(length).unwrap());
    bytes.extend_from_slice(content);
    bytes
}

#[test]
fn what_cargo_auditable_embedded_is_found_in_modules_and_components() {
    let audit = json!({ "packages": [
        { "name": "app", "version": "0.1.0", "source": "local", "root": true, "dependencies": [1, 2, 9] },
        { "name": "serde", "version": "1.0.0", "source": "crates.io" },
        { "name": "cc", "version": "1.0.0", "source": "crates.io", "kind": "build" },
    ] });
    let module = auditable_module(audit.to_string().as_bytes());
    let component = section(b"\0asm\x0d\0\x01\0", 1, &module);
    for binary in [&module, &component] {
        let contents = Contents::from_binary(binary).unwrap().expect("it is embedded");
        assert_eq!(contents.source, ContentsSource::CargoAuditable);
        assert_eq!(
            names(&contents),
            ["app@0.1.0", "serde@1.0.0"],
            "what only the build needed is not inside"
        );
        assert_eq!(contents.packages[0].dependencies, [1]);
        assert_eq!(contents.packages[1].purl().as_deref(), Some("pkg:cargo/serde@1.0.0"));
    }
    assert_eq!(Contents::from_binary(b"\0asm\x01\0\0\0").unwrap(), None);
    assert_eq!(Contents::from_binary(b"\0asm\x0d\0\x01\0").unwrap(), None);
    assert_eq!(Contents::from_binary(b"hello").unwrap(), None);
    for damaged in [&b"not json"[..], &vec![b' '; 9 << 20]] {
        let read = Contents::from_binary(&auditable_module(damaged));
        assert!(matches!(read, Err(ContentsError::Audit(_))), "damage and decompression bombs are errors");
    }
}

#[test]
fn a_generated_sbom_is_reproducible_honest_and_readable() {
    let parts = [
        Part { name: "hello.wasm".to_owned(), descriptor: Descriptor::of("application/wasm", b"wasm") },
        Part { name: "layer 2".to_owned(), descriptor: Descriptor::of("application/x-tar", b"tar") },
    ];
    let known = Contents::from_cargo_lock(LOCK, Some("app")).unwrap();
    let unknown = Contents::unknown();
    let made = |contents| {
        let target = Target {
            name: "team/app",
            version: Some("v1"),
            kind: ArtifactKind::WasmComponent,
            digest: Digest::of(b"manifest"),
            parts: &parts,
            contents,
            created_at_ms: 1_760_000_000_123,
        };
        generate(&target)
    };
    assert_eq!(made(&known), made(&known));
    let document: Value = serde_json::from_slice(&made(&known)).unwrap();
    assert_eq!(document["metadata"]["timestamp"], "2025-10-09T08:53:20Z");
    assert_eq!(document["metadata"]["component"]["hashes"][0]["content"], Digest::of(b"manifest").hex());
    let serial = document["serialNumber"].as_str().unwrap();
    assert!(
        serial.starts_with("urn:uuid:") && serial.len() == 45 && serial.as_bytes()[23] == b'8',
        "{serial}"
    );
    assert_eq!(document["dependencies"][0]["dependsOn"], json!(["part:0", "part:1", "crate:0:app@0.1.0"]));
    let refs: Vec<&Value> =
        document["components"].as_array().unwrap().iter().map(|component| &component["bom-ref"]).collect();
    for edge in document["dependencies"].as_array().unwrap() {
        assert!(edge["ref"] == "artifact" || refs.contains(&&edge["ref"]));
        assert!(edge["dependsOn"].as_array().unwrap().iter().all(|to| refs.contains(&to)));
    }
    let inventory = Inventory::read(&made(&known)).unwrap();
    assert_eq!(inventory.components.len(), 6);
    assert_eq!(inventory.components[3].purl.as_deref(), Some("pkg:cargo/itoa@1.0.1%2Bbuild"));

    // Nothing known is not the same as nothing inside: the parts are listed, completeness is not claimed.
    let document: Value = serde_json::from_slice(&made(&unknown)).unwrap();
    assert_eq!(document["components"].as_array().unwrap().len(), 2);
    assert_eq!(document["compositions"][0]["aggregate"], "unknown");
}
