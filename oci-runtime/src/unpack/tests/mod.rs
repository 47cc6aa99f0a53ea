//! Layers made by hand, good and evil, unpacked into a temporary folder.

mod attacks;
mod layers;

use super::*;
use serde_json::json;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use tar::{EntryType, Header};

/// A layer under construction; writes paths as they are, which the tar crate's builder would refuse.
#[derive(Default)]
struct Layer(Vec<u8>);

fn header(path: &str, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(size);
    header
}

impl Layer {
    fn raw(mut self, mut header: Header, content: &[u8]) -> Self {
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.raw(header(path, EntryType::Regular, content.len() as u64), content.as_bytes())
    }

    fn directory(self, path: &str) -> Self {
        let mut header = header(path, EntryType::Directory, 0);
        header.set_mode(0o755);
        self.raw(header, b"")
    }

    fn link(self, path: &str, kind: EntryType, target: &str) -> Self {
        let mut header = header(path, kind, 0);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        self.raw(header, b"")
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.link(path, EntryType::Symlink, target)
    }

    fn hard_link(self, path: &str, target: &str) -> Self {
        self.link(path, EntryType::Link, target)
    }

    /// PAX records for the next entry.
    fn pax(self, records: &[(&str, &str)]) -> Self {
        let mut content = String::new();
        for (key, value) in records {
            // The length counts its own digits.
            let rest = key.len() + value.len() + 3;
            let length = (1..).find(|length: &usize| length.to_string().len() + rest == *length).unwrap();
            content.push_str(&format!("{length} {key}={value}\n"));
        }
        self.raw(header("pax", EntryType::XHeader, content.len() as u64), content.as_bytes())
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// A folder with a store in it, beside a file that nothing may touch.
struct Fixture {
    dir: tempfile::TempDir,
    store: ImageStore,
}

const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

impl Fixture {
    /// `None`, with a printed reason, without root: layers set owners.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: unpacking sets owners, which needs root");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("outside"), "untouched").unwrap();
        let store = ImageStore::open(dir.path().join("images")).unwrap();
        Some(Self { dir, store })
    }

    /// An image of `layers`, each with its media type, its file's bytes and its uncompressed bytes.
    fn image_of(&self, layers: &[(&str, Vec<u8>, Vec<u8>)]) -> ImageFiles {
        let diff_ids: Vec<String> =
            layers.iter().map(|(_, _, plain)| Digest::of(plain).to_string()).collect();
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = json!({"architecture": architecture, "os": "linux", "config": {"Cmd": ["/x"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        self.image_with(layers, &config)
    }

    fn image_with(&self, layers: &[(&str, Vec<u8>, Vec<u8>)], config: &serde_json::Value) -> ImageFiles {
        let digest = Digest::of(config.to_string().as_bytes());
        let path = self.dir.path().join(digest.hex());
        std::fs::write(&path, config.to_string()).unwrap();
        let layers = layers
            .iter()
            .map(|(media_type, bytes, _)| {
                let digest = Digest::of(bytes);
                let path = self.dir.path().join(digest.hex());
                std::fs::write(&path, bytes).unwrap();
                LayerFile { digest, media_type: (*media_type).to_owned(), path }
            })
            .collect();
        ImageFiles { digest, config: path, layers }
    }

    fn plain(&self, layers: Vec<Layer>) -> ImageFiles {
        let layers: Vec<_> =
            layers.into_iter().map(Layer::finish).map(|tar| (TAR, tar.clone(), tar)).collect();
        self.image_of(&layers)
    }

    /// Unpacks plain layers; the root folder.
    fn unpack(&self, layers: Vec<Layer>) -> PathBuf {
        let image = self.plain(layers);
        self.store.unpack(&image).map_err(|error| full_text(&error)).unwrap();
        self.store.rootfs(&image.digest)
    }

    /// The text with which layers are refused. Nothing may be left of them, inside or outside.
    fn refused(&self, layers: Vec<Layer>) -> String {
        let image = self.plain(layers);
        self.refused_image(&image)
    }

    fn refused_image(&self, image: &ImageFiles) -> String {
        let error = self.store.unpack(image).map(drop).expect_err("must be refused");
        assert_eq!(
            std::fs::read_dir(self.dir.path().join("images")).unwrap().count(),
            0,
            "something is left"
        );
        assert_eq!(std::fs::read_to_string(self.dir.path().join("outside")).unwrap(), "untouched");
        assert_eq!(std::fs::metadata(self.dir.path().join("outside")).unwrap().nlink(), 1);
        full_text(&error)
    }
}

fn full_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn read(root: &Path, path: &str) -> Option<String> {
    std::fs::read_to_string(root.join(path)).ok()
}
