//! What a person asks for: a function's specification, as it stands in `neap.toml`, in a deploy request and in
//! every revision. Parsing checks every limit, so a `FunctionSpec` that exists is one that can be run.

use crate::limits;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// How one revision of a function is run. Fields left out of JSON or TOML take the defaults of [`limits`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FunctionSpec {
    /// Environment variables of the guest or the container.
    pub env: BTreeMap<String, String>,
    /// Hosts and paths that lead here, besides `NAME.localhost`.
    pub routes: Vec<RoutePattern>,
    /// Most memory of one instance (containers) or of one invocation (Wasm).
    pub memory_bytes: u64,
    /// Wall-clock time of one invocation, from the start of its work to the end of its response.
    pub timeout_ms: u64,
    /// CPU time of one invocation; only Wasm. `None` means the wall-clock limit.
    pub cpu_ms: Option<u64>,
    /// Invocations that one instance handles at once.
    pub concurrency: u32,
    /// Instances that stay up without requests.
    pub min_instances: u32,
    /// Instances at most.
    pub max_instances: u32,
    /// Time without requests after which instances beyond `min_instances` go away.
    pub idle_timeout_ms: u64,
    /// Time that a container has to begin listening.
    pub startup_timeout_ms: u64,
    /// Hosts that the guest may send HTTP requests to; empty means none. Only Wasm.
    pub outbound_hosts: Vec<HostPattern>,
}

impl Default for FunctionSpec {
    fn default() -> Self {
        Self {
            env: BTreeMap::new(),
            routes: Vec::new(),
            memory_bytes: limits::MEMORY_BYTES_DEFAULT,
            timeout_ms: limits::TIMEOUT_MS_DEFAULT,
            cpu_ms: None,
            concurrency: limits::CONCURRENCY_DEFAULT,
            min_instances: 0,
            max_instances: limits::INSTANCES_MAX_DEFAULT,
            idle_timeout_ms: limits::IDLE_TIMEOUT_MS_DEFAULT,
            startup_timeout_ms: limits::STARTUP_TIMEOUT_MS_DEFAULT,
            outbound_hosts: Vec::new(),
        }
    }
}

/// A value of a spec that is out of its limits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct InvalidSpec {
    /// The field's name.
    pub field: &'static str,
    /// What is wrong and what is allowed.
    pub problem: String,
}

impl FunctionSpec {
    /// Checks every limit.
    ///
    /// # Errors
    /// The first field that is out of its limits.
    pub fn check(&self) -> Result<(), InvalidSpec> {
        range("memory_bytes", self.memory_bytes, limits::MEMORY_BYTES_MIN, limits::MEMORY_BYTES_MAX)?;
        range("timeout_ms", self.timeout_ms, 1, limits::TIMEOUT_MS_MAX)?;
        range("cpu_ms", self.cpu_ms.unwrap_or(1), 1, limits::TIMEOUT_MS_MAX)?;
        range("concurrency", self.concurrency.into(), 1, limits::CONCURRENCY_MAX.into())?;
        range("max_instances", self.max_instances.into(), 1, limits::INSTANCES_MAX.into())?;
        range("min_instances", self.min_instances.into(), 0, self.max_instances.into())?;
        range(
            "idle_timeout_ms",
            self.idle_timeout_ms,
            limits::IDLE_TIMEOUT_MS_MIN,
            limits::TIMEOUT_MS_MAX * 24,
        )?;
        range("startup_timeout_ms", self.startup_timeout_ms, 1, limits::TIMEOUT_MS_MAX)?;
        range("routes", self.routes.len() as u64, 0, limits::ROUTES_MAX as u64)?;
        range("outbound_hosts", self.outbound_hosts.len() as u64, 0, limits::OUTBOUND_HOSTS_MAX as u64)?;
        self.check_env()
    }

    fn check_env(&self) -> Result<(), InvalidSpec> {
        range("env", self.env.len() as u64, 0, limits::ENV_VARS_MAX as u64)?;
        let bytes: usize = self.env.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
        range("env (bytes)", bytes as u64, 0, limits::ENV_BYTES_MAX as u64)?;
        let bad = |(name, value): &(&String, &String)| {
            name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
        };
        match self.env.iter().find(bad) {
            None => Ok(()),
            Some((name, _)) => Err(InvalidSpec {
                field: "env",
                problem: format!("has the name {name:?}, which is empty or holds '=' or a zero byte"),
            }),
        }
    }
}

fn range(field: &'static str, value: u64, least: u64, most: u64) -> Result<(), InvalidSpec> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(InvalidSpec { field, problem: format!("is {value}; it must lie between {least} and {most}") })
}

/// A host, and optionally a path below it, that leads to a function: `shop.example`, `shop.example/api`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RoutePattern {
    /// Host name in lower case, without port; `*` stands for any host.
    pub host: String,
    /// Path prefix that ends at a `/` or at the end of a segment; `/` stands for all.
    pub path: String,
}

/// Why a text is not a route or a host pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}")]
pub struct ParsePatternError {
    what: &'static str,
    text: String,
}

fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    text.len() <= 253 && text.split('.').all(label)
}

impl RoutePattern {
    /// Whether a path lies below the pattern's: `/api` covers `/api` and `/api/x`, not `/apix`.
    pub fn covers_path(&self, path: &str) -> bool {
        let prefix = self.path.trim_end_matches('/');
        path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl FromStr for RoutePattern {
    type Err = ParsePatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParsePatternError {
            what: "a route like shop.example or shop.example/api",
            text: text.chars().take(80).collect(),
        };
        let (host, path) = match text.find('/') {
            Some(slash) => (&text[..slash], &text[slash..]),
            None => (text, "/"),
        };
        let host = host.to_ascii_lowercase();
        let path_ok =
            path.len() <= 1_024 && path.bytes().all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#');
        if (host == "*" || is_host(&host)) && path_ok {
            return Ok(Self { host, path: path.to_owned() });
        }
        Err(error())
    }
}

impl fmt::Display for RoutePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.host, self.path)
    }
}

/// A host that a guest may call: `api.example`, `*.example` (any name below it), with an optional port
/// (`api.example:8443`); without a port only the scheme's own port is allowed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPattern {
    host: String,
    port: Option<u16>,
}

impl HostPattern {
    /// Whether a request to `host` at `port` is covered; `default_port` is the scheme's.
    pub fn covers(&self, host: &str, port: u16, default_port: u16) -> bool {
        let host = host.to_ascii_lowercase();
        let host_ok = match self.host.strip_prefix("*.") {
            Some(parent) => {
                host.strip_suffix(parent).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            None => host == self.host,
        };
        host_ok && port == self.port.unwrap_or(default_port)
    }

    /// Whether it names one host, and not all names below one.
    pub fn is_exact(&self) -> bool {
        !self.host.starts_with("*.")
    }
}

impl FromStr for HostPattern {
    type Err = ParsePatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParsePatternError {
            what: "a host like api.example, *.example or api.example:8443",
            text: text.chars().take(80).collect(),
        };
        let lower = text.to_ascii_lowercase();
        let (host, port) = match lower.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().map_err(|_| error())?)),
            None => (lower.as_str(), None),
        };
        if is_host(host.strip_prefix("*.").unwrap_or(host)) {
            return Ok(Self { host: host.to_owned(), port });
        }
        Err(error())
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

macro_rules! text_serde {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = ParsePatternError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    };
}
text_serde!(RoutePattern);
text_serde!(HostPattern);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_spec_is_valid_and_survives_json() {
        let spec = FunctionSpec::default();
        assert_eq!(spec.check(), Ok(()));
        let json = serde_json::to_string(&spec).expect("spec to JSON");
        assert_eq!(serde_json::from_str::<FunctionSpec>(&json).expect("and back"), spec);
        assert_eq!(serde_json::from_str::<FunctionSpec>("{}").expect("all defaults"), spec);
        assert!(serde_json::from_str::<FunctionSpec>(r#"{"memory":1}"#).is_err(), "unknown field");
    }

    #[test]
    fn out_of_range_values_name_their_field() {
        let field = |spec: FunctionSpec| spec.check().expect_err("must be refused").field;
        assert_eq!(field(FunctionSpec { memory_bytes: 1, ..Default::default() }), "memory_bytes");
        assert_eq!(field(FunctionSpec { concurrency: 0, ..Default::default() }), "concurrency");
        assert_eq!(field(FunctionSpec { min_instances: 11, ..Default::default() }), "min_instances");
        let env = BTreeMap::from([("A=B".to_owned(), String::new())]);
        assert_eq!(field(FunctionSpec { env, ..Default::default() }), "env");
    }

    #[test]
    fn routes_end_at_segments() {
        let route: RoutePattern = "Shop.example/api".parse().expect("route");
        assert_eq!(route.host, "shop.example");
        assert!(route.covers_path("/api") && route.covers_path("/api/x"));
        assert!(!route.covers_path("/apix") && !route.covers_path("/"));
        assert!("shop.example".parse::<RoutePattern>().expect("route").covers_path("/any"));
        assert!("bad host/".parse::<RoutePattern>().is_err());
    }

    #[test]
    fn host_patterns_do_not_leak_to_neighbours() {
        let covers = |pattern: &str, host: &str, port| {
            pattern.parse::<HostPattern>().expect(pattern).covers(host, port, 443)
        };
        assert!(covers("api.example", "API.example", 443));
        assert!(!covers("api.example", "api.example", 8443));
        assert!(covers("api.example:8443", "api.example", 8443));
        assert!(covers("*.example", "a.b.example", 443));
        assert!(!covers("*.example", "example", 443));
        assert!(!covers("*.example", "badexample", 443));
    }
}
