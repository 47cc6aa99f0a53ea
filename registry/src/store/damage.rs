//! Content that was changed on disk: moved aside once a read has found it out, so that the registry stops saying
//! that it has the blob and the next push sends it again. What was moved aside is never read, only kept for a while
//! for whoever looks into the damage.

use super::{Store, digest_of_hex, sink};
use crate::durable;
use neap_sdk::Digest;
use sha2::Digest as _;
use std::{
    fs::{self, File},
    io::{self, Seek as _},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::PoisonError,
    time::SystemTime,
};

const SUFFIX: &str = ".damaged";

/// The digest whose damaged content has the file name `name`.
pub(crate) fn digest_of_damaged(name: &str) -> Option<Digest> {
    name.strip_suffix(SUFFIX).and_then(digest_of_hex)
}

impl Store {
    /// Runs `work`, which puts checked content into its place, while nothing is moved aside.
    pub(super) fn placing<T>(&self, work: impl FnOnce() -> T) -> T {
        let _places = self.0.places.read().unwrap_or_else(PoisonError::into_inner);
        work()
    }

    fn damaged_path(&self, digest: &Digest) -> PathBuf {
        let mut path = self.blob_path(digest).into_os_string();
        path.push(SUFFIX);
        path.into()
    }

    /// Reads `file`, the content of `digest`, from its beginning and moves it aside if it is damaged; whether it is.
    pub(super) fn check_file(&self, digest: Digest, mut file: &File) -> io::Result<bool> {
        file.rewind()?;
        let damaged = Digest::from_sha256(sink::hash(file)?.finalize().into()) != digest;
        if damaged {
            self.move_aside(digest, file);
        }
        Ok(damaged)
    }

    /// Moves `file`, which was found in the place of `digest` with other bytes, aside. Good bytes that came into
    /// its place since then stay. An older file that was moved aside is replaced, so there is at most one.
    pub(crate) fn move_aside(&self, digest: Digest, file: &File) {
        let aside = self.damaged_path(&digest);
        let moved = {
            let _places = self.0.places.write().unwrap_or_else(PoisonError::into_inner);
            self.is_in_place(digest, file).and_then(|there| match there {
                true => {
                    // The garbage collection's grace begins now.
                    let _ = file.set_modified(SystemTime::now());
                    fs::rename(self.blob_path(&digest), &aside).map(|()| true)
                }
                false => Ok(false),
            })
        };
        let synced = moved.map_err(durable::failed("move damaged content to", &aside)).and_then(|moved| {
            aside.parent().filter(|_| moved).map_or(Ok(()), durable::sync_dir).map(|()| moved)
        });
        match synced {
            Ok(true) => {
                tracing::warn!(%digest, aside = %aside.display(), "content was changed on disk; moved aside")
            }
            Ok(false) => {}
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(%digest, error, "content was changed on disk and cannot be moved aside");
            }
        }
    }

    /// Whether `file` is still what lies in the place of `digest`. As long as it is open nothing else has its inode.
    fn is_in_place(&self, digest: Digest, file: &File) -> io::Result<bool> {
        let ours = file.metadata()?;
        match fs::metadata(self.blob_path(&digest)) {
            Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}
