//! Packaging: from what a person has on disk to an OCI artifact that can be pushed.
//!
//! The same input always makes the same digest: no time, no user, no compressor's version goes in. Nothing is sent
//! and nothing is executed here. All functions block; async callers run them on the blocking pool.

mod archive;
mod elf;
mod image;
mod layout;
mod wasm;

pub use image::static_image;
pub use wasm::wasm;

use crate::{
    admission::component,
    durable::{self, DiskError},
    manifest::{Descriptor, Manifest, ManifestError},
};
use bytes::Bytes;
use neap_sdk::{
    Digest,
    artifact::{ArtifactKind, media_type},
    limits,
};
use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

/// An artifact that is ready to be pushed.
#[derive(Debug, Clone)]
pub struct LocalArtifact {
    /// The manifest's bytes.
    pub manifest: Bytes,
    /// The manifest's media type.
    pub media_type: String,
    /// The manifest's digest.
    pub digest: Digest,
    /// What it is.
    pub kind: ArtifactKind,
    /// The configuration and the layers, each once.
    pub blobs: Vec<LocalBlob>,
    /// The folder that some blobs lie in; gone with the last clone.
    _files: Option<Arc<tempfile::TempDir>>,
}

/// A blob of a local artifact.
#[derive(Debug, Clone)]
pub struct LocalBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// What it is.
    pub media_type: String,
    /// Where its bytes are.
    pub content: Content,
}

/// The bytes of a blob.
#[derive(Debug, Clone)]
pub enum Content {
    /// Here.
    Bytes(Bytes),
    /// In a file of exactly these bytes.
    File(PathBuf),
}

/// Why something could not be packaged.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// A file could not be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The file has no bytes.
    #[error("{} is empty", .0.display())]
    Empty(PathBuf),
    /// The file is of no kind that neap takes.
    #[error(
        "{} is neither WebAssembly, an OCI or Docker archive, nor a static Linux executable; give one of these or an \
         OCI layout folder",
        .0.display()
    )]
    Unknown(PathBuf),
    /// It is WebAssembly that cannot run.
    #[error("{what} cannot be packaged: {reason}")]
    Wasm {
        /// The file.
        what: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// It is an executable that cannot be an image on its own.
    #[error("{} cannot be an image on its own: {reason}", path.display())]
    Executable {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// It is an OCI layout, or an archive, that is damaged or has nothing to run.
    #[error("{} is not a usable image: {reason}", path.display())]
    Image {
        /// The folder or archive.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Its manifest is damaged.
    #[error("the manifest cannot be used")]
    Manifest(#[from] ManifestError),
}

impl LocalArtifact {
    /// An artifact of a manifest and its blobs. The kind is read from the bytes.
    pub(crate) fn new(
        manifest: Bytes,
        media_type: &str,
        mut blobs: Vec<LocalBlob>,
        files: Option<Arc<tempfile::TempDir>>,
    ) -> Result<Self, PackageError> {
        let Manifest::Image(parsed) = Manifest::parse(&manifest, media_type)? else {
            return Err(ManifestError::UnknownMediaType(media_type.to_owned()).into());
        };
        let layer = parsed.layers.first().map(|layer| layer.digest);
        let kind = match parsed.config.media_type.as_str() {
            media_type::WASM_CONFIG => {
                let layer = blobs.iter().find(|blob| Some(blob.digest) == layer);
                let bytes = layer.map(|layer| layer.content.read(limits::WASM_BYTES_MAX)).transpose()?;
                let kind = component::wasm_kind(&bytes.unwrap_or_default());
                kind.map_err(|reason| PackageError::Wasm { what: "the Wasm layer".to_owned(), reason })?
            }
            _ => ArtifactKind::Image,
        };
        blobs.sort_by_key(|blob| blob.digest);
        blobs.dedup_by_key(|blob| blob.digest);
        let digest = Digest::of(&manifest);
        Ok(Self { manifest, media_type: media_type.to_owned(), digest, kind, blobs, _files: files })
    }

    /// The manifest's descriptor, as signatures name it.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(&self.media_type, self.digest, self.manifest.len() as u64)
    }

    /// Bytes of the manifest and all blobs.
    pub fn size_bytes(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.size_bytes).sum::<u64>() + self.manifest.len() as u64
    }

    /// The bytes of the layer of a Wasm artifact; `None` for an image.
    pub fn wasm_bytes(&self) -> Result<Option<Bytes>, DiskError> {
        let layer = self.blobs.iter().find(|blob| blob.media_type == media_type::WASM_LAYER);
        layer.map(|layer| layer.content.read(limits::WASM_BYTES_MAX)).transpose()
    }
}

impl LocalBlob {
    /// A blob of bytes.
    pub fn of(media_type: &str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self {
            digest: Digest::of(&bytes),
            size_bytes: bytes.len() as u64,
            media_type: media_type.to_owned(),
            content: Content::Bytes(bytes),
        }
    }

    /// A blob that lies in a file and was checked against its descriptor.
    pub(crate) fn file(descriptor: &Descriptor, path: PathBuf) -> Self {
        Self {
            digest: descriptor.digest,
            size_bytes: descriptor.size,
            media_type: descriptor.media_type.clone(),
            content: Content::File(path),
        }
    }

    /// Its descriptor.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(&self.media_type, self.digest, self.size_bytes)
    }
}

impl Content {
    fn read(&self, max: u64) -> Result<Bytes, DiskError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.clone()),
            Self::File(path) => read_at_most(path, max),
        }
    }
}

/// Reads a file whole; more than `max` bytes are an error.
fn read_at_most(path: &Path, max: u64) -> Result<Bytes, DiskError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(max + 1).read_to_end(&mut bytes));
    read.map_err(durable::failed("read", path))?;
    if bytes.len() as u64 > max {
        let error = io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {max} bytes"));
        return Err(durable::failed("read", path)(error));
    }
    Ok(bytes.into())
}

/// Packages the file or folder `what`, told by its contents and not by its name.
pub fn package(what: &Path) -> Result<LocalArtifact, PackageError> {
    if what.is_dir() {
        return layout::read(what, what, None);
    }
    let mut start = [0; 512];
    let mut file = File::open(what).map_err(durable::failed("open", what))?;
    let mut len = 0;
    while len < start.len() {
        match file.read(&mut start[len..]).map_err(durable::failed("read", what))? {
            0 => break,
            count => len += count,
        }
    }
    match &start[..len] {
        [] => Err(PackageError::Empty(what.to_owned())),
        [b'\0', b'a', b's', b'm', ..] => {
            let bytes = read_at_most(what, limits::WASM_BYTES_MAX)?;
            wasm::named(&what.display().to_string(), bytes)
        }
        [0x7f, b'E', b'L', b'F', ..] => static_image(what),
        [0x1f, 0x8b, ..] => archive::read(what),
        start if start.get(257..262) == Some(b"ustar") => archive::read(what),
        _ if what.extension().is_some_and(|extension| extension == "wasm") => {
            let reason = "it is not WebAssembly: the file does not begin with \\0asm".to_owned();
            Err(PackageError::Wasm { what: what.display().to_string(), reason })
        }
        _ => Err(PackageError::Unknown(what.to_owned())),
    }
}
