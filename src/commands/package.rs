//! From what a person names to a local artifact, and to what is known to be inside it.

use crate::{
    commands::progress::Progress,
    exit::{Failure, Outcome},
};
use neap_registry::{
    client::{ClientError, ClientSettings, CredentialSource, RegistryClient},
    package::{self, LocalArtifact, PackageError},
    sbom::Contents,
};
use neap_sdk::{FunctionName, artifact::Reference, error::exit};
use std::path::{Path, PathBuf};

/// Packages a file or a folder, or pulls a reference of a remote registry.
pub async fn package(what: &str, progress: &Progress) -> Outcome<LocalArtifact> {
    let path = PathBuf::from(what);
    if path.exists() {
        let packaged = tokio::task::spawn_blocking(move || package::package(&path)).await;
        return match packaged {
            Ok(Ok(artifact)) => Ok(artifact),
            Ok(Err(error)) => Err(unpackable(what, &error)),
            Err(error) => Err(Failure::failed(format!("{what} could not be packaged"), &error)),
        };
    }
    let reference = what.parse::<Reference>().ok().filter(|reference| reference.host.is_some());
    let Some(Reference { host: Some(host), repository, target }) = reference else {
        let failure = Failure::usage(format!("there is no file or folder {what}"));
        return Err(
            failure.hint("a reference in a remote registry names its host: docker.io/library/nginx:1")
        );
    };
    progress.phase(&format!("pulling {what}"));
    let settings = ClientSettings { credentials: CredentialSource::of_user(), ..ClientSettings::default() };
    let client = RegistryClient::new(&host, settings);
    let client = client.map_err(|error| Failure::failed(format!("{what} cannot be pulled"), &error))?;
    client.pull(&repository, &target, progress.transfers()).await.map_err(|error| {
        let code = match error {
            ClientError::NotFound(_) => exit::NOT_FOUND,
            ClientError::Connect { .. } => exit::UNREACHABLE,
            _ => exit::FAILED,
        };
        Failure::new(code, format!("{what} cannot be pulled")).because(&error)
    })
}

fn unpackable(what: &str, error: &PackageError) -> Failure {
    // The error names the file itself; said once is enough.
    let failure = Failure::new(exit::REFUSED, error.to_string());
    let failure = match std::error::Error::source(error) {
        Some(cause) => failure.because(cause),
        None => failure,
    };
    let kinds =
        "a .wasm component or module, an OCI layout folder, an OCI or Docker archive, a static executable";
    failure.hint(format!("{what} must be {kinds}, or a reference such as docker.io/library/nginx:1"))
}

/// The function's name where none was given: the file's, or the last part of the reference.
pub fn default_name(what: &str) -> Outcome<FunctionName> {
    let last = what.trim_end_matches('/').rsplit('/').next().unwrap_or(what);
    let stem = last.split(['.', ':', '@']).next().unwrap_or(last);
    let name = stem.to_ascii_lowercase().replace('_', "-");
    name.parse().map_err(|error| {
        Failure::usage(format!("{what} gives no function name")).because(&error).hint("name it with --name")
    })
}

/// What is known to be inside: what the lock file says, or what cargo-auditable put into the bytes.
pub fn contents(what: &str, lockfile: Option<&Path>, artifact: &LocalArtifact) -> Outcome<Contents> {
    let failed =
        |error: &dyn std::error::Error| Failure::failed("what is inside the artifact cannot be read", error);
    let bytes = match artifact.wasm_bytes().map_err(|error| failed(&error))? {
        Some(bytes) => Some(bytes.to_vec()),
        None if Path::new(what).is_file() => executable(Path::new(what)),
        None => None,
    };
    if let Some(bytes) = bytes
        && let Some(contents) = Contents::from_binary(&bytes).map_err(|error| failed(&error))?
    {
        return Ok(contents);
    }
    let Some(lockfile) = lockfile.map(Path::to_owned).or_else(|| nearby_lockfile(Path::new(what))) else {
        return Ok(Contents::unknown());
    };
    let text = std::fs::read_to_string(&lockfile).map_err(|error| {
        Failure::new(exit::USAGE, format!("{} cannot be read", lockfile.display())).because(&error)
    })?;
    let stem = Path::new(what).file_stem().map(|stem| stem.to_string_lossy().replace('_', "-"));
    Contents::from_cargo_lock(&text, stem.as_deref())
        .or_else(|_| Contents::from_cargo_lock(&text, None))
        .map_err(|error| {
            Failure::new(exit::USAGE, format!("{} cannot be used", lockfile.display())).because(&error)
        })
}

/// The bytes of a file that is an executable, not an archive of an image.
fn executable(path: &Path) -> Option<Vec<u8>> {
    use std::io::Read as _;
    let mut start = [0; 4];
    std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start)).ok()?;
    (start == *b"\x7fELF").then(|| std::fs::read(path).ok()).flatten()
}

/// The lock file of the cargo project that built `what`: `DIR/Cargo.lock` for `DIR/target/…/file`.
fn nearby_lockfile(what: &Path) -> Option<PathBuf> {
    let path = what.canonicalize().ok()?;
    let target = path.ancestors().find(|folder| folder.ends_with("target"))?;
    Some(target.parent()?.join("Cargo.lock")).filter(|lockfile| lockfile.is_file())
}
