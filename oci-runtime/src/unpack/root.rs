//! Resolves the paths of a layer inside one folder, and nowhere else.
//!
//! Each step is `openat2` with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`; symbolic links are followed here, by hand, so
//! that a link which climbs above the root is an error with a name and not a silent stop at the root.
//! It must never hand a path with more than one component to the kernel unless those flags guard it.

use neap_sdk::limits;
use rustix::fs::{self, AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

/// Why a path of a layer leads nowhere safe.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// The path begins with `/`.
    #[error("its path is absolute")]
    Absolute,
    /// The path has a `..` in it.
    #[error("its path contains \"..\"")]
    ParentComponent,
    /// A symbolic link on the way leads above the root.
    #[error("a symbolic link on its path leads out of the image")]
    Escapes,
    /// Too many symbolic links, or a loop of them.
    #[error("its path leads through more than {} symbolic links", limits::IMAGE_SYMLINKS_FOLLOWED_MAX)]
    TooManyLinks,
    /// The path is empty where a name is needed, or has a NUL byte.
    #[error("its path is empty or holds a NUL byte")]
    Invalid,
    /// Longer than any path may be.
    #[error(
        "its path is longer than {} bytes or {} folders",
        limits::IMAGE_PATH_BYTES_MAX,
        limits::IMAGE_PATH_DEPTH_MAX
    )]
    TooLong,
    /// Something on the way is a file.
    #[error("{0:?} on its path is not a directory")]
    NotADirectory(OsString),
    /// Something on the way does not exist.
    #[error("{0:?} on its path does not exist")]
    Missing(OsString),
    /// The operating system refused.
    #[error("cannot resolve its path")]
    Io(#[from] Errno),
}

/// A relative path without `.` and `..`.
pub type Components = Vec<OsString>;

/// Splits the path of a layer entry; refuses what could climb.
pub fn components(path: &[u8]) -> Result<Components, PathError> {
    if path.first() == Some(&b'/') {
        return Err(PathError::Absolute);
    }
    if path.len() > limits::IMAGE_PATH_BYTES_MAX {
        return Err(PathError::TooLong);
    }
    if path.contains(&0) {
        return Err(PathError::Invalid);
    }
    let mut parts = Components::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(PathError::ParentComponent),
            name => parts.push(OsStr::from_bytes(name).to_owned()),
        }
    }
    if parts.len() > limits::IMAGE_PATH_DEPTH_MAX {
        return Err(PathError::TooLong);
    }
    Ok(parts)
}

/// A folder that no path leaves.
pub struct Root {
    fd: OwnedFd,
}

const STEP: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Root {
    /// Opens the folder at `path`.
    pub fn open(path: &Path) -> Result<Self, Errno> {
        Ok(Self { fd: fs::open(path, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())? })
    }

    /// The folder itself.
    pub fn fd(&self) -> impl AsFd + '_ {
        self.fd.as_fd()
    }

    /// Opens the directory at `path` (an `O_PATH` descriptor). With `create`, missing parts are made with mode 0755.
    pub fn directory(&self, path: &[OsString], create: bool) -> Result<OwnedFd, PathError> {
        if path.is_empty() {
            return Ok(fs::openat(&self.fd, ".", DIRECTORY, Mode::empty())?);
        }
        let joined = path.join(OsStr::new("/"));
        match fs::openat2(&self.fd, &joined, DIRECTORY, Mode::empty(), STEP) {
            Ok(fd) => Ok(fd),
            Err(_) => self.walk(path, create),
        }
    }

    /// Opens the file at `path` for reading, following links inside the root; `None` where there is none.
    pub fn read(&self, path: &str) -> Result<Option<OwnedFd>, Errno> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        match fs::openat2(&self.fd, path.trim_start_matches('/'), flags, Mode::empty(), resolve) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn walk(&self, path: &[OsString], create: bool) -> Result<OwnedFd, PathError> {
        let mut pending: VecDeque<OsString> = path.iter().cloned().collect();
        let mut stack: Vec<OwnedFd> = Vec::new();
        let mut links = 0;
        while let Some(part) = pending.pop_front() {
            if part == ".." {
                stack.pop().ok_or(PathError::Escapes)?;
                continue;
            }
            if stack.len() >= limits::IMAGE_PATH_DEPTH_MAX {
                return Err(PathError::TooLong);
            }
            let top = stack.last().unwrap_or(&self.fd);
            match fs::openat2(top, &part, DIRECTORY | OFlags::NOFOLLOW, Mode::empty(), STEP) {
                Ok(fd) => stack.push(fd),
                Err(Errno::NOENT) if create => {
                    fs::mkdirat(top, &part, Mode::from_raw_mode(0o755))?;
                    pending.push_front(part);
                }
                Err(Errno::NOENT) => return Err(PathError::Missing(part)),
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    let target = match fs::readlinkat(top, &part, Vec::new()) {
                        Ok(target) => target.into_bytes(),
                        Err(Errno::INVAL) => return Err(PathError::NotADirectory(part)),
                        Err(error) => return Err(error.into()),
                    };
                    links += 1;
                    if links > limits::IMAGE_SYMLINKS_FOLLOWED_MAX {
                        return Err(PathError::TooManyLinks);
                    }
                    if target.first() == Some(&b'/') {
                        stack.clear();
                    }
                    for part in target.split(|byte| *byte == b'/').rev() {
                        if !matches!(part, b"" | b".") {
                            pending.push_front(OsString::from_vec(part.to_vec()));
                        }
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        match stack.pop() {
            Some(fd) => Ok(fd),
            None => Ok(fs::openat(&self.fd, ".", DIRECTORY, Mode::empty())?),
        }
    }
}

/// Removes `name` in `parent` and all below it; links are removed, never followed. Missing is fine.
pub fn remove(parent: impl AsFd, name: &OsStr) -> Result<(), Errno> {
    match fs::unlinkat(&parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    for child in names(&parent, name)? {
        let directory = fs::openat(&parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
        remove(&directory, &child)?;
    }
    fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)
}

/// The names inside the directory `name` of `parent`, which must not be a link.
pub fn names(parent: impl AsFd, name: &OsStr) -> Result<Vec<OsString>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = fs::openat(&parent, name, flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in fs::Dir::new(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}
