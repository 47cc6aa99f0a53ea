//! `WWW-Authenticate`: Basic, and Docker's token flow.
//!
//! Source: distribution `spec/auth/token.md` and `oauth.md`, RFC 9110 section 11. A registry names the server that
//! turns the user's password into a token. It could name anyone, so the name is only followed to the registry
//! itself or to a host that is listed, encrypted (the fault of CVE-2026-48978 and its kin).

use super::{
    ClientError, RegistryClient,
    credentials::Credentials,
    http::{Call, Payload},
};
use http::{HeaderMap, HeaderValue, Method, header};
use neap_sdk::limits;
use reqwest::Url;
use serde::Deserialize;

/// Token servers of registries that have them on another host.
const KNOWN_REALMS: [(&str, &str); 2] =
    [("registry-1.docker.io", "auth.docker.io"), ("registry.gitlab.com", "gitlab.com")];

/// One challenge of a `WWW-Authenticate` header.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

impl RegistryClient {
    /// The `Authorization` that a refusal with `headers` asks for. A token is for `scope`.
    pub(super) async fn authenticate(
        &self,
        headers: &HeaderMap,
        scope: &str,
    ) -> Result<HeaderValue, ClientError> {
        let values = headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenges: Vec<Challenge> = values.flat_map(challenges).collect();
        let credentials = self.credentials().await?;
        for challenge in &challenges {
            if let Challenge::Bearer { realm, service } = challenge {
                return self.token(realm, service.as_deref(), scope, credentials).await;
            }
        }
        match credentials {
            Some(Credentials::Basic { user, password }) if challenges.contains(&Challenge::Basic) => {
                basic(&user, &password)
            }
            _ => Err(ClientError::Unauthorized(self.host.name())),
        }
    }

    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        credentials: Option<Credentials>,
    ) -> Result<HeaderValue, ClientError> {
        let mut url = self.realm(realm)?;
        let service = service.unwrap_or_default();
        let mut call = match &credentials {
            Some(Credentials::Refresh(token)) => {
                let form = [
                    ("grant_type", "refresh_token"),
                    ("client_id", "neap"),
                    ("service", service),
                    ("scope", scope),
                    ("refresh_token", token),
                ];
                let body = Url::parse_with_params("http://form/", form).ok();
                let body = body.and_then(|form| form.query().map(str::to_owned)).unwrap_or_default();
                let form = HeaderValue::from_static("application/x-www-form-urlencoded");
                Call::new(Method::POST, url)
                    .header(header::CONTENT_TYPE, form)
                    .payload(Payload::Bytes(body.into()))
            }
            _ => {
                url.query_pairs_mut().append_pair("service", service).append_pair("scope", scope);
                Call::new(Method::GET, url)
            }
        };
        if let Some(Credentials::Basic { user, password }) = &credentials {
            call = call.header(header::AUTHORIZATION, basic(user, password)?);
        }
        let response = self.send_once(&call, None).await?;
        if !response.status().is_success() {
            return Err(ClientError::Unauthorized(self.host.name()));
        }
        let body = super::http::read_body(response, limits::REGISTRY_ANSWER_BYTES_MAX).await?;
        let wrong = || ClientError::Protocol("the token server's answer has no token".to_owned());
        let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|_| wrong())?;
        secret(&format!("Bearer {}", answer.token.or(answer.access_token).ok_or_else(wrong)?))
    }

    /// The token server's address, if it may see the user's password.
    fn realm(&self, realm: &str) -> Result<Url, ClientError> {
        let refused =
            || ClientError::Realm { registry: self.host.name(), realm: realm.chars().take(200).collect() };
        let url = Url::parse(realm).map_err(|_| refused())?;
        let host = url.host_str().unwrap_or_default();
        let known = KNOWN_REALMS.contains(&(self.host.domain(), host));
        let trusted =
            self.host.domain() == host || known || self.trusted_realms.iter().any(|name| name == host);
        if trusted && self.host.allows(&url) { Ok(url) } else { Err(refused()) }
    }
}

fn basic(user: &str, password: &str) -> Result<HeaderValue, ClientError> {
    use base64::Engine as _;
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    secret(&format!("Basic {pair}"))
}

/// A header that no debug output shows.
fn secret(text: &str) -> Result<HeaderValue, ClientError> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| ClientError::Protocol("the credentials cannot be sent in a header".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The challenges of one header that we understand: `Scheme key="value", key=value, Scheme …`.
fn challenges(header: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    for item in split_outside_quotes(header) {
        let item = item.trim();
        let (front, value) =
            item.split_once('=').map_or((item, None), |(front, value)| (front.trim(), Some(value)));
        let key = match front.rsplit_once(' ') {
            Some((scheme, key)) if value.is_some() => {
                found.push((scheme.trim().to_ascii_lowercase(), Vec::new()));
                key
            }
            _ if value.is_none() => {
                found.push((front.to_ascii_lowercase(), Vec::new()));
                continue;
            }
            _ => front,
        };
        if let (Some((_, parameters)), Some(value)) = (found.last_mut(), value) {
            let value = value.trim().trim_matches('"').replace("\\\"", "\"");
            parameters.push((key.to_ascii_lowercase(), value));
        }
    }
    let challenge = |(scheme, parameters): (String, Vec<(String, String)>)| {
        let get = |key: &str| parameters.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
        match scheme.as_str() {
            "basic" => Some(Challenge::Basic),
            "bearer" => Some(Challenge::Bearer { realm: get("realm")?, service: get("service") }),
            _ => None,
        }
    };
    found.into_iter().filter_map(challenge).collect()
}

fn split_outside_quotes(text: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |letter| {
        quoted ^= letter == '"';
        letter == ',' && !quoted
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let bearer = |realm: &str, service: Option<&str>| Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
        };
        for (header, expected) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a:pull,push""#,
                vec![bearer("https://auth.docker.io/token", Some("registry.docker.io"))],
            ),
            (r#"Basic realm="neap""#, vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                r#"Negotiate, Bearer realm=https://x/t, Basic realm="a, b""#,
                vec![bearer("https://x/t", None), Challenge::Basic],
            ),
            (r#"Bearer service="no realm""#, vec![]),
            ("", vec![]),
        ] {
            assert_eq!(challenges(header), expected, "{header}");
        }
    }
}
