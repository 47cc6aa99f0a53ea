//! The private signing key: P-256, PKCS#8 in PEM, in a file that only its owner may read, beside it the public
//! key (`NAME.pub`). It is never overwritten, and never shown in a log or an error.

use crate::keys::PublicKey;
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair},
};
use neap_sdk::limits::KEY_FILE_BYTES_MAX;
use sigstore_crypto::KeyPair;
use std::{
    ffi::OsString,
    fmt, fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// Why a key file was not made or not read.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// There is a file already; keys are never overwritten.
    #[error("{} exists already; keys are never overwritten: choose another name or move it away", .0.display())]
    Exists(PathBuf),
    /// Others than the owner may read it.
    #[error("{} can be read by others than its owner (mode {mode:o}); make it private with `chmod 600`", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file cannot be read or written.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// It holds something else.
    #[error("{} is no signing key that neap reads: {why}", path.display())]
    Form {
        /// Which file.
        path: PathBuf,
        /// What it is instead, and what to do.
        why: String,
    },
    /// The random generator or the library failed.
    #[error("no key could be made: the cryptographic library failed")]
    Generate,
}

/// A private key that signs, and its public half.
pub struct SigningKey {
    pair: KeyPair,
    public: PublicKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public.id())
    }
}

impl SigningKey {
    /// Makes a key and writes it to `path` (mode 0600) and its public half to `path` + `.pub`. Neither file may
    /// exist.
    pub fn generate(path: &Path) -> Result<Self, KeyFileError> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
            .map_err(|_| KeyFileError::Generate)?;
        let key = Self::from_pkcs8(document.as_ref()).map_err(|_| KeyFileError::Generate)?;
        let private = pem::encode(&pem::Pem::new("PRIVATE KEY", document.as_ref()));
        write_new(path, private.as_bytes(), 0o600)?;
        let public = public_path(path);
        if let Err(error) = write_new(&public, key.public.to_pem().as_bytes(), 0o644) {
            // The private key was made a moment ago, by us, and nobody has seen it.
            let _ = fs::remove_file(path);
            return Err(error);
        }
        Ok(key)
    }

    /// Reads a key that [`Self::generate`], or `openssl genpkey -algorithm EC -pkeyopt
    /// ec_paramgen_curve:P-256`, made.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let io = |doing| move |source| KeyFileError::Io { doing, path: path.to_owned(), source };
        let form = |why: String| KeyFileError::Form { path: path.to_owned(), why };
        let file = fs::File::open(path).map_err(io("open signing key"))?;
        let mode = file.metadata().map_err(io("look at signing key"))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyFileError::Exposed { path: path.to_owned(), mode });
        }
        let mut text = String::new();
        file.take(KEY_FILE_BYTES_MAX).read_to_string(&mut text).map_err(io("read signing key"))?;
        let block = pem::parse(&text).map_err(|_| form("it is not PEM".to_owned()))?;
        match block.tag() {
            "PRIVATE KEY" => Self::from_pkcs8(block.contents()).map_err(form),
            "EC PRIVATE KEY" => {
                Err(form("it is in SEC 1 form; convert it with `openssl pkcs8 -topk8 -nocrypt`".to_owned()))
            }
            tag if tag.contains("ENCRYPTED") => Err(form(
                "it is encrypted, which is not supported yet; make one with `neap key generate`".to_owned(),
            )),
            "PUBLIC KEY" => Err(form("it is a public key; signing needs the private one".to_owned())),
            _ => Err(form("it is not a private key in PKCS#8".to_owned())),
        }
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, String> {
        // The library's error may speak of the key's bytes.
        let pair = KeyPair::from_pkcs8_der(der).map_err(|_| "only P-256 keys sign".to_owned())?;
        let der = pair.public_key_der().map_err(|error| error.to_string())?;
        Ok(Self { public: PublicKey::from_der(der).map_err(|error| error.to_string())?, pair })
    }

    /// The public half.
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, sigstore_crypto::Error> {
        self.pair.sign(message).map(|signature| signature.as_bytes().to_vec())
    }
}

fn public_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".pub");
    name.into()
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), KeyFileError> {
    let io = |doing| move |source| KeyFileError::Io { doing, path: path.to_owned(), source };
    let opened = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = match opened {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(KeyFileError::Exists(path.to_owned()));
        }
        other => other.map_err(io("make key file"))?,
    };
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if let Err(error) = written {
        // Half a key would block the name for ever.
        let _ = fs::remove_file(path);
        return Err(io("write key file")(error));
    }
    match path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        Some(dir) => fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(io("sync the folder of")),
        None => Ok(()),
    }
}
