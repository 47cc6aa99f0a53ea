//! A request as a guest may see it: without what concerns only one hop, and with an absolute URI, from which
//! guests of every kind read scheme and authority.

use super::Body;
use crate::error::InvokeError;
use http::{
    HeaderMap, HeaderName, Uri,
    header::{
        CONNECTION, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    },
    uri::{Authority, PathAndQuery, Scheme},
};

/// Headers that concern one hop alone. Source: RFC 9110, section 7.6.1.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Makes a request fit for a guest.
///
/// # Errors
/// `BadRequest` where the Host header is no authority.
pub(crate) fn prepare(mut request: http::Request<Body>) -> Result<http::Request<Body>, InvokeError> {
    remove_hop_by_hop(request.headers_mut());
    let uri = absolute(request.uri(), request.headers())?;
    *request.uri_mut() = uri;
    Ok(request)
}

/// Removes the headers that concern one hop alone, and those that `Connection` names.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

/// The URI with scheme and authority: its own, else `http` and the Host header. HTTP/1.0 knows neither.
fn absolute(uri: &Uri, headers: &HeaderMap) -> Result<Uri, InvokeError> {
    let bad = |what: &str| InvokeError::BadRequest(what.to_owned());
    let authority = match (uri.authority(), headers.get(HOST)) {
        (Some(authority), _) => authority.clone(),
        (None, Some(host)) => {
            Authority::try_from(host.as_bytes()).map_err(|_| bad("its Host header is no host"))?
        }
        (None, None) => Authority::from_static("localhost"),
    };
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(uri.scheme().cloned().unwrap_or(Scheme::HTTP));
    parts.authority = Some(authority);
    // `OPTIONS *` has no path of its own.
    let path = uri.path_and_query().filter(|path| path.as_str().starts_with('/'));
    parts.path_and_query = Some(path.cloned().unwrap_or(PathAndQuery::from_static("/")));
    Uri::from_parts(parts).map_err(|_| bad("its target is no URI"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt as _, Empty};

    fn prepared(request: http::request::Builder) -> Result<http::Request<Body>, InvokeError> {
        prepare(request.body(Empty::new().map_err(|never| match never {}).boxed_unsync()).expect("request"))
    }

    #[test]
    fn the_guest_sees_an_absolute_uri() {
        let uri = |request| prepared(request).expect("request").uri().to_string();
        let get = http::Request::get;
        assert_eq!(uri(get("/a?b").header(HOST, "shop.example:81")), "http://shop.example:81/a?b");
        assert_eq!(uri(get("https://shop.example/a").header(HOST, "other")), "https://shop.example/a");
        assert_eq!(uri(get("/")), "http://localhost/");
        assert_eq!(uri(http::Request::options("*").header(HOST, "h")), "http://h/");
        let bad = prepared(get("/").header(HOST, "not a host"));
        assert!(matches!(bad, Err(InvokeError::BadRequest(_))));
    }

    #[test]
    fn hop_by_hop_headers_are_not_for_the_guest() {
        let request = http::Request::get("/")
            .header("connection", "close, X-Secret-Hop")
            .header("x-secret-hop", "1")
            .header("te", "trailers")
            .header("keep-alive", "timeout=5")
            .header("x-kept", "1");
        let request = prepared(request).expect("request");
        assert_eq!(request.headers().keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-kept"]);
    }
}
