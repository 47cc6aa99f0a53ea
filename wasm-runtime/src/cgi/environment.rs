//! A request as environment variables. Source: RFC 3875, section 4.1.

use http::{HeaderName, header, request::Parts};
use std::{borrow::Cow, collections::BTreeMap, net::SocketAddr};

/// The variables of a request, over the function's own. Where names clash the request's win: a program that
/// trusts `REQUEST_METHOD` must be able to.
pub(super) fn of(request: &Parts, function: &[(String, String)]) -> Vec<(String, String)> {
    let mut variables: BTreeMap<String, String> = function.iter().cloned().collect();
    let headers = &request.headers;
    let header = |name: HeaderName| headers.get(name).map(|value| text(value.as_bytes()));
    let authority = request.uri.authority();
    let tls = request.uri.scheme_str() == Some("https");
    let port = authority.and_then(|authority| authority.port_u16()).unwrap_or(if tls { 443 } else { 80 });
    let client = request.extensions.get::<SocketAddr>();
    let mut set = |name: &str, value: String| variables.insert(name.to_owned(), value);

    set("GATEWAY_INTERFACE", "CGI/1.1".into());
    set("SERVER_SOFTWARE", concat!("neap/", env!("CARGO_PKG_VERSION")).into());
    set("SERVER_PROTOCOL", format!("{:?}", request.version));
    set("SERVER_NAME", authority.map_or("localhost", |authority| authority.host()).to_owned());
    set("SERVER_PORT", port.to_string());
    set("REQUEST_METHOD", request.method.to_string());
    set("REQUEST_URI", request.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned());
    set("SCRIPT_NAME", String::new());
    set("PATH_INFO", decode(request.uri.path()).into_owned());
    set("QUERY_STRING", request.uri.query().unwrap_or_default().to_owned());
    set("REMOTE_ADDR", client.map(|client| client.ip().to_string()).unwrap_or_default());
    set("CONTENT_TYPE", header(header::CONTENT_TYPE).unwrap_or_default());
    set("CONTENT_LENGTH", header(header::CONTENT_LENGTH).unwrap_or_default());
    if tls {
        set("HTTPS", "on".into());
    }
    for name in headers.keys().filter(|name| is_passed_on(name)) {
        let values: Vec<String> = headers.get_all(name).iter().map(|value| text(value.as_bytes())).collect();
        let between = if name == header::COOKIE { "; " } else { ", " };
        set(&format!("HTTP_{}", name.as_str().to_ascii_uppercase().replace('-', "_")), values.join(between));
    }
    variables.into_iter().collect()
}

/// Not `Proxy`, which would become the HTTP_PROXY that many libraries obey (CVE-2016-5385); not a name with a `_`,
/// which could pass for another with a `-`; not what has a variable of its own.
fn is_passed_on(name: &HeaderName) -> bool {
    let own = [header::CONTENT_TYPE, header::CONTENT_LENGTH].contains(name);
    !own && name != "proxy" && name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A path without its percent signs; as it is where it would hold a zero byte, which ends a variable.
fn decode(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return path.into();
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match digits.filter(|_| byte == b'%').and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    if bytes.contains(&0) { path.into() } else { text(&bytes).into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(request: http::request::Builder) -> BTreeMap<String, String> {
        let own = [("REQUEST_METHOD".to_owned(), "forged".to_owned()), ("MINE".to_owned(), "1".to_owned())];
        of(&request.body(()).expect("request").into_parts().0, &own).into_iter().collect()
    }

    #[test]
    fn a_request_becomes_variables() {
        let request = http::Request::post("https://shop.example:8443/a%20b/%c3%a9?x=1&y=%20")
            .header("content-type", "text/plain")
            .header("content-length", "3")
            .header("x-many", "1")
            .header("x-many", "2")
            .header("cookie", "a=1")
            .header("cookie", "b=2");
        let variables = variables(request);
        for (name, value) in [
            ("REQUEST_METHOD", "POST"),
            ("PATH_INFO", "/a b/é"),
            ("QUERY_STRING", "x=1&y=%20"),
            ("REQUEST_URI", "/a%20b/%c3%a9?x=1&y=%20"),
            ("SERVER_NAME", "shop.example"),
            ("SERVER_PORT", "8443"),
            ("SERVER_PROTOCOL", "HTTP/1.1"),
            ("CONTENT_TYPE", "text/plain"),
            ("CONTENT_LENGTH", "3"),
            ("HTTP_X_MANY", "1, 2"),
            ("HTTP_COOKIE", "a=1; b=2"),
            ("HTTPS", "on"),
            ("MINE", "1"),
        ] {
            assert_eq!(variables.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!variables.contains_key("HTTP_CONTENT_TYPE"));
    }

    #[test]
    fn hostile_headers_and_paths_do_no_harm() {
        let request = http::Request::get("/%00x%zz%2").header("proxy", "http://evil").header("x_forged", "1");
        let variables = variables(request);
        assert_eq!(variables["PATH_INFO"], "/%00x%zz%2");
        assert!(!variables.contains_key("HTTP_PROXY") && !variables.contains_key("HTTP_X_FORGED"));
        assert_eq!(decode("/%e4x%"), "/\u{fffd}x%");
    }
}
