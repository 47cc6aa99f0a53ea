//! The head of a CGI response: a pure parser. Source: RFC 3875, section 6.

use crate::call::remove_hop_by_hop;
use http::{HeaderName, HeaderValue, StatusCode, header};

/// What the bytes so far are.
#[derive(Debug)]
pub(super) enum Parsed {
    /// More are needed; at the end of the output: there were none.
    Incomplete,
    /// A head; the body begins after `length` bytes.
    Head {
        /// The response without its body.
        response: http::Response<()>,
        /// Bytes of the head with the empty line; 0 where the output has none.
        length: usize,
    },
    /// Never a head, for this reason.
    Bad(String),
}

/// Reads a head from the beginning of a guest's output. `ended` tells that no more will come.
pub(super) fn parse(bytes: &[u8], ended: bool) -> Parsed {
    let mut response = http::Response::new(());
    let mut status = None;
    let mut at = 0;
    loop {
        let Some((line, next)) = line(bytes, at, ended) else { return Parsed::Incomplete };
        if line.is_empty() && at > 0 {
            at = next;
            break;
        }
        let Some((name, value)) = field(line) else {
            // The very first line decides whether the program speaks CGI at all.
            return if at == 0 { plain() } else { Parsed::Bad(unreadable(line)) };
        };
        if name == "status" {
            status = value.to_str().ok().and_then(|text| text.get(..3)?.parse::<StatusCode>().ok());
            if status.is_none() {
                return Parsed::Bad(unreadable(line));
            }
        } else {
            response.headers_mut().append(name, value);
        }
        at = next;
        if at == bytes.len() && ended {
            break;
        }
    }
    let redirects = response.headers().contains_key(header::LOCATION);
    *response.status_mut() = status.unwrap_or(if redirects { StatusCode::FOUND } else { StatusCode::OK });
    remove_hop_by_hop(response.headers_mut());
    Parsed::Head { response, length: at }
}

/// The line at `at` without its end, and where the next one begins. The output's end also ends a line.
fn line(bytes: &[u8], at: usize, ended: bool) -> Option<(&[u8], usize)> {
    let rest = &bytes[at..];
    match rest.iter().position(|byte| *byte == b'\n') {
        Some(end) => Some((rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]), at + end + 1)),
        None if ended && !rest.is_empty() => Some((rest, bytes.len())),
        None => None,
    }
}

fn field(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = HeaderName::from_bytes(&line[..colon]).ok()?;
    let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
    Some((name, value))
}

/// The response of a program that just prints.
fn plain() -> Parsed {
    let mut response = http::Response::new(());
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    Parsed::Head { response, length: 0 }
}

fn unreadable(line: &[u8]) -> String {
    let shown: String = String::from_utf8_lossy(line).chars().take(80).collect();
    format!("{shown:?} in its head is no header field; an empty line ends the head")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Status, headers as text, and the body.
    fn whole(output: &str) -> (u16, String, &str) {
        match parse(output.as_bytes(), true) {
            Parsed::Head { response, length } => {
                let fields = response
                    .headers()
                    .iter()
                    .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()));
                (response.status().as_u16(), fields.collect::<Vec<_>>().join(" "), &output[length..])
            }
            other => panic!("{output:?}: {other:?}"),
        }
    }

    #[test]
    fn heads_are_read_as_cgi_means_them() {
        assert_eq!(whole("Status: 404 Not Found\r\nX-A: 1\r\n\r\nbody\n"), (404, "x-a=1".into(), "body\n"));
        assert_eq!(whole("Content-Type: a/b\n\n"), (200, "content-type=a/b".into(), ""));
        assert_eq!(whole("Location: /x\n\n"), (302, "location=/x".into(), ""));
        assert_eq!(whole("X-A: 1\n"), (200, "x-a=1".into(), ""), "the end of output ends the head");
        assert_eq!(
            whole("Connection: close\nTransfer-Encoding: chunked\nX-A: 1\n\nb"),
            (200, "x-a=1".into(), "b")
        );
    }

    #[test]
    fn output_without_a_head_is_plain_text() {
        let plain = "content-type=text/plain; charset=utf-8".to_owned();
        for text in ["hello\n", "hello", "\nhello", "<p>a: b</p>\n"] {
            assert_eq!(whole(text), (200, plain.clone(), text));
        }
    }

    #[test]
    fn a_head_is_waited_for_or_refused() {
        for text in ["", "Content-", "Content-Type: a/b\n", "Content-Type: a/b\nX"] {
            assert!(matches!(parse(text.as_bytes(), false), Parsed::Incomplete), "{text:?}");
        }
        assert!(matches!(parse(b"", true), Parsed::Incomplete));
        for text in ["Content-Type: a/b\nhello\n", "Status: soon\n\n", "Status: \n\n", "X: 1\nY: \x01\n\n"] {
            assert!(matches!(parse(text.as_bytes(), true), Parsed::Bad(_)), "{text:?}");
        }
    }
}
