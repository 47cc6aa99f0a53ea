//! Files that survive a crash: written beside, synced, renamed, and the folder synced. What these functions have
//! returned `Ok` for is on disk, whole. They block; async callers run them on the blocking pool.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// A file or folder that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}{}", path.display(), if self.is_full() { ": the disk is full; free some space and try again" } else { "" })]
pub struct DiskError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl DiskError {
    /// Whether the disk, or the user's share of it, is full.
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// Adds to an I/O error what was done to which file.
pub(crate) fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DiskError {
    move |source| DiskError { doing, path: path.to_owned(), source }
}

/// Makes a folder and its missing parents, durably.
pub(crate) fn create_dir(path: &Path) -> Result<(), DiskError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_dir(parent)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(failed("make the folder", path)(error))
        }
        // Whoever won the race may not have synced yet.
        _ => parent.map_or(Ok(()), sync_dir),
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(path: &Path) -> Result<(), DiskError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(failed("sync the folder", path))
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// Replaces the file at `path` by `bytes` in one step. `scratch` is a folder on the same file system whose
/// contents mean nothing. The folder of `path` is made where it is missing.
pub(crate) fn write(scratch: &Path, path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    let mut file =
        tempfile::NamedTempFile::new_in(scratch).map_err(failed("make a temporary file in", scratch))?;
    file.write_all(bytes).map_err(failed("write", file.path()))?;
    file.as_file().sync_all().map_err(failed("sync", file.path()))?;
    create_dir(parent(path))?;
    file.persist(path).map_err(|error| failed("write", path)(error.error))?;
    sync_dir(parent(path))
}

/// Moves a synced file to its place, replacing what is there. The folder is made where it is missing.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), DiskError> {
    create_dir(parent(to))?;
    fs::rename(from, to).map_err(failed("write", to))?;
    sync_dir(parent(to))
}

/// Removes a file; `false` where there was none.
pub(crate) fn remove(path: &Path) -> Result<bool, DiskError> {
    match fs::remove_file(path) {
        Ok(()) => sync_dir(parent(path)).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("remove", path)(error)),
    }
}

/// Reads a small file of our own; `None` where there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, DiskError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

/// The names in a folder, in no order; none where there is no folder. Names that are not UTF-8 are not ours.
pub(crate) fn names(path: &Path) -> Result<Vec<String>, DiskError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(failed("list", path)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed("list", path))?;
        names.extend(entry.file_name().into_string().ok());
    }
    Ok(names)
}
