//! The strict reader of OCI manifests and indexes that store, admission, client and packaging share.
//!
//! Source: OCI image-spec 1.1 `manifest.md`, `image-index.md`, `descriptor.md`. One document must never be read as
//! two things (CVE-2021-41190), so the media type that the client names, the one that the document names and its
//! fields must agree. It must not touch blobs: whether a descriptor's content exists is the store's question.

use neap_sdk::{Digest, artifact::media_type, limits};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Names a piece of content: its type, its digest and its length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Foreign places to get it from. Kept so that admission can refuse them; nothing ever follows them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Free-form notes, unauthenticated.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The type of the artifact that it points at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// On which platform an index's child runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

impl Descriptor {
    /// A descriptor of `bytes`.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// A descriptor without optional fields.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            artifact_type: None,
            platform: None,
        }
    }
}

/// The platform of an index's child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// In Go's words: `amd64`, `arm64`, `wasm`.
    pub architecture: String,
    /// In Go's words: `linux`, `wasip2`.
    pub os: String,
    /// Of the architecture, such as `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform that neap runs containers on.
    pub fn is_linux_amd64(&self) -> bool {
        self.os == "linux" && self.architecture == "amd64"
    }
}

/// A manifest that was read strictly.
#[expect(clippy::large_enum_variant, reason = "nothing holds many of them; a box would only be in the way")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manifest {
    /// One artifact: a configuration and layers.
    Image(ImageManifest),
    /// A list of manifests.
    Index(IndexManifest),
}

/// An image manifest; also used for Wasm artifacts, signatures and attestations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageManifest {
    /// Its media type.
    pub media_type: String,
    /// What the artifact is, where the configuration does not say so.
    pub artifact_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// The manifest that this one speaks about.
    pub subject: Option<Descriptor>,
    /// Free-form notes.
    pub annotations: BTreeMap<String, String>,
}

/// An image index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexManifest {
    /// Its media type.
    pub media_type: String,
    /// What the artifact is.
    pub artifact_type: Option<String>,
    /// The children.
    pub manifests: Vec<Descriptor>,
    /// The manifest that this one speaks about.
    pub subject: Option<Descriptor>,
    /// Free-form notes.
    pub annotations: BTreeMap<String, String>,
}

/// Why bytes are not a manifest that neap accepts.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Larger than the limit.
    #[error("the manifest has {0} bytes; at most {max} are accepted", max = limits::MANIFEST_BYTES_MAX)]
    TooLarge(u64),
    /// Not JSON, or a required field is missing, of the wrong type or given twice.
    #[error("the manifest is not a valid OCI document")]
    Json(#[source] serde_json::Error),
    /// Another schema.
    #[error("schemaVersion is {0}; only 2 is supported")]
    SchemaVersion(u64),
    /// A media type that is none of a manifest.
    #[error("{0:?} is not the media type of an OCI or Docker manifest or index")]
    UnknownMediaType(String),
    /// The document contradicts its transport.
    #[error("the document calls itself {document:?} but was sent as {claimed:?}")]
    MediaTypeMismatch {
        /// What it was sent as.
        claimed: String,
        /// What it says itself.
        document: String,
    },
    /// The document could be read as both kinds.
    #[error("a {kind} must not have the field {field:?}")]
    Ambiguous {
        /// What the media type says it is.
        kind: &'static str,
        /// What only the other kind may have.
        field: &'static str,
    },
    /// A field that this kind needs is missing.
    #[error("a {kind} needs the field {field:?}")]
    Missing {
        /// What the media type says it is.
        kind: &'static str,
        /// What is missing.
        field: &'static str,
    },
    /// More descriptors than a manifest may have.
    #[error("the manifest lists {0} descriptors; at most {max} are accepted", max = limits::MANIFEST_DESCRIPTORS_MAX)]
    TooMany(usize),
}

/// Every field that either kind may have; which ones it has decides whether it is accepted.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u64,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    annotations: Option<BTreeMap<String, String>>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Manifest {
    /// Reads `bytes` that were sent, or are described, as `claimed`. The document's own `mediaType` may be missing
    /// (image-spec 1.0 allowed that) but must not differ.
    pub fn parse(bytes: &[u8], claimed: &str) -> Result<Self, ManifestError> {
        if bytes.len() as u64 > limits::MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLarge(bytes.len() as u64));
        }
        let is_index = match claimed {
            media_type::INDEX | media_type::DOCKER_INDEX => true,
            media_type::MANIFEST | media_type::DOCKER_MANIFEST => false,
            other => return Err(ManifestError::UnknownMediaType(other.chars().take(128).collect())),
        };
        let document: Document = serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
        if document.schema_version != 2 {
            return Err(ManifestError::SchemaVersion(document.schema_version));
        }
        match &document.media_type {
            Some(own) if own != claimed => {
                let document = own.chars().take(128).collect();
                return Err(ManifestError::MediaTypeMismatch { claimed: claimed.to_owned(), document });
            }
            _ => {}
        }
        let manifest = if is_index { document.into_index(claimed)? } else { document.into_image(claimed)? };
        match manifest.references().count() {
            count if count > limits::MANIFEST_DESCRIPTORS_MAX => Err(ManifestError::TooMany(count)),
            _ => Ok(manifest),
        }
    }

    /// The media type that a document names itself, or the one that its fields imply.
    pub fn media_type_of(bytes: &[u8]) -> Result<String, ManifestError> {
        let document: Document = serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
        let implied = if document.manifests.is_some() { media_type::INDEX } else { media_type::MANIFEST };
        Ok(document.media_type.unwrap_or_else(|| implied.to_owned()))
    }

    /// Its media type.
    pub fn media_type(&self) -> &str {
        match self {
            Self::Image(image) => &image.media_type,
            Self::Index(index) => &index.media_type,
        }
    }

    /// The manifest that this one speaks about.
    pub fn subject(&self) -> Option<&Descriptor> {
        match self {
            Self::Image(image) => image.subject.as_ref(),
            Self::Index(index) => index.subject.as_ref(),
        }
    }

    /// What the referrers API calls the artifact's type: `artifactType`, else the configuration's media type.
    pub fn artifact_type(&self) -> Option<&str> {
        match self {
            Self::Image(image) => Some(image.artifact_type.as_deref().unwrap_or(&image.config.media_type)),
            Self::Index(index) => index.artifact_type.as_deref(),
        }
    }

    /// Its notes.
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        match self {
            Self::Image(image) => &image.annotations,
            Self::Index(index) => &index.annotations,
        }
    }

    /// What it is made of, without its subject: configuration and layers, or the children.
    pub fn references(&self) -> impl Iterator<Item = &Descriptor> {
        let (config, rest) = match self {
            Self::Image(image) => (Some(&image.config), &image.layers),
            Self::Index(index) => (None, &index.manifests),
        };
        config.into_iter().chain(rest)
    }
}

impl IndexManifest {
    /// The child to run: the first for linux/amd64, else the first for Wasm, else the first nested index.
    pub fn choose(&self) -> Option<&Descriptor> {
        let is_index = |child: &&Descriptor| {
            [media_type::INDEX, media_type::DOCKER_INDEX].contains(&child.media_type.as_str())
        };
        let linux = |child: &&Descriptor| child.platform.as_ref().is_some_and(Platform::is_linux_amd64);
        let wasm = |child: &&Descriptor| child.platform.as_ref().is_some_and(|on| on.architecture == "wasm");
        let manifests = || self.manifests.iter().filter(|child| !is_index(child));
        manifests()
            .find(linux)
            .or_else(|| manifests().find(wasm))
            .or_else(|| self.manifests.iter().find(is_index))
    }
}

impl Document {
    fn into_image(self, media_type: &str) -> Result<Manifest, ManifestError> {
        const KIND: &str = "manifest";
        if self.manifests.is_some() {
            return Err(ManifestError::Ambiguous { kind: KIND, field: "manifests" });
        }
        if self.fs_layers.is_some() {
            return Err(ManifestError::Ambiguous { kind: KIND, field: "fsLayers" });
        }
        Ok(Manifest::Image(ImageManifest {
            media_type: media_type.to_owned(),
            artifact_type: self.artifact_type,
            config: self.config.ok_or(ManifestError::Missing { kind: KIND, field: "config" })?,
            layers: self.layers.ok_or(ManifestError::Missing { kind: KIND, field: "layers" })?,
            subject: self.subject,
            annotations: self.annotations.unwrap_or_default(),
        }))
    }

    fn into_index(self, media_type: &str) -> Result<Manifest, ManifestError> {
        const KIND: &str = "index";
        let foreign = [
            (self.config.is_some(), "config"),
            (self.layers.is_some(), "layers"),
            (self.fs_layers.is_some(), "fsLayers"),
        ];
        if let Some((_, field)) = foreign.into_iter().find(|(present, _)| *present) {
            return Err(ManifestError::Ambiguous { kind: KIND, field });
        }
        Ok(Manifest::Index(IndexManifest {
            media_type: media_type.to_owned(),
            artifact_type: self.artifact_type,
            manifests: self.manifests.ok_or(ManifestError::Missing { kind: KIND, field: "manifests" })?,
            subject: self.subject,
            annotations: self.annotations.unwrap_or_default(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn image() -> serde_json::Value {
        json!({
            "schemaVersion": 2,
            "mediaType": media_type::MANIFEST,
            "config": Descriptor::of(media_type::EMPTY, b"{}"),
            "layers": [Descriptor::of(media_type::WASM_LAYER, b"wasm")],
        })
    }

    fn parse(document: &serde_json::Value, claimed: &str) -> Result<Manifest, ManifestError> {
        Manifest::parse(&serde_json::to_vec(document).expect("a value is JSON"), claimed)
    }

    #[test]
    fn one_document_is_never_two_things() {
        assert!(matches!(parse(&image(), media_type::MANIFEST), Ok(Manifest::Image(_))));
        assert!(matches!(parse(&image(), media_type::INDEX), Err(ManifestError::MediaTypeMismatch { .. })));
        let mut both = image();
        both["manifests"] = json!([]);
        assert!(matches!(parse(&both, media_type::MANIFEST), Err(ManifestError::Ambiguous { .. })));
        both["mediaType"] = json!(media_type::INDEX);
        assert!(matches!(parse(&both, media_type::INDEX), Err(ManifestError::Ambiguous { .. })));
        both.as_object_mut().expect("an object").remove("mediaType");
        assert!(matches!(parse(&both, media_type::INDEX), Err(ManifestError::Ambiguous { .. })));
        assert!(matches!(parse(&image(), "text/plain"), Err(ManifestError::UnknownMediaType(_))));
    }

    #[test]
    fn fields_given_twice_floats_and_other_schemas_are_refused() {
        let text = image().to_string();
        let twice = text.replacen('{', r#"{"schemaVersion":2,"#, 1);
        for bad in [
            twice,
            text.replace("\"size\":2,", "\"size\":2.0,").replace("\"size\":2}", "\"size\":2.0}"),
            text.replace("sha256:", "sha512:"),
            format!("\u{feff}{text}"),
            format!("{text}x"),
        ] {
            let outcome = Manifest::parse(bad.as_bytes(), media_type::MANIFEST);
            assert!(matches!(outcome, Err(ManifestError::Json(_))), "{bad}: {outcome:?}");
        }
        let old = text.replace("\"schemaVersion\":2", "\"schemaVersion\":1");
        let outcome = Manifest::parse(old.as_bytes(), media_type::MANIFEST);
        assert!(matches!(outcome, Err(ManifestError::SchemaVersion(1))));
    }
}
