//! Makes a CycloneDX 1.6 document. The same input makes the same bytes: the serial number is derived from the
//! artifact's digest, and the time is the caller's.
//! Source: CycloneDX 1.6 JSON schema (`bom-1.6.schema.json`).

use super::{
    contents::{Contents, ContentsSource, escape},
    rfc3339,
};
use crate::manifest::Descriptor;
use neap_sdk::{Digest, artifact::ArtifactKind};
use serde_json::{Value, json};

/// What an SBOM is made for.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Its name, such as the last part of the repository.
    pub name: &'a str,
    /// Its version, where it has one.
    pub version: Option<&'a str>,
    /// What it is.
    pub kind: ArtifactKind,
    /// The digest of its manifest.
    pub digest: Digest,
    /// The blobs that it is made of.
    pub parts: &'a [Part],
    /// What is known to be inside them.
    pub contents: &'a Contents,
    /// When it was made, in milliseconds since 1970.
    pub created_at_ms: u64,
}

/// One blob of an artifact.
#[derive(Debug, Clone)]
pub struct Part {
    /// What to call it: a file name, or `layer 1`.
    pub name: String,
    /// What it is.
    pub descriptor: Descriptor,
}

const ROOT: &str = "artifact";

/// Makes the document, as compact JSON.
pub fn generate(target: &Target<'_>) -> Vec<u8> {
    let document = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": format!("urn:uuid:{}", uuid_of(&target.digest)),
        "version": 1,
        "metadata": {
            "timestamp": rfc3339(target.created_at_ms / 1_000),
            "tools": { "components": [
                { "type": "application", "name": "neap", "version": env!("CARGO_PKG_VERSION") },
            ] },
            "component": root(target),
            "properties": [
                { "name": "neap:contents", "value": source_name(target.contents.source) },
            ],
        },
        "components": parts(target).chain(packages(target.contents)).collect::<Vec<_>>(),
        "dependencies": dependencies(target),
        "compositions": [{ "aggregate": aggregate(target.contents.source), "assemblies": [ROOT] }],
    });
    serde_json::to_vec(&document).expect("a JSON value always serialises")
}

fn root(target: &Target<'_>) -> Value {
    let kind = match target.kind {
        ArtifactKind::Image => "container",
        ArtifactKind::WasmComponent | ArtifactKind::WasmModule => "application",
    };
    let mut root = json!({
        "type": kind,
        "bom-ref": ROOT,
        "name": target.name,
        "hashes": [{ "alg": "SHA-256", "content": target.digest.hex() }],
        "purl": format!("pkg:oci/{}@sha256%3A{}", escape(target.name).replace('/', "%2F"), target.digest.hex()),
    });
    if let Some(version) = target.version {
        root["version"] = json!(version);
    }
    root
}

fn parts(target: &Target<'_>) -> impl Iterator<Item = Value> {
    target.parts.iter().enumerate().map(|(place, part)| {
        json!({
            "type": "file",
            "bom-ref": part_ref(place),
            "name": part.name,
            "mime-type": part.descriptor.media_type,
            "hashes": [{ "alg": "SHA-256", "content": part.descriptor.digest.hex() }],
        })
    })
}

fn packages(contents: &Contents) -> impl Iterator<Item = Value> {
    contents.packages.iter().enumerate().map(|(place, package)| {
        let mut component = json!({
            "type": "library",
            "bom-ref": package_ref(contents, place),
            "name": package.name,
            "version": package.version,
            "scope": "required",
        });
        if let Some(purl) = package.purl() {
            component["purl"] = json!(purl);
        }
        if let Some(checksum) = package.checksum.as_ref().filter(|text| is_sha256(text)) {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
        }
        component
    })
}

fn dependencies(target: &Target<'_>) -> Vec<Value> {
    let contents = target.contents;
    // Packages that no other one needs are what the artifact itself was built from.
    let mut needed = vec![false; contents.packages.len()];
    for place in contents.packages.iter().flat_map(|package| &package.dependencies) {
        needed[*place] = true;
    }
    let tops = (0..needed.len()).filter(|place| !needed[*place]).map(|place| package_ref(contents, place));
    let root: Vec<String> = (0..target.parts.len()).map(part_ref).chain(tops).collect();
    let mut edges = vec![json!({ "ref": ROOT, "dependsOn": root })];
    edges.extend(contents.packages.iter().enumerate().map(|(place, package)| {
        let on: Vec<String> =
            package.dependencies.iter().map(|place| package_ref(contents, *place)).collect();
        json!({ "ref": package_ref(contents, place), "dependsOn": on })
    }));
    edges
}

fn part_ref(place: usize) -> String {
    format!("part:{place}")
}

/// Unique even where a name and version come from two sources.
fn package_ref(contents: &Contents, place: usize) -> String {
    let package = &contents.packages[place];
    format!("crate:{place}:{}@{}", package.name, package.version)
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn source_name(source: ContentsSource) -> &'static str {
    match source {
        ContentsSource::CargoAuditable => "cargo-auditable",
        ContentsSource::CargoLock => "Cargo.lock",
        ContentsSource::Unknown => "unknown",
    }
}

/// What the list claims about its own completeness: never that it is complete.
fn aggregate(source: ContentsSource) -> &'static str {
    match source {
        ContentsSource::CargoAuditable | ContentsSource::CargoLock => "incomplete",
        ContentsSource::Unknown => "unknown",
    }
}

/// A UUID of version 8 (RFC 9562: made from the application's own data) out of a digest.
fn uuid_of(digest: &Digest) -> String {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_bytes()[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
