//! Judges an attested SBOM document: readable, of a known format, and not empty. Who attested it, and for which
//! digest, was settled before.

use crate::sbom::Inventory;
use neap_sdk::{
    Digest,
    admission::{SbomEvidence, Signer},
};

/// Reads the document that `signer` attested. The error is a text for people.
pub fn evidence(document: &str, signer: Signer) -> Result<SbomEvidence, String> {
    let inventory = Inventory::read(document.as_bytes()).map_err(|error| error.to_string())?;
    if inventory.components.is_empty() {
        return Err("it lists no component; an empty list says nothing about what is inside".to_owned());
    }
    Ok(SbomEvidence {
        digest: Digest::of(document.as_bytes()),
        format: inventory.format,
        packages: inventory.components.len(),
        signer,
    })
}
