//! For whom a request is: reads the authority strictly and tells the plain host (registry, admin API) from a
//! function's name. Pure; knows no routes.

use http::{HeaderMap, Uri, header::HOST, uri::Authority};
use std::{
    borrow::Cow,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Where a request is to go, as far as its host tells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Host<'a> {
    /// `localhost`, a loopback address, or the address that the client is connected to.
    Plain,
    /// Any other name: lower case, without port.
    Name(Cow<'a, str>),
}

/// Why a request's authority is refused. What the client sent is not repeated: it may be anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HostError {
    #[error("the request has no Host header")]
    Missing,
    #[error("the request has more than one Host header")]
    Duplicate,
    #[error("the Host header and the request's target name different hosts")]
    Contradiction,
    #[error("the Host header is not a host name or address with an optional port")]
    Malformed,
}

/// The one authority of a request: the target's where it has one (HTTP/2, absolute form), else the Host header's.
///
/// # Errors
/// Two Host headers, or two different authorities: a proxy in front may have believed the other one. HTTP/1 asks
/// for a Host header in any case; HTTP/2 requests (`multiplexed`) may leave it out.
pub(crate) fn authority<'a>(
    uri: &'a Uri,
    headers: &'a HeaderMap,
    multiplexed: bool,
) -> Result<&'a str, HostError> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().map(|value| value.to_str().map_err(|_| HostError::Malformed)).transpose()?;
    if hosts.next().is_some() {
        return Err(HostError::Duplicate);
    }
    match (uri.authority().map(Authority::as_str), host) {
        (None, None) => Err(HostError::Missing),
        (Some(_), None) if !multiplexed => Err(HostError::Missing),
        (Some(target), Some(host)) if !target.eq_ignore_ascii_case(host) => Err(HostError::Contradiction),
        (Some(text), _) | (None, Some(text)) => Ok(text),
    }
}

/// Reads an authority. `local` is the address at which the client reached this server.
///
/// # Errors
/// Anything but a DNS name, an IPv4 address or a bracketed IPv6 address, with an optional port.
pub(crate) fn parse(authority: &str, local: IpAddr) -> Result<Host<'_>, HostError> {
    let is_own = |address: IpAddr| address.is_loopback() || address == local.to_canonical();
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or(HostError::Malformed)?;
        check_port(port)?;
        let parsed: Ipv6Addr = address.parse().map_err(|_| HostError::Malformed)?;
        return match is_own(IpAddr::V6(parsed).to_canonical()) {
            true => Ok(Host::Plain),
            false => Ok(Host::Name(Cow::Borrowed(address))),
        };
    }
    let end = authority.find(':').unwrap_or(authority.len());
    let (name, port) = authority.split_at(end);
    check_port(port)?;
    // A name with a final dot is the same name, said absolutely.
    let name = name.strip_suffix('.').unwrap_or(name);
    if !is_name(name) {
        return Err(HostError::Malformed);
    }
    if name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok_and(|ip| is_own(ip.into())) {
        return Ok(Host::Plain);
    }
    Ok(Host::Name(match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    }))
}

fn check_port(text: &str) -> Result<(), HostError> {
    let valid = |digits: &str| {
        digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.len() <= 5 && digits.parse::<u16>().is_ok()
    };
    match text.strip_prefix(':') {
        None if text.is_empty() => Ok(()),
        Some(digits) if valid(digits) => Ok(()),
        _ => Err(HostError::Malformed),
    }
}

fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(valid)
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7));

    #[test]
    fn plain_hosts_are_the_loopback_ones_and_the_address_that_was_dialled() {
        for text in [
            "localhost",
            "LocalHost:8080",
            "localhost.",
            "127.0.0.1",
            "127.8.9.1:80",
            "[::1]:8080",
            "10.0.0.7:8080",
        ] {
            assert_eq!(parse(text, LOCAL), Ok(Host::Plain), "{text}");
        }
        for text in ["hello.localhost", "10.0.0.8", "[2001:db8::1]", "localhost.example", "notlocalhost"] {
            assert!(matches!(parse(text, LOCAL), Ok(Host::Name(_))), "{text}");
        }
        assert_eq!(parse("[::ffff:10.0.0.7]", LOCAL), Ok(Host::Plain), "the same address in IPv6 clothes");
    }

    #[test]
    fn names_are_lower_case_and_without_port() {
        assert_eq!(parse("Hello.LOCALHOST:8080", LOCAL), Ok(Host::Name("hello.localhost".into())));
        assert!(matches!(parse("a.example:443", LOCAL), Ok(Host::Name(Cow::Borrowed("a.example")))));
    }

    #[test]
    fn garbage_is_refused() {
        let long = "a".repeat(64);
        for text in [
            "",
            ":80",
            "a b",
            "a/b",
            "a@b",
            "user@a.example",
            "a..b",
            ".a",
            "a:",
            "a:b",
            "a:65536",
            "a:000080",
            "a:80:80",
            "[::1",
            "[::1]x",
            "[]",
            "[a]",
            "::1",
            "a,b",
            "ä",
            "a\t",
            "a?b",
            "a#b",
            "a%20b",
            &long,
        ] {
            assert_eq!(parse(text, LOCAL), Err(HostError::Malformed), "{text:?}");
        }
    }

    #[test]
    fn one_authority_and_no_other() {
        let check = |uri: &str, hosts: &[&str], multiplexed| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(HOST, host.parse().expect("header value"));
            }
            authority(&uri.parse().expect("URI"), &headers, multiplexed).map(str::to_owned)
        };
        assert_eq!(check("/", &["a.example"], false), Ok("a.example".to_owned()));
        assert_eq!(check("http://a.example/", &["A.example"], false), Ok("a.example".to_owned()));
        assert_eq!(check("http://a.example/", &[], true), Ok("a.example".to_owned()));
        assert_eq!(check("http://a.example/", &[], false), Err(HostError::Missing));
        assert_eq!(check("/", &[], true), Err(HostError::Missing));
        assert_eq!(check("/", &["a.example", "a.example"], false), Err(HostError::Duplicate));
        assert_eq!(check("http://a.example/", &["b.example"], true), Err(HostError::Contradiction));
    }
}
