//! The bytes of one layer: decompressed, hashed and counted on the way.
//!
//! It must never yield a byte beyond its limit, and never buffer a layer.

use flate2::read::MultiGzDecoder;
use neap_sdk::{Digest, limits};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, BufReader, Read};

/// How the tar archive of a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Plain tar.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// From the media type of a layer; `None` for one that is not a layer neap can unpack.
    ///
    /// Sources: OCI image-spec 1.1 `layer.md`, Docker image manifest v2 schema 2.
    pub fn of(media_type: &str) -> Option<Self> {
        match media_type {
            "application/vnd.oci.image.layer.v1.tar" | "application/vnd.docker.image.rootfs.diff.tar" => {
                Some(Self::None)
            }
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Some(Self::Gzip),
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Most bytes that a layer of `compressed` bytes may become, when the image has `left` bytes left.
pub fn limit(compressed: u64, left: u64) -> u64 {
    let ratio = compressed.saturating_mul(limits::IMAGE_COMPRESSION_RATIO_MAX);
    left.min(ratio.max(limits::IMAGE_RATIO_FREE_BYTES))
}

/// The uncompressed stream of one layer.
pub struct LayerStream {
    inner: Box<dyn Read>,
    hasher: Sha256,
    read_bytes: u64,
    limit_bytes: u64,
    exceeded: bool,
}

/// Largest zstd window: 128 MiB, what the zstd tool itself accepts without being asked.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

impl LayerStream {
    /// Reads `file` and yields at most `limit_bytes`.
    pub fn new(file: File, compression: Compression, limit_bytes: u64) -> io::Result<Self> {
        let file = BufReader::with_capacity(64 << 10, file);
        let inner: Box<dyn Read> = match compression {
            Compression::None => Box::new(file),
            Compression::Gzip => Box::new(MultiGzDecoder::new(file)),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(file)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Box::new(decoder)
            }
        };
        Ok(Self { inner, hasher: Sha256::new(), read_bytes: 0, limit_bytes, exceeded: false })
    }

    /// True once the layer had more bytes than it may.
    pub const fn exceeded(&self) -> bool {
        self.exceeded
    }

    /// Bytes yielded so far.
    pub const fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// The digest of everything that was yielded: the layer's `diff_id` once the end is reached.
    pub fn digest(self) -> Digest {
        Digest::from_sha256(self.hasher.finalize().into())
    }
}

impl Read for LayerStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.read_bytes += count as u64;
        if self.read_bytes > self.limit_bytes {
            self.exceeded = true;
            return Err(io::Error::other("the layer is larger than it may be"));
        }
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}
