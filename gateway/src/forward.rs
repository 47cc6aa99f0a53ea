//! What changes in a message on its way through: headers that belong to one connection go, headers about the
//! client are ours to write, and every request gets one form (path as target, one `Host`), whatever it came in.
//!
//! Framing is not decided here: hyper reads and writes it, so `Transfer-Encoding` never passes.

use crate::id::X_REQUEST_ID;
use http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::{
        CONNECTION, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING,
        UPGRADE,
    },
    uri::PathAndQuery,
};
use std::net::IpAddr;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Headers that speak of one connection only (RFC 9110 §7.6.1), besides those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 7] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Who sent a request, as the gateway knows it from the socket.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    address: HeaderValue,
    is_trusted: bool,
}

impl Client {
    /// `is_trusted`: it is a proxy of ours, whose word on the real client counts.
    pub(crate) fn new(address: IpAddr, is_trusted: bool) -> Self {
        let text = address.to_canonical().to_string();
        let address = HeaderValue::try_from(text).expect("an IP address is a header value");
        Self { address, is_trusted }
    }
}

/// Makes a request ready for the function: `authority` is its one, checked, authority.
pub(crate) fn request(headers: &mut HeaderMap, uri: &mut Uri, authority: &HeaderValue, client: &Client) {
    remove_hop_by_hop(headers);
    // hyper says `100 Continue` itself, as soon as the function reads.
    headers.remove(EXPECT);
    if !client.is_trusted {
        // Anybody can write these; nobody vouches for them.
        headers.remove(FORWARDED);
        headers.remove(X_REAL_IP);
    }
    let for_value = forwarded_for(headers, client);
    headers.insert(X_FORWARDED_FOR, for_value);
    for (name, value) in
        [(X_FORWARDED_PROTO, HeaderValue::from_static("http")), (X_FORWARDED_HOST, authority.clone())]
    {
        if !(client.is_trusted && headers.contains_key(&name)) {
            headers.insert(name, value);
        }
    }
    if uri.authority().is_some() {
        headers.insert(HOST, authority.clone());
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        *uri = Uri::from(path);
    }
}

fn forwarded_for(headers: &HeaderMap, client: &Client) -> HeaderValue {
    if !client.is_trusted || !headers.contains_key(X_FORWARDED_FOR) {
        return client.address.clone();
    }
    let mut list: Vec<u8> = Vec::new();
    for value in headers.get_all(X_FORWARDED_FOR) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(client.address.as_bytes());
    HeaderValue::from_bytes(&list).unwrap_or_else(|_| client.address.clone())
}

/// Makes a function's answer ready for the client.
pub(crate) fn response(headers: &mut HeaderMap, request_id: HeaderValue) {
    remove_hop_by_hop(headers);
    headers.insert(X_REQUEST_ID, request_id);
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|token| token.trim().parse().ok())
            // Said to be of one connection, these would change what the message means.
            .filter(|name| name != HOST && name != http::header::CONTENT_LENGTH)
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(pairs: &[(&'static str, &str)], uri: &str, trusted: bool) -> (Vec<(String, String)>, String) {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("header value"));
        }
        let mut uri: Uri = uri.parse().expect("URI");
        let client = Client::new("192.0.2.9".parse().expect("address"), trusted);
        request(&mut headers, &mut uri, &HeaderValue::from_static("a.example"), &client);
        let text = |value: &HeaderValue| value.to_str().expect("text").to_owned();
        let mut list: Vec<_> = headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        list.sort();
        (list, uri.to_string())
    }

    fn expect(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn headers_of_the_connection_and_claims_about_the_client_do_not_pass() {
        let (headers, uri) = forward(
            &[
                ("host", "a.example"),
                ("connection", "keep-alive, X-Secret, Host"),
                ("keep-alive", "timeout=5"),
                ("x-secret", "1"),
                ("te", "trailers"),
                ("transfer-encoding", "chunked"),
                ("upgrade", "websocket"),
                ("proxy-authorization", "Basic x"),
                ("x-forwarded-for", "1.2.3.4"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "evil.example"),
                ("forwarded", "for=1.2.3.4"),
                ("x-real-ip", "1.2.3.4"),
                ("expect", "100-continue"),
                ("cookie", "kept"),
            ],
            "/x?y=1",
            false,
        );
        let kept = [
            ("cookie", "kept"),
            ("host", "a.example"),
            ("x-forwarded-for", "192.0.2.9"),
            ("x-forwarded-host", "a.example"),
            ("x-forwarded-proto", "http"),
        ];
        assert_eq!((headers, uri.as_str()), (expect(&kept), "/x?y=1"));
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_added_to() {
        let (headers, _) = forward(
            &[
                ("host", "a.example"),
                ("x-forwarded-for", "1.2.3.4"),
                ("x-forwarded-for", "5.6.7.8"),
                ("x-forwarded-proto", "https"),
            ],
            "/",
            true,
        );
        let kept = [
            ("host", "a.example"),
            ("x-forwarded-for", "1.2.3.4, 5.6.7.8, 192.0.2.9"),
            ("x-forwarded-host", "a.example"),
            ("x-forwarded-proto", "https"),
        ];
        assert_eq!(headers, expect(&kept));
    }

    #[test]
    fn http2_requests_take_the_same_form() {
        let (headers, uri) = forward(&[], "http://a.example/x?y", false);
        assert!(headers.contains(&("host".to_owned(), "a.example".to_owned())), "{headers:?}");
        assert_eq!(uri, "/x?y");
    }
}
