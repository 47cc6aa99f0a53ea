//! Where things are: the data folder, the server to call, and `neap.toml`. Flags win over the environment
//! (clap reads both), the environment over the manifest, the manifest over defaults.

use crate::exit::{Failure, Outcome};
use neap_sdk::{
    FunctionName, FunctionSpec,
    client::{Client, Endpoint},
    error::exit,
    id::TenantName,
};
use serde::Deserialize;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// Where the server keeps its state, by name; one page so that server and client agree.
#[derive(Debug, Clone)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// The folder a person named, or the XDG default (`~/.local/share/neap`).
    pub fn resolve(named: Option<PathBuf>) -> Outcome<Self> {
        let path = match named {
            Some(path) => path,
            None => {
                use etcetera::BaseStrategy as _;
                let base = etcetera::choose_base_strategy()
                    .map_err(|error| Failure::failed("the home folder cannot be found", &error))
                    .map_err(|failure| failure.hint("name a data folder with --data-dir"))?;
                base.data_dir().join("neap")
            }
        };
        // Children and sockets get this path, and they may run in another folder.
        let path = std::path::absolute(&path)
            .map_err(|error| Failure::failed(format!("{} is no usable path", path.display()), &error))?;
        Ok(Self(path))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The admin API's Unix socket.
    pub fn admin_socket(&self) -> PathBuf {
        self.0.join("admin.sock")
    }

    /// The admin API's token, for calls over loopback.
    pub fn admin_token(&self) -> PathBuf {
        self.0.join("admin.token")
    }

    /// Held while a server runs on the folder.
    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// The operator's signing key.
    pub fn operator_key(&self) -> PathBuf {
        self.0.join("operator.key")
    }
}

/// Which server a client command calls, and for whom.
#[derive(Debug, Clone, clap::Args)]
pub struct Server {
    /// Data folder of the server on this machine
    #[arg(long, env = "NEAP_DATA_DIR", global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address of the gateway
    #[arg(long, env = "NEAP_LISTEN", global = true, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Token of the admin API, to call it over loopback instead of through the data folder's socket
    #[arg(long, env = "NEAP_TOKEN", global = true, hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Tenant to act for
    #[arg(long, env = "NEAP_TENANT", global = true, default_value = "default", value_name = "NAME")]
    pub tenant: TenantName,
}

/// Where `neap up` listens when nothing else is said.
pub const LISTEN_DEFAULT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

impl Server {
    /// The data folder.
    pub fn data_dir(&self) -> Outcome<DataDir> {
        DataDir::resolve(self.data_dir.clone())
    }

    /// A client for this server: over the socket, or with a token over loopback.
    pub fn client(&self) -> Outcome<Client> {
        let endpoint = match &self.token {
            Some(token) => {
                Endpoint::Tcp { address: self.listen.unwrap_or(LISTEN_DEFAULT), token: token.clone() }
            }
            None => Endpoint::Unix(self.data_dir()?.admin_socket()),
        };
        Ok(Client::new(endpoint, self.tenant.clone()))
    }

    /// The gateway's address: named, or asked of the server.
    pub async fn gateway(&self, client: &Client) -> Outcome<SocketAddr> {
        let listen = match self.listen {
            Some(address) if address.port() != 0 => return Ok(address),
            _ => client.server().await?.listen,
        };
        listen.parse().map_err(|_| {
            Failure::new(
                exit::FAILED,
                format!("the server says that it listens at {listen:?}, which is no address"),
            )
        })
    }
}

/// `neap.toml`: what to push and how to run it. Every field may be left out.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Manifest {
    /// The function's name.
    pub name: Option<FunctionName>,
    /// What to push, relative to the manifest.
    pub artifact: Option<String>,
    /// The SBOM to attest, relative to the manifest.
    pub sbom: Option<PathBuf>,
    /// How to run it.
    pub function: FunctionSpec,
}

impl Manifest {
    /// Reads `named`, or `neap.toml` of the current folder when there is one.
    pub fn load(named: Option<&Path>) -> Outcome<Self> {
        let path = named.unwrap_or(Path::new("neap.toml"));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => {
                let what = format!("{} cannot be read", path.display());
                return Err(Failure::new(exit::USAGE, what).because(&error));
            }
        };
        // toml's message already points at line and column and names the fields that exist.
        toml::from_str(&text).map_err(|error| {
            Failure::new(exit::USAGE, format!("{} is not valid", path.display())).because(&error)
        })
    }
}
