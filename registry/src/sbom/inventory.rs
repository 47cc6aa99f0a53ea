//! The tolerant reader of SBOMs. It takes what it understands and ignores the rest, but refuses documents that
//! two readers could read differently, unknown major versions, and more than a fixed number of components.
//! Sources: CycloneDX 1.7 JSON schema, SPDX 2.3 `chapters/package-information.md`.

use crate::admission::{Twins, check_strict};
use neap_sdk::limits::{SBOM_BYTES_MAX, SBOM_COMPONENTS_MAX};
use serde_json::Value;

/// Which standard a document follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// CycloneDX.
    CycloneDx,
    /// SPDX.
    Spdx,
}

/// What an SBOM lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// The standard.
    pub family: Family,
    /// Standard and version: `CycloneDX 1.6`, `SPDX-2.3`.
    pub format: String,
    /// What it is about, where it says so.
    pub root: Option<String>,
    /// What is inside, in the document's order.
    pub components: Vec<Component>,
}

/// One thing inside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: Option<String>,
    /// Its package URL.
    pub purl: Option<String>,
    /// Its licence: an SPDX expression or id, or a name; several are joined by ` AND `.
    pub licence: Option<String>,
}

/// Why a document is not an SBOM that neap reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InventoryError {
    /// Larger than any SBOM.
    #[error("the SBOM has {0} bytes; at most {SBOM_BYTES_MAX} are read")]
    TooLarge(usize),
    /// Not JSON, or ambiguous.
    #[error("the SBOM is {0}")]
    Json(String),
    /// Neither of the two standards.
    #[error(
        "the document is neither CycloneDX nor SPDX in JSON ({0}); make one with syft or cargo-cyclonedx"
    )]
    Format(&'static str),
    /// A version that is not read.
    #[error("the SBOM is {0}; CycloneDX 1.2 to 1.7 and SPDX 2.2 and 2.3 are read")]
    Version(String),
    /// More components than are read.
    #[error("the SBOM lists more than {SBOM_COMPONENTS_MAX} components")]
    TooMany,
}

const CYCLONEDX_VERSIONS: [&str; 6] = ["1.2", "1.3", "1.4", "1.5", "1.6", "1.7"];
const SPDX_VERSIONS: [&str; 2] = ["SPDX-2.2", "SPDX-2.3"];

impl Inventory {
    /// Reads a document.
    pub fn read(bytes: &[u8]) -> Result<Self, InventoryError> {
        if bytes.len() as u64 > SBOM_BYTES_MAX {
            return Err(InventoryError::TooLarge(bytes.len()));
        }
        check_strict(bytes, Twins::AnyCase).map_err(|error| InventoryError::Json(error.to_string()))?;
        let document: Value =
            serde_json::from_slice(bytes).map_err(|error| InventoryError::Json(error.to_string()))?;
        if document.is_string() {
            return Err(InventoryError::Format("it is text; attest SPDX with `--type spdxjson`"));
        }
        if text(&document, "bomFormat").as_deref() == Some("CycloneDX") {
            return cyclonedx(&document);
        }
        match text(&document, "spdxVersion") {
            Some(version) => spdx(&document, &version),
            None => Err(InventoryError::Format("it has neither bomFormat nor spdxVersion")),
        }
    }
}

fn version_error(standard: &str, version: &str) -> InventoryError {
    InventoryError::Version(format!("{standard} {version:.40}").trim().to_owned())
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key).and_then(Value::as_str).map(str::to_owned).filter(|text| !text.is_empty())
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn cyclonedx(document: &Value) -> Result<Inventory, InventoryError> {
    let version = text(document, "specVersion").unwrap_or_default();
    if !CYCLONEDX_VERSIONS.contains(&version.as_str()) {
        return Err(version_error("CycloneDX", &version));
    }
    let mut components = Vec::new();
    // Components nest; the stack stands for the recursion and keeps the document's order.
    let mut waiting: Vec<&Value> = list(document, "components").iter().rev().collect();
    while let Some(component) = waiting.pop() {
        waiting.extend(list(component, "components").iter().rev());
        if components.len() == SBOM_COMPONENTS_MAX {
            return Err(InventoryError::TooMany);
        }
        if let Some(name) = text(component, "name") {
            let name = text(component, "group").map_or(name.clone(), |group| format!("{group}/{name}"));
            components.push(Component {
                name,
                version: text(component, "version"),
                purl: text(component, "purl"),
                licence: cyclonedx_licence(component),
            });
        }
    }
    let root = document.get("metadata").and_then(|metadata| metadata.get("component"));
    Ok(Inventory {
        family: Family::CycloneDx,
        format: format!("CycloneDX {version}"),
        root: root.and_then(|root| text(root, "name")),
        components,
    })
}

fn cyclonedx_licence(component: &Value) -> Option<String> {
    let one = |choice: &Value| {
        let licence = choice.get("license");
        text(choice, "expression").or_else(|| text(licence?, "id")).or_else(|| text(licence?, "name"))
    };
    let all: Vec<String> = list(component, "licenses").iter().filter_map(one).collect();
    match all.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        _ => Some(all.iter().map(|one| format!("({one})")).collect::<Vec<_>>().join(" AND ")),
    }
}

fn spdx(document: &Value, version: &str) -> Result<Inventory, InventoryError> {
    if !SPDX_VERSIONS.contains(&version) {
        return Err(version_error("", version));
    }
    let packages = list(document, "packages");
    if packages.len() > SBOM_COMPONENTS_MAX {
        return Err(InventoryError::TooMany);
    }
    let known = |text: &String| text != "NOASSERTION" && text != "NONE";
    let components = packages.iter().filter_map(|package| {
        let is_purl = |reference: &&Value| text(reference, "referenceType").as_deref() == Some("purl");
        let purl = list(package, "externalRefs").iter().find(is_purl);
        Some(Component {
            name: text(package, "name")?,
            version: text(package, "versionInfo"),
            purl: purl.and_then(|reference| text(reference, "referenceLocator")),
            licence: text(package, "licenseConcluded")
                .filter(known)
                .or_else(|| text(package, "licenseDeclared").filter(known)),
        })
    });
    Ok(Inventory {
        family: Family::Spdx,
        format: version.to_owned(),
        root: text(document, "name"),
        components: components.collect(),
    })
}
