//! Credentials: given, or from Docker's `config.json` and its `docker-credential-*` helpers.
//!
//! Source: docker CLI "Credential stores" and "Credential helper protocol". Nothing here is logged.

use super::{ClientError, RegistryClient};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use neap_sdk::limits;
use serde::Deserialize;
use std::{
    collections::HashMap,
    fmt, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Who a client is to a registry. `Debug` hides the secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user and a password or token.
    Basic {
        /// The user; any name where the password is a token.
        user: String,
        /// The password or token.
        password: String,
    },
    /// A long-lived token that is turned into short-lived ones.
    Refresh(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Basic(…)",
            Self::Refresh(_) => "Refresh(…)",
        })
    }
}

/// Where credentials come from.
#[derive(Debug, Clone, Default)]
pub enum CredentialSource {
    /// There are none.
    #[default]
    Anonymous,
    /// These, for whichever registry the client speaks to.
    Given(Credentials),
    /// Docker's configuration file. A missing file means none.
    DockerConfig(PathBuf),
}

impl CredentialSource {
    /// Docker's configuration of the user who runs this: `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`.
    pub fn of_user() -> Self {
        let dir = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
        let dir = dir.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")));
        dir.map_or(Self::Anonymous, |dir| Self::DockerConfig(dir.join("config.json")))
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct DockerConfig {
    auths: HashMap<String, AuthEntry>,
    cred_helpers: HashMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AuthEntry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

impl RegistryClient {
    /// The credentials for this client's registry. Read once per challenge, so that a login meanwhile counts.
    pub(super) async fn credentials(&self) -> Result<Option<Credentials>, ClientError> {
        match &self.credentials {
            CredentialSource::Anonymous => Ok(None),
            CredentialSource::Given(credentials) => Ok(Some(credentials.clone())),
            CredentialSource::DockerConfig(path) => from_docker(path, &self.host.name()).await,
        }
    }
}

/// The names under which a registry may be filed, the usual one first.
fn names(host: &str) -> Vec<String> {
    let mut names = vec![
        host.to_owned(),
        format!("https://{host}"),
        format!("https://{host}/v2/"),
        format!("http://{host}"),
    ];
    if host == "registry-1.docker.io" {
        names.extend(["https://index.docker.io/v1/", "docker.io", "index.docker.io"].map(str::to_owned));
    }
    names
}

async fn from_docker(path: &Path, host: &str) -> Result<Option<Credentials>, ClientError> {
    let failed = |reason: String| ClientError::Credentials { what: path.display().to_string(), reason };
    let bytes = match tokio::fs::read(path).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(format!("it cannot be read: {error}"))),
    };
    // serde_json's own message could quote a secret.
    let config: DockerConfig = serde_json::from_slice(&bytes)
        .map_err(|error| failed(format!("line {} is not as docker writes it", error.line())))?;
    let names = names(host);
    let helper = names.iter().find_map(|name| config.cred_helpers.get(name).map(|helper| (helper, name)));
    if let Some((helper, name)) = helper {
        return from_helper(helper, name).await;
    }
    let entry = names.iter().find_map(|name| config.auths.get(name)).and_then(AuthEntry::credentials);
    if entry.is_some() {
        return Ok(entry);
    }
    let Some(store) = config.creds_store.filter(|store| !store.is_empty()) else { return Ok(None) };
    for name in &names {
        if let Some(found) = from_helper(&store, name).await? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

impl AuthEntry {
    fn credentials(&self) -> Option<Credentials> {
        if !self.identitytoken.is_empty() {
            return Some(Credentials::Refresh(self.identitytoken.clone()));
        }
        if !self.username.is_empty() {
            return Some(Credentials::Basic { user: self.username.clone(), password: self.password.clone() });
        }
        let pair = String::from_utf8(STANDARD.decode(&self.auth).ok()?).ok()?;
        let (user, password) = pair.trim_end_matches('\0').split_once(':')?;
        Some(Credentials::Basic { user: user.to_owned(), password: password.to_owned() })
    }
}

/// Asks `docker-credential-HELPER get`; `None` where it knows nothing of the registry.
async fn from_helper(helper: &str, name: &str) -> Result<Option<Credentials>, ClientError> {
    let program = format!("docker-credential-{helper}");
    let failed = |reason: String| ClientError::Credentials { what: program.clone(), reason };
    // The file is the user's own, but a path in it would still be a surprise.
    if !helper.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
        return Err(failed("its name has letters that no credential helper has".to_owned()));
    }
    let asked = async {
        let mut child = tokio::process::Command::new(&program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(name.as_bytes()).await?;
        }
        let mut answer = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(limits::REGISTRY_ANSWER_BYTES_MAX as u64).read_to_end(&mut answer).await?;
        }
        Ok::<_, io::Error>((child.wait().await?, answer))
    };
    let limit = Duration::from_millis(limits::CREDENTIAL_HELPER_TIMEOUT_MS);
    let (status, answer) = match tokio::time::timeout(limit, asked).await {
        Err(_) => return Err(failed(format!("it did not answer within {limit:?}"))),
        Ok(Err(error)) => return Err(failed(format!("it cannot be run: {error}"))),
        Ok(Ok(done)) => done,
    };
    if !status.success() {
        let unknown = String::from_utf8_lossy(&answer).contains("credentials not found");
        return if unknown { Ok(None) } else { Err(failed(format!("it failed ({status})"))) };
    }
    let answer: HelperAnswer =
        serde_json::from_slice(&answer).map_err(|_| failed("its answer is not understood".to_owned()))?;
    Ok(Some(match answer.username.as_str() {
        "<token>" => Credentials::Refresh(answer.secret),
        _ => Credentials::Basic { user: answer.username, password: answer.secret },
    }))
}
