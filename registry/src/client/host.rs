//! Which registry, and how it may be spoken to: `https`, or `http` on loopback only. Pure.

use super::ClientError;
use reqwest::Url;
use std::net::IpAddr;

/// The address of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    base: Url,
}

/// Docker Hub answers on another host than the one in its references.
const DOCKER_HUB: &str = "registry-1.docker.io";

impl Host {
    /// Reads `host[:port]`, or a URL. Without a scheme, loopback means `http` and everything else `https`.
    pub(super) fn parse(text: &str) -> Result<Self, ClientError> {
        let malformed = || ClientError::Host(text.chars().take(200).collect());
        let text = if text == "docker.io" || text == "index.docker.io" { DOCKER_HUB } else { text };
        let url = match text.split_once("://") {
            Some(_) => Url::parse(text),
            None => {
                let https = Url::parse(&format!("https://{text}"));
                match https {
                    Ok(url) if is_loopback(&url) => Url::parse(&format!("http://{text}")),
                    other => other,
                }
            }
        };
        let url = url.map_err(|_| malformed())?;
        let plain = url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty();
        if !plain || url.host_str().is_none() || !matches!(url.scheme(), "http" | "https") {
            return Err(malformed());
        }
        let host = Self { base: url };
        if host.allows(&host.base) { Ok(host) } else { Err(ClientError::Insecure(host.base.to_string())) }
    }

    /// Whether a request to `url` may be made on behalf of this registry: encrypted, or on loopback when the registry
    /// itself is.
    pub(super) fn allows(&self, url: &Url) -> bool {
        match url.scheme() {
            "https" => url.host_str().is_some(),
            "http" => is_loopback(url) && is_loopback(&self.base),
            _ => false,
        }
    }

    /// Whether `url` is this registry itself, so that it may see its credentials.
    pub(super) fn is(&self, url: &Url) -> bool {
        self.base.origin() == url.origin()
    }

    /// Whether nothing is encrypted.
    pub(super) fn is_plain(&self) -> bool {
        self.base.scheme() == "http"
    }

    /// `host` or `host:port`, as credentials are filed.
    pub(super) fn name(&self) -> String {
        let host = self.base.host_str().unwrap_or_default();
        self.base.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// The host without its port.
    pub(super) fn domain(&self) -> &str {
        self.base.host_str().unwrap_or_default()
    }

    /// The address of a path that begins with `/v2/`.
    pub(super) fn url(&self, path: &str) -> Result<Url, ClientError> {
        self.base.join(path).map_err(|_| ClientError::Protocol(format!("{path:?} is no path of a URL")))
    }

    /// The name of a repository on this registry: Docker Hub keeps official images under `library/`.
    pub(super) fn repository(&self, name: &str) -> String {
        let official = self.domain() == DOCKER_HUB && !name.contains('/');
        if official { format!("library/{name}") } else { name.to_owned() }
    }
}

/// Whether a URL stays on this machine, told from its text: names other than `localhost` could resolve to anything.
pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost")
        || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_only_on_loopback() {
        for (text, base) in [
            ("localhost:5000", "http://localhost:5000/"),
            ("127.0.0.1:80", "http://127.0.0.1/"),
            ("[::1]:5000", "http://[::1]:5000/"),
            ("ghcr.io", "https://ghcr.io/"),
            ("https://localhost:1", "https://localhost:1/"),
            ("docker.io", "https://registry-1.docker.io/"),
        ] {
            assert_eq!(Host::parse(text).expect(text).base.as_str(), base);
        }
        for bad in [
            "http://ghcr.io",
            "http://10.0.0.1:5000",
            "ftp://x",
            "",
            "a b",
            "https://u:p@x",
            "ghcr.io/a",
            "http://localhost.evil.org",
        ] {
            assert!(Host::parse(bad).is_err(), "{bad:?}");
        }
        let remote = Host::parse("ghcr.io").expect("a host");
        let url = |text| Url::parse(text).expect("a URL");
        assert!(remote.allows(&url("https://cdn.example/x")) && !remote.is(&url("https://cdn.example/x")));
        assert!(
            !remote.allows(&url("http://127.0.0.1/x")),
            "a remote registry must not send us to this machine"
        );
        assert!(
            !remote.allows(&url("http://169.254.169.254/x")) && !remote.allows(&url("file:///etc/passwd"))
        );
        assert!(!remote.is(&url("https://ghcr.io:444/")));
    }
}
