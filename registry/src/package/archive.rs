//! Archives: an OCI layout in a tar, or what `docker save` writes, either also gzipped.
//!
//! An archive is taken apart into a temporary folder by names that we allow; links in it are remembered, not made,
//! so nothing outside can be read or written. Docker's format has no manifest of its own, so one is made.

use super::{
    LocalArtifact, LocalBlob, PackageError,
    image::{ManifestFile, hash_file},
    layout, read_at_most,
};
use crate::{durable, manifest::Descriptor};
use flate2::read::MultiGzDecoder;
use neap_sdk::{Digest, artifact::media_type, limits};
use serde::Deserialize;
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

const LINKS_FOLLOWED_MAX: usize = 8;

/// Reads the archive at `path`.
pub(super) fn read(path: &Path) -> Result<LocalArtifact, PackageError> {
    let folder = tempfile::tempdir().map_err(durable::failed("make a folder in", &std::env::temp_dir()))?;
    let unpacked = Unpacked { path, dir: folder.path().to_owned(), links: unpack(path, folder.path())? };
    let folder = Arc::new(folder);
    if unpacked.dir.join("oci-layout").is_file() && unpacked.dir.join("index.json").is_file() {
        return layout::read(&unpacked.dir, path, Some(folder));
    }
    if unpacked.dir.join("manifest.json").is_file() {
        return unpacked.docker(folder);
    }
    Err(unpacked.wrong("it has neither `index.json` (OCI) nor `manifest.json` (Docker)"))
}

/// A path in an archive that stays inside; `None` for any other.
fn inside(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            Component::ParentDir if clean.pop() => {}
            _ => return None,
        }
    }
    (!clean.as_os_str().is_empty()).then_some(clean)
}

/// Writes the archive's files below `dir`; returns its links, from name to target.
fn unpack(path: &Path, dir: &Path) -> Result<HashMap<PathBuf, PathBuf>, PackageError> {
    let failed = |error| durable::failed("unpack", path)(error);
    let wrong = |reason: String| PackageError::Image { path: path.to_owned(), reason };
    let mut file = File::open(path).map_err(failed)?;
    let mut magic = [0; 2];
    file.read_exact(&mut magic).map_err(failed)?;
    let whole = io::Cursor::new(magic).chain(file);
    let reader: Box<dyn Read> =
        if magic == [0x1f, 0x8b] { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) };
    // The limit also holds for what is skipped, so a small archive cannot unpack for ever.
    let mut archive = tar::Archive::new(reader.take(limits::IMAGE_UNPACKED_BYTES_MAX));
    let mut links = HashMap::new();
    for (count, entry) in archive.entries().map_err(failed)?.enumerate() {
        if count == limits::ARCHIVE_ENTRIES_MAX {
            return Err(wrong(format!("it has more than {count} files")));
        }
        let mut entry = entry.map_err(failed)?;
        let name = entry.path().map_err(failed)?.into_owned();
        let kind = entry.header().entry_type();
        if kind.is_dir() || kind.is_pax_global_extensions() {
            continue;
        }
        let Some(name) = inside(&name) else {
            return Err(wrong(format!("its file {:.200?} would lie outside of it", name.display())));
        };
        match entry.link_name().map_err(failed)? {
            // A symbolic link starts at its own folder, a hard link at the top.
            Some(target) if kind.is_symlink() || kind.is_hard_link() => {
                let base = name.parent().filter(|_| kind.is_symlink()).unwrap_or(Path::new(""));
                let target = inside(&base.join(target));
                links.extend(target.map(|target| (name, target)));
            }
            _ if kind.is_file() => {
                let to = dir.join(&name);
                let mut write = || {
                    fs::create_dir_all(to.parent().unwrap_or(dir))?;
                    io::copy(&mut entry, &mut File::create(&to)?)
                };
                write().map_err(failed)?;
            }
            _ => {}
        }
    }
    Ok(links)
}

struct Unpacked<'a> {
    path: &'a Path,
    dir: PathBuf,
    links: HashMap<PathBuf, PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: PathBuf,
    layers: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct DockerConfig {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

impl Unpacked<'_> {
    fn wrong(&self, reason: impl Into<String>) -> PackageError {
        PackageError::Image { path: self.path.to_owned(), reason: reason.into() }
    }

    /// The unpacked file that the archive calls `name`.
    fn file(&self, name: &Path) -> Result<PathBuf, PackageError> {
        let mut clean = inside(name);
        for _ in 0..LINKS_FOLLOWED_MAX {
            match clean.as_ref().and_then(|name| self.links.get(name)) {
                Some(target) => clean = Some(target.clone()),
                None => break,
            }
        }
        let path = clean.map(|name| self.dir.join(name)).filter(|path| path.is_file());
        path.ok_or_else(|| {
            self.wrong(format!("its manifest names {:.200?}, which it does not have", name.display()))
        })
    }

    fn docker(&self, folder: Arc<tempfile::TempDir>) -> Result<LocalArtifact, PackageError> {
        let list = read_at_most(&self.dir.join("manifest.json"), limits::MANIFEST_BYTES_MAX)?;
        let images: Vec<DockerImage> = serde_json::from_slice(&list)
            .map_err(|error| self.wrong(format!("its manifest.json is damaged ({error})")))?;
        let [image] = images.as_slice() else {
            return Err(self.wrong(format!("it holds {} images; save one at a time", images.len())));
        };
        let config = read_at_most(&self.file(&image.config)?, limits::CONFIG_BYTES_MAX)?;
        let parsed: DockerConfig = serde_json::from_slice(&config)
            .map_err(|error| self.wrong(format!("its configuration is damaged ({error})")))?;
        if parsed.rootfs.diff_ids.len() != image.layers.len() {
            return Err(self.wrong("its configuration and its manifest list different layers"));
        }
        let config = LocalBlob::of(media_type::IMAGE_CONFIG, config);
        let mut layers = Vec::new();
        let mut blobs = vec![config];
        for (name, diff_id) in image.layers.iter().zip(parsed.rootfs.diff_ids) {
            let path = self.file(name)?;
            let layer = self.layer(&path, diff_id)?;
            blobs.push(LocalBlob::file(&layer, path));
            layers.push(layer);
        }
        let manifest = ManifestFile::new(blobs[0].descriptor(), layers).to_bytes();
        LocalArtifact::new(manifest, media_type::MANIFEST, blobs, Some(folder))
    }

    fn layer(&self, path: &Path, diff_id: Digest) -> Result<Descriptor, PackageError> {
        let (digest, size) = hash_file(path)?;
        let mut magic = [0; 2];
        let is_gzip = File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok()
            && magic == [0x1f, 0x8b];
        if is_gzip {
            // Its digest over the uncompressed bytes is checked where it is unpacked.
            return Ok(Descriptor::new(media_type::LAYER_TAR_GZIP, digest, size));
        }
        match digest == diff_id {
            true => Ok(Descriptor::new(media_type::LAYER_TAR, digest, size)),
            false => {
                Err(self.wrong(format!("its layer {diff_id} was changed: the bytes have digest {digest}")))
            }
        }
    }
}
