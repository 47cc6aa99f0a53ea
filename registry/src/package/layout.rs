//! OCI layout folders. Source: OCI image-spec 1.1 `image-layout.md`. Every byte is checked against its descriptor.

use super::{LocalArtifact, LocalBlob, PackageError, image::hash_file, read_at_most};
use crate::manifest::{Descriptor, IndexManifest, Manifest};
use bytes::Bytes;
use neap_sdk::{Digest, artifact::media_type, limits};
use serde::Deserialize;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayoutFile {
    image_layout_version: String,
}

/// Reads the layout in `dir`. `shown` is what messages call it, and `files` keeps it while it is a temporary one.
pub(super) fn read(
    dir: &Path,
    shown: &Path,
    files: Option<Arc<tempfile::TempDir>>,
) -> Result<LocalArtifact, PackageError> {
    let layout = Layout { dir, shown };
    let version = read_at_most(&dir.join("oci-layout"), limits::MANIFEST_BYTES_MAX)
        .map_err(|_| layout.wrong("it has no file `oci-layout`, so it is no OCI layout folder"))?;
    match serde_json::from_slice::<LayoutFile>(&version) {
        Ok(file) if file.image_layout_version.starts_with("1.") => {}
        _ => return Err(layout.wrong("its `oci-layout` file names no version 1")),
    }
    let index = read_at_most(&dir.join("index.json"), limits::MANIFEST_BYTES_MAX)?;
    let Manifest::Index(mut index) = Manifest::parse(&index, media_type::INDEX)? else {
        return Err(layout.wrong("its index.json is no index"));
    };
    for _ in 0..=limits::INDEX_DEPTH_MAX {
        let chosen = layout.choose(&index)?;
        let bytes = layout.manifest(chosen)?;
        match Manifest::parse(&bytes, &chosen.media_type)? {
            Manifest::Index(inner) => index = inner,
            manifest @ Manifest::Image(_) => {
                let blobs = manifest.references().map(|part| layout.blob(part)).collect::<Result<_, _>>()?;
                return LocalArtifact::new(bytes, manifest.media_type(), blobs, files);
            }
        }
    }
    Err(layout.wrong("too many indexes are nested"))
}

struct Layout<'a> {
    dir: &'a Path,
    shown: &'a Path,
}

impl Layout<'_> {
    fn wrong(&self, reason: impl Into<String>) -> PackageError {
        PackageError::Image { path: self.shown.to_owned(), reason: reason.into() }
    }

    fn choose<'a>(&self, index: &'a IndexManifest) -> Result<&'a Descriptor, PackageError> {
        match index.manifests.as_slice() {
            [] => Err(self.wrong("its index lists nothing")),
            [only] => Ok(only),
            _ => index.choose().ok_or_else(|| self.wrong("its index has no manifest for linux/amd64")),
        }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes, PackageError> {
        let bytes = read_at_most(&self.path(&descriptor.digest), limits::MANIFEST_BYTES_MAX)?;
        self.check(descriptor, (Digest::of(&bytes), bytes.len() as u64)).map(|()| bytes)
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<LocalBlob, PackageError> {
        let path = self.path(&descriptor.digest);
        self.check(descriptor, hash_file(&path)?)?;
        Ok(LocalBlob::file(descriptor, path))
    }

    fn check(&self, descriptor: &Descriptor, (digest, size): (Digest, u64)) -> Result<(), PackageError> {
        if digest == descriptor.digest && size == descriptor.size {
            return Ok(());
        }
        Err(self.wrong(format!("its blob {} was changed: the bytes have digest {digest}", descriptor.digest)))
    }
}
