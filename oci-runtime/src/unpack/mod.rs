//! Turns the layers of an image into one folder, once per image, safely and within limits.
//!
//! The folder is made under a temporary name and renamed when everything in it was verified, so an image is there
//! whole or not at all, and two unpackers of one image do not disturb each other. One flattened folder per image, and
//! not one per layer: the spawner then mounts an overlay with one lower folder, whatever the image.
//!
//! Everything here blocks; it must run on a blocking thread. It must not trust a byte of a layer.

mod header;
mod layer;
mod root;
mod stream;

use crate::image::{self, Image, ImageFiles, LayerFile};
use neap_sdk::{Digest, limits};
use oci_spec::image::ImageConfiguration;
pub use root::PathError;
use root::Root;
use rustix::fs::{self as rfs, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use stream::{Compression, LayerStream};

/// Why an image could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The config of the image is not one.
    #[error("the image's config {path:?} cannot be used: {reason}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The image is for another machine.
    #[error("the image is for {image}, this machine is {host}; push an image for {host}")]
    Platform {
        /// `os/architecture` of the image.
        image: String,
        /// `os/architecture` of this machine.
        host: String,
    },
    /// More layers than any image has.
    #[error("the image has {0} layers; at most {max} are unpacked", max = limits::IMAGE_LAYERS_MAX)]
    TooManyLayers(usize),
    /// The manifest and the config tell of different layers.
    #[error("the manifest has {layers} layers, the config's rootfs.diff_ids has {diff_ids}")]
    LayerCount {
        /// Layers of the manifest.
        layers: usize,
        /// Entries of `rootfs.diff_ids`.
        diff_ids: usize,
    },
    /// One layer is bad.
    #[error("layer {number} ({layer})")]
    Layer {
        /// Counted from 1.
        number: usize,
        /// The digest of the (compressed) layer.
        layer: Digest,
        /// What is wrong with it.
        source: LayerError,
    },
    /// The unpacked image cannot be run.
    #[error("the image cannot be run: {0}")]
    NotRunnable(String),
    /// The state folder does not do what it should.
    #[error("cannot {action} {path:?}; look at the space and the permissions of the data folder")]
    Store {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The server is stopping.
    #[error("unpacking was interrupted because the server stops")]
    Interrupted,
}

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Not a layer that neap knows.
    #[error("media type {0:?} is not a layer that can be unpacked (tar, tar+gzip or tar+zstd)")]
    MediaType(String),
    /// Its file cannot be read.
    #[error("cannot open {path:?}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not a tar archive, or a broken one.
    #[error("the archive is damaged")]
    Damaged(#[source] io::Error),
    /// Larger than it may be.
    #[error(
        "it unpacks to more than {} GiB, or to more than {} times its size",
        limits::IMAGE_UNPACKED_BYTES_MAX >> 30,
        limits::IMAGE_COMPRESSION_RATIO_MAX
    )]
    TooLarge,
    /// More entries than any image has.
    #[error("the image has more than {} entries", limits::IMAGE_ENTRIES_MAX)]
    TooManyEntries,
    /// One entry is bad.
    #[error("entry \"{entry}\"")]
    Entry {
        /// Its path, made printable.
        entry: String,
        /// What is wrong with it.
        source: EntryError,
    },
    /// The bytes are not those the config promises.
    #[error("its content has diff_id {found}, the config says {expected}")]
    DiffId {
        /// From `rootfs.diff_ids`.
        expected: String,
        /// Of the bytes.
        found: Digest,
    },
}

/// Why an entry of a layer was refused.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// Its path is not safe.
    #[error(transparent)]
    Path(#[from] PathError),
    /// `.wh.` without a name behind it.
    #[error("it is a whiteout that names nothing")]
    Whiteout,
    /// A link without a usable target.
    #[error("its link target is missing, too long or a directory")]
    LinkTarget,
    /// Something that no image needs.
    #[error("it is {0}, which is not supported")]
    Unsupported(&'static str),
    /// Its extension headers are too large.
    #[error("its extension headers are larger than {} bytes", limits::IMAGE_ENTRY_HEADER_BYTES_MAX)]
    HeaderTooLarge,
    /// Its two headers name different sizes.
    #[error("its PAX record and its header name different sizes")]
    TwoSizes,
    /// A number that is none, or too large.
    #[error("its {0} is not a number that can be used")]
    Number(String),
    /// The archive ends early or cannot be decompressed.
    #[error("the archive is damaged here")]
    Damaged(#[source] io::Error),
    /// The disk is full, or the like.
    #[error("it cannot be written")]
    Write(#[source] io::Error),
}

impl From<Errno> for EntryError {
    fn from(error: Errno) -> Self {
        Self::Write(error.into())
    }
}

/// Where unpacked images lie: `<dir>/<hex digest>/{rootfs,image.json}`.
#[derive(Debug, Clone)]
pub struct ImageStore {
    dir: PathBuf,
}

const TEMPORARY: &str = ".unpacking-";

impl ImageStore {
    /// Opens the store in `dir`; what an interrupted unpacking left is removed. The caller owns `dir` alone.
    pub fn open(dir: PathBuf) -> Result<Self, UnpackError> {
        // Images hold set-id files of foreigners: only root may enter.
        std::fs::DirBuilder::new()
            .recursive(true)
            .create(&dir)
            .and_then(|()| {
                std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            })
            .map_err(store("create", &dir))?;
        for entry in std::fs::read_dir(&dir).map_err(store("read", &dir))? {
            let entry = entry.map_err(store("read", &dir))?;
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                std::fs::remove_dir_all(entry.path()).map_err(store("remove", &entry.path()))?;
            }
        }
        Ok(Self { dir })
    }

    /// The root folder of an unpacked image.
    pub fn rootfs(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.hex()).join("rootfs")
    }

    /// What an unpacked image runs; `None` where it is not unpacked.
    pub fn find(&self, digest: &Digest) -> Result<Option<Image>, UnpackError> {
        let path = self.dir.join(digest.hex()).join("image.json");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(store("read", &path)(error)),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| store("read", &path)(error.into()))
    }

    /// Unpacks `files` if that was not done yet.
    pub fn unpack(&self, files: &ImageFiles) -> Result<Image, UnpackError> {
        if let Some(image) = self.find(&files.digest)? {
            return Ok(image);
        }
        let config = read_config(&files.config)?;
        image::check_platform(&config)?;
        let temporary = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .tempdir_in(&self.dir)
            .map_err(store("create a folder in", &self.dir))?;
        let image = fill(temporary.path(), files, &config)?;
        self.keep(temporary, &files.digest)?;
        Ok(image)
    }

    /// Gives the finished folder its name. Whoever is second finds the name taken by the same content.
    fn keep(&self, temporary: tempfile::TempDir, digest: &Digest) -> Result<(), UnpackError> {
        let path = self.dir.join(digest.hex());
        // Files first, then the name: a crash in between leaves only a temporary folder.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rfs::open(temporary.path(), flags, Mode::empty())
            .and_then(rfs::syncfs)
            .map_err(|error| store("write", temporary.path())(error.into()))?;
        match std::fs::rename(temporary.path(), &path) {
            Ok(()) => {
                // Nothing is left at the old name; only the guard has to be told.
                let _ = temporary.keep();
                File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(store("write", &self.dir))
            }
            Err(_) if path.join("image.json").exists() => Ok(()),
            Err(error) => Err(store("create", &path)(error)),
        }
    }
}

fn store(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> UnpackError + use<> {
    let path = path.to_owned();
    move |source| UnpackError::Store { action, path, source }
}

fn read_config(path: &Path) -> Result<ImageConfiguration, UnpackError> {
    let broken = |reason: String| UnpackError::Config { path: path.to_owned(), reason };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limits::CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| broken(error.to_string()))?;
    if bytes.len() as u64 > limits::CONFIG_BYTES_MAX {
        return Err(broken(format!("it is larger than {} bytes", limits::CONFIG_BYTES_MAX)));
    }
    serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))
}

/// Fills `dir` with `rootfs` and `image.json`.
fn fill(dir: &Path, files: &ImageFiles, config: &ImageConfiguration) -> Result<Image, UnpackError> {
    if files.layers.len() > limits::IMAGE_LAYERS_MAX {
        return Err(UnpackError::TooManyLayers(files.layers.len()));
    }
    let diff_ids = config.rootfs().diff_ids();
    if diff_ids.len() != files.layers.len() {
        return Err(UnpackError::LayerCount { layers: files.layers.len(), diff_ids: diff_ids.len() });
    }
    let rootfs = dir.join("rootfs");
    std::fs::create_dir(&rootfs).map_err(store("create", &rootfs))?;
    let root = Root::open(&rootfs).map_err(|error| store("open", &rootfs)(error.into()))?;
    rfs::chmod(&rootfs, Mode::from_raw_mode(0o755)).map_err(|error| store("open", &rootfs)(error.into()))?;
    let mut budget = Budget { bytes: limits::IMAGE_UNPACKED_BYTES_MAX, entries: limits::IMAGE_ENTRIES_MAX };
    for (index, (layer, diff_id)) in files.layers.iter().zip(diff_ids).enumerate() {
        apply_layer(&root, layer, diff_id, &mut budget).map_err(|source| UnpackError::Layer {
            number: index + 1,
            layer: layer.digest,
            source,
        })?;
    }
    let image = image::resolve(config, |path| read_account_file(&root, path))?;
    furnish(&root, &image)?;
    let path = dir.join("image.json");
    let json = serde_json::to_vec(&image).map_err(|error| store("write", &path)(error.into()))?;
    std::fs::write(&path, json).map_err(store("write", &path))?;
    Ok(image)
}

/// What an image may still unpack to.
struct Budget {
    bytes: u64,
    entries: u64,
}

fn apply_layer(root: &Root, layer: &LayerFile, diff_id: &str, budget: &mut Budget) -> Result<(), LayerError> {
    let compression = Compression::of(&layer.media_type)
        .ok_or_else(|| LayerError::MediaType(layer.media_type.chars().take(200).collect()))?;
    let open = |source| LayerError::Open { path: layer.path.clone(), source };
    let file = File::open(&layer.path).map_err(open)?;
    let compressed = file.metadata().map_err(open)?.len();
    let limit_bytes = stream::limit(compressed, budget.bytes);
    let stream = LayerStream::new(file, compression, limit_bytes).map_err(LayerError::Damaged)?;
    let stream = layer::apply(root, stream, &mut budget.entries)?;
    budget.bytes = budget.bytes.saturating_sub(stream.read_bytes());
    let found = stream.digest();
    if diff_id != found.to_string() {
        return Err(LayerError::DiffId { expected: diff_id.chars().take(100).collect(), found });
    }
    Ok(())
}

/// `/etc/passwd` or `/etc/group`; empty where the image has none.
fn read_account_file(root: &Root, path: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    if let Some(fd) = root.read(path).map_err(|error| format!("cannot open its {path}: {error}"))? {
        let file = File::from(fd);
        let regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
        if !regular {
            return Err(format!("its {path} is not a file"));
        }
        file.take(limits::IMAGE_ACCOUNTS_BYTES_MAX)
            .read_to_end(&mut bytes)
            .map_err(|error| format!("cannot read its {path}: {error}"))?;
    }
    Ok(bytes)
}

/// Makes what every container needs and a minimal image lacks: mount points, `/tmp`, `/etc/hosts`, the working
/// directory. Mount points must be real directories: a link there could lead a mount elsewhere (CVE-2026-41579).
fn furnish(root: &Root, image: &Image) -> Result<(), UnpackError> {
    let refuse = |what: &str, error: &dyn std::fmt::Display| {
        UnpackError::NotRunnable(format!("its {what} cannot be used: {error}"))
    };
    for name in ["dev", "proc", "sys"] {
        match rfs::mkdirat(root.fd(), name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rfs::openat(root.fd(), name, flags, Mode::empty())
                    .map_err(|_| refuse(&format!("/{name}"), &"it is not a directory"))?;
            }
            Err(error) => return Err(refuse(&format!("/{name}"), &error)),
        }
    }
    if rfs::mkdirat(root.fd(), "tmp", Mode::from_raw_mode(0o700)).is_ok() {
        let tmp = root.directory(&[OsString::from("tmp")], false).map_err(|error| refuse("/tmp", &error))?;
        rfs::chmodat(&tmp, ".", Mode::from_raw_mode(0o1777), rfs::AtFlags::empty())
            .map_err(|error| refuse("/tmp", &error))?;
    }
    let etc = root.directory(&[OsString::from("etc")], true).map_err(|error| refuse("/etc", &error))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if let Ok(hosts) = rfs::openat(&etc, "hosts", flags, Mode::from_raw_mode(0o644)) {
        io::Write::write_all(&mut File::from(hosts), b"127.0.0.1\tlocalhost\n::1\tlocalhost\n")
            .map_err(|error| refuse("/etc/hosts", &error))?;
    }
    let working_dir = root::components(image.working_dir.trim_start_matches('/').as_bytes())
        .map_err(|error| refuse("working directory", &error))?;
    root.directory(&working_dir, true).map_err(|error| refuse("working directory", &error))?;
    Ok(())
}

#[cfg(test)]
mod tests;
