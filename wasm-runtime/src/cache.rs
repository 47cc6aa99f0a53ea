//! Native code on disk, by digest and compiler. A file counts only with the MAC that this cache gave it: native
//! code runs with the server's rights, so what is corrupt or comes from elsewhere is thrown away, never loaded.
//!
//! Layout of the folder: `key` (the MAC's key), `DIGEST-FINGERPRINT.code`, `DIGEST-FINGERPRINT.mac`, and temporary
//! files that a crash may leave and the next start removes.

use hmac::{Hmac, Mac as _};
use neap_sdk::Digest;
use sha2::Sha256;
use std::{
    fs,
    io::{self, Read, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

const KEY_BYTES: usize = 32;
const MAC_BYTES: usize = 32;
const SCRATCH_PREFIX: &str = "compile-";

/// A file of the cache that cannot be used, and why.
#[derive(Debug)]
pub(crate) struct CacheError {
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

/// For `map_err`: the same reason, with the file it speaks of.
fn at(path: &Path) -> impl FnOnce(io::Error) -> CacheError {
    let path = path.to_owned();
    move |source| CacheError { path, source }
}

/// The cache's folder, its key, and the compiler whose code it holds.
#[derive(Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
    key: [u8; KEY_BYTES],
    fingerprint: String,
}

impl Cache {
    /// Opens the folder, makes what is missing, and removes what other compilers and crashes left.
    pub(crate) fn open(dir: PathBuf, fingerprint: String) -> Result<Self, CacheError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(at(&dir))?;
        // A relative folder would move with the working directory, and the child may have another.
        let dir = dir.canonicalize().map_err(at(&dir))?;
        let key = read_or_make_key(&dir.join("key"))?;
        let cache = Self { dir, key, fingerprint };
        cache.sweep()?;
        Ok(cache)
    }

    fn sweep(&self) -> Result<(), CacheError> {
        for entry in fs::read_dir(&self.dir).map_err(at(&self.dir))? {
            let path = entry.map_err(at(&self.dir))?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let ours = matches!(path.extension().and_then(|e| e.to_str()), Some("code" | "mac" | "tmp"));
            if stem.starts_with(SCRATCH_PREFIX) {
                fs::remove_dir_all(&path).map_err(at(&path))?;
            } else if ours && !stem.ends_with(&self.fingerprint) {
                fs::remove_file(&path).map_err(at(&path))?;
            }
        }
        Ok(())
    }

    fn name(&self, digest: &Digest) -> String {
        format!("{}-{}", digest.hex(), self.fingerprint)
    }

    fn code_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(self.name(digest) + ".code")
    }

    fn mac_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(self.name(digest) + ".mac")
    }

    /// A path for the compile child to make its output at; removed when dropped.
    pub(crate) fn scratch(&self) -> Result<Scratch, CacheError> {
        let dir = tempfile::Builder::new().prefix(SCRATCH_PREFIX).tempdir_in(&self.dir);
        let dir = dir.map_err(at(&self.dir))?;
        Ok(Scratch { output: dir.path().join("code"), _dir: dir })
    }

    /// The code of `digest`, opened, where it is there and whole; `None` where it must be built.
    pub(crate) fn find(&self, digest: &Digest) -> Result<Option<fs::File>, CacheError> {
        let (code_path, mac_path) = (self.code_path(digest), self.mac_path(digest));
        let (Some(mut code), Some(mut mac_file)) = (open(&code_path)?, open(&mac_path)?) else {
            return Ok(None);
        };
        let mut expected = Vec::with_capacity(MAC_BYTES);
        Read::by_ref(&mut mac_file)
            .take(MAC_BYTES as u64 + 1)
            .read_to_end(&mut expected)
            .map_err(at(&mac_path))?;
        let mac = self.mac(digest, &mut code).map_err(at(&code_path))?;
        if mac.verify_slice(&expected).is_ok() {
            return Ok(Some(code));
        }
        tracing::warn!(file = %code_path.display(), "compiled code is corrupt or foreign; it is built again");
        Ok(None)
    }

    /// Keeps the code that lies at `built`: synced, with its MAC, and only then under its name.
    pub(crate) fn keep(&self, digest: &Digest, built: &Path) -> Result<(), CacheError> {
        let mut code = fs::File::open(built).map_err(at(built))?;
        let mac = self.mac(digest, &mut code).map_err(at(built))?.finalize().into_bytes();
        code.sync_all().map_err(at(built))?;
        let mut mac_file =
            tempfile::NamedTempFile::with_suffix_in(".tmp", &self.dir).map_err(at(&self.dir))?;
        mac_file.write_all(&mac).and_then(|()| mac_file.as_file().sync_all()).map_err(at(mac_file.path()))?;
        // A crash between the two leaves a pair that does not match, which is built again.
        let (code_path, mac_path) = (self.code_path(digest), self.mac_path(digest));
        fs::rename(built, &code_path).map_err(at(&code_path))?;
        mac_file.persist(&mac_path).map_err(|error| at(&mac_path)(error.error))?;
        fs::File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(at(&self.dir))
    }

    /// Removes the code of `digest`; no error where there is none.
    pub(crate) fn remove(&self, digest: &Digest) -> Result<(), CacheError> {
        for path in [self.mac_path(digest), self.code_path(digest)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&path)(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Over the name and the bytes, so that one function's code does not pass for another's.
    fn mac(&self, digest: &Digest, code: &mut fs::File) -> io::Result<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).map_err(io::Error::other)?;
        mac.update(self.name(digest).as_bytes());
        let mut buffer = vec![0; 256 << 10];
        loop {
            match code.read(&mut buffer)? {
                0 => return Ok(mac),
                read => mac.update(&buffer[..read]),
            }
        }
    }
}

/// A folder for one compilation's output.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub(crate) output: PathBuf,
    _dir: tempfile::TempDir,
}

fn open(path: &Path) -> Result<Option<fs::File>, CacheError> {
    match fs::File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(path)(error)),
    }
}

/// The key is random, never leaves the machine, and is made anew where it is damaged: then all code is foreign.
fn read_or_make_key(path: &Path) -> Result<[u8; KEY_BYTES], CacheError> {
    if let Some(file) = open(path)? {
        let mut bytes = Vec::with_capacity(KEY_BYTES);
        file.take(KEY_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(at(path))?;
        if let Ok(key) = bytes.try_into() {
            return Ok(key);
        }
        fs::remove_file(path).map_err(at(path))?;
    }
    let mut key = [0; KEY_BYTES];
    let random = Path::new("/dev/urandom");
    fs::File::open(random).and_then(|mut file| file.read_exact(&mut key)).map_err(at(random))?;
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(&key).and_then(|()| file.sync_all())).map_err(at(path))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn keep(cache: &Cache, digest: &Digest, code: &[u8]) {
        let scratch = cache.scratch().expect("scratch");
        fs::write(&scratch.output, code).expect("code");
        cache.keep(digest, &scratch.output).expect("kept");
    }

    #[test]
    fn only_untouched_code_of_this_cache_is_found() {
        let dir = tempfile::tempdir().expect("folder");
        let cache = Cache::open(dir.path().join("a"), "f".into()).expect("cache");
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        assert!(cache.find(&one).expect("looked").is_none());
        keep(&cache, &one, b"one");
        keep(&cache, &two, b"two");
        assert!(cache.find(&one).expect("looked").is_some());

        let again = Cache::open(dir.path().join("a"), "f".into()).expect("cache");
        assert!(again.find(&one).expect("looked").is_some(), "a restart keeps the key");

        fs::copy(cache.code_path(&two), cache.code_path(&one)).expect("swapped");
        fs::copy(cache.mac_path(&two), cache.mac_path(&one)).expect("swapped");
        assert!(cache.find(&one).expect("looked").is_none(), "another function's code");
        assert!(cache.find(&two).expect("looked").is_some());

        fs::write(cache.code_path(&two), b"twO").expect("flipped");
        assert!(cache.find(&two).expect("looked").is_none(), "a changed byte");

        let other = Cache::open(dir.path().join("b"), "f".into()).expect("cache");
        keep(&other, &one, b"one");
        keep(&cache, &one, b"one");
        fs::copy(other.mac_path(&one), cache.mac_path(&one)).expect("foreign");
        assert!(cache.find(&one).expect("looked").is_none(), "another cache's MAC");
    }

    #[test]
    fn the_key_is_secret_and_leftovers_go() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("cache");
        let old = Cache::open(path.clone(), "old".into()).expect("cache");
        keep(&old, &Digest::of(b"1"), b"one");
        assert_eq!(fs::metadata(path.join("key")).expect("key").permissions().mode() & 0o777, 0o600);
        fs::write(path.join("x.tmp"), b"half").expect("leftover");
        fs::create_dir(path.join("compile-x")).expect("leftover");
        Cache::open(path.clone(), "new".into()).expect("cache");
        let left: Vec<_> =
            fs::read_dir(&path).expect("folder").map(|e| e.expect("entry").file_name()).collect();
        assert_eq!(left, ["key"]);
    }
}
