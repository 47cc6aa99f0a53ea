//! Container images that neap makes itself: one static executable, one layer.
//!
//! Source: OCI image-spec 1.1 `manifest.md`, `config.md`, `layer.md`. The layer is a plain tar: compressed bytes
//! would depend on the compressor's version.

use super::{LocalArtifact, LocalBlob, PackageError, elf};
use crate::{
    durable::{self, DiskError},
    manifest::Descriptor,
};
use bytes::Bytes;
use neap_sdk::{Digest, artifact::media_type, limits};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::{
    fs::File,
    io::{self, Read as _, Write},
    path::Path,
    sync::Arc,
};

/// Where the executable lies in the image.
const ENTRYPOINT: &str = "/app";

/// A manifest as it is written: fields in this order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ManifestFile {
    schema_version: u32,
    media_type: &'static str,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

impl ManifestFile {
    pub(super) fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: media_type::MANIFEST, config, layers }
    }

    pub(super) fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).expect("descriptors always serialise").into()
    }
}

#[derive(Serialize)]
struct ImageConfig {
    architecture: &'static str,
    os: &'static str,
    config: Execution,
    rootfs: RootFs,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Execution {
    entrypoint: [&'static str; 1],
    working_dir: &'static str,
}

#[derive(Serialize)]
struct RootFs {
    r#type: &'static str,
    diff_ids: [Digest; 1],
}

/// An image whose only file is the static Linux executable at `path`, which it starts. The executable must serve
/// HTTP on `$PORT`.
pub fn static_image(path: &Path) -> Result<LocalArtifact, PackageError> {
    let mut file = File::open(path).map_err(durable::failed("open", path))?;
    let mut head = Vec::new();
    let read = (&mut file).take(limits::BLOB_BUFFER_BYTES as u64).read_to_end(&mut head);
    read.map_err(durable::failed("read", path))?;
    elf::check_static(&head).map_err(|reason| PackageError::Executable { path: path.to_owned(), reason })?;
    let size = file.metadata().map_err(durable::failed("look at", path))?.len();
    let folder = tempfile::tempdir().map_err(durable::failed("make a folder in", &std::env::temp_dir()))?;
    let layer_path = folder.path().join("layer.tar");
    let layer = write_layer(&layer_path, io::Cursor::new(head).chain(file), size)
        .map_err(durable::failed("package", path))?;
    let config = ImageConfig {
        architecture: "amd64",
        os: "linux",
        config: Execution { entrypoint: [ENTRYPOINT], working_dir: "/" },
        rootfs: RootFs { r#type: "layers", diff_ids: [layer.digest] },
    };
    let config = serde_json::to_vec(&config).expect("strings and digests always serialise");
    let config = LocalBlob::of(media_type::IMAGE_CONFIG, config);
    let manifest = ManifestFile::new(config.descriptor(), vec![layer.clone()]).to_bytes();
    let blobs = vec![config, LocalBlob::file(&layer, layer_path)];
    LocalArtifact::new(manifest, media_type::MANIFEST, blobs, Some(Arc::new(folder)))
}

fn write_layer(path: &Path, executable: impl io::Read, size: u64) -> io::Result<Descriptor> {
    let mut header = tar::Header::new_ustar();
    header.set_path(ENTRYPOINT.trim_start_matches('/'))?;
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    let hashing = Hashing { file: io::BufWriter::new(File::create(path)?), hasher: Sha256::new(), len: 0 };
    let mut archive = tar::Builder::new(hashing);
    // A file that grew meanwhile must not run over into the next header.
    let mut executable = executable.take(size);
    archive.append(&header, &mut executable)?;
    if executable.limit() > 0 {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the file became shorter while it was read",
        ));
    }
    let mut hashing = archive.into_inner()?;
    hashing.file.flush()?;
    let digest = Digest::from_sha256(hashing.hasher.finalize().into());
    Ok(Descriptor::new(media_type::LAYER_TAR, digest, hashing.len))
}

/// Hashes what is written through it.
struct Hashing<W> {
    file: W,
    hasher: Sha256,
    len: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.len += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Digest and length of a file.
pub(super) fn hash_file(path: &Path) -> Result<(Digest, u64), DiskError> {
    let hash = || {
        let mut hashing = Hashing { file: io::sink(), hasher: Sha256::new(), len: 0 };
        io::copy(&mut File::open(path)?, &mut hashing)?;
        Ok((Digest::from_sha256(hashing.hasher.finalize().into()), hashing.len))
    };
    hash().map_err(durable::failed("read", path))
}
