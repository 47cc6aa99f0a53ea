//! Refuses HTTP/1 requests on whose borders two readers could disagree (request smuggling), before hyper sees them:
//! line ends without carriage return, folded lines, and `Content-Length` beside `Transfer-Encoding`. hyper reads
//! all of these one permitted way; a proxy in front may read them another way (RFC 9112 §2.2, §5.2, §6.1).
//!
//! A state machine over the client's bytes, however they are cut. It finds where heads begin and end and decides
//! nothing else: what it lets through is still hyper's to judge, and what it cannot follow it refuses.

use neap_sdk::limits;
use std::borrow::Cow;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first line of the connection.
    Opening,
    /// Before a request line.
    Start,
    /// In a head, after its request line.
    Head,
    /// In a body of known length.
    Body { left_bytes: u64 },
    /// Before the line with a chunk's size.
    ChunkSize,
    /// In a chunk.
    Chunk { left_bytes: u64 },
    /// After a chunk, before its line end.
    ChunkEnd,
    /// In the lines after the last chunk.
    Trailers,
    /// HTTP/2, which has no such borders.
    Multiplexed,
    /// Refused; nothing more is let through but what is left of the ending.
    Refused { ending: &'static [u8] },
}

/// Ends a refused head. A zero byte is allowed nowhere in one, so hyper answers 400; of a head that came in pieces it
/// looks at nothing before the empty line.
const HEAD_ENDING: &[u8] = b"\0\r\n\r\n";

/// Ends a refused body. A line end would end a chunk extension, and with the last chunk's the body, as if whole.
const BODY_ENDING: &[u8] = b"\0";

/// A line that cannot be let through.
struct Ambiguous;

/// What is known of a connection's bytes so far.
#[derive(Debug)]
pub(crate) struct Screen {
    state: State,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    length: Option<u64>,
    is_chunked: bool,
}

impl Screen {
    /// A new connection.
    pub(crate) fn new() -> Self {
        Self { state: State::Opening, line: Vec::new(), length: None, is_chunked: false }
    }

    /// Whether an earlier read was refused.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self.state, State::Refused { .. })
    }

    /// Up to `room` bytes of what hyper has to read in place of what was refused; then the stream ends.
    pub(crate) fn take_ending(&mut self, room: usize) -> &'static [u8] {
        let State::Refused { ending } = &mut self.state else { return &[] };
        let (taken, left) = ending.split_at(room.min(ending.len()));
        *ending = left;
        taken
    }

    /// Looks at what was read. `Some(n)`: only the first `n` bytes may pass, and after them only the ending.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match &mut self.state {
                State::Multiplexed => return None,
                State::Refused { .. } => return Some(at),
                State::Body { left_bytes } | State::Chunk { left_bytes } => {
                    let skipped = rest.len().min(usize::try_from(*left_bytes).unwrap_or(usize::MAX));
                    *left_bytes -= skipped as u64;
                    at += skipped;
                    if *left_bytes == 0 {
                        let is_body = matches!(self.state, State::Body { .. });
                        self.state = if is_body { State::Start } else { State::ChunkEnd };
                    }
                }
                _ => {
                    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                        return self.keep(rest).then_some(at);
                    };
                    if self.on_line_end(&rest[..end]).is_err() {
                        self.refuse();
                        return Some(at + end);
                    }
                    at += end + 1;
                }
            }
        }
        None
    }

    /// Keeps the beginning of a line; `true` if it has grown too long.
    fn keep(&mut self, part: &[u8]) -> bool {
        let is_too_long = self.line.len() + part.len() > limits::REQUEST_HEAD_BYTES_MAX;
        match is_too_long {
            true => self.refuse(),
            false => self.line.extend_from_slice(part),
        }
        is_too_long
    }

    fn refuse(&mut self) {
        let is_head = matches!(self.state, State::Opening | State::Start | State::Head);
        self.state = State::Refused { ending: if is_head { HEAD_ENDING } else { BODY_ENDING } };
    }

    /// A line is complete but for its line feed; `last` is its last, often its only, part.
    fn on_line_end(&mut self, last: &[u8]) -> Result<(), Ambiguous> {
        let mut kept = std::mem::take(&mut self.line);
        let line = match kept.is_empty() {
            true => Cow::Borrowed(last),
            false => {
                kept.extend_from_slice(last);
                Cow::Owned(kept)
            }
        };
        let line = line.strip_suffix(b"\r").ok_or(Ambiguous)?;
        self.state = match self.state {
            State::Opening if line == b"PRI * HTTP/2.0" => State::Multiplexed,
            // Empty lines before a request are allowed (RFC 9112 §2.2).
            State::Opening | State::Start if line.is_empty() => State::Start,
            State::Opening | State::Start => State::Head,
            State::Head if line.is_empty() => self.body(),
            State::Head => {
                self.on_header(line)?;
                State::Head
            }
            State::ChunkSize => match chunk_size(line)? {
                0 => State::Trailers,
                left_bytes => State::Chunk { left_bytes },
            },
            State::ChunkEnd if line.is_empty() => State::ChunkSize,
            State::Trailers if line.is_empty() => State::Start,
            State::Trailers => State::Trailers,
            _ => return Err(Ambiguous),
        };
        Ok(())
    }

    fn on_header(&mut self, line: &[u8]) -> Result<(), Ambiguous> {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Err(Ambiguous);
        }
        let colon = line.iter().position(|byte| *byte == b':').ok_or(Ambiguous)?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.eq_ignore_ascii_case(b"content-length") {
            let text = str::from_utf8(value.trim_ascii()).map_err(|_| Ambiguous)?;
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            let length = text.parse().ok().filter(|_| digits).ok_or(Ambiguous)?;
            if self.is_chunked || self.length.is_some_and(|other| other != length) {
                return Err(Ambiguous);
            }
            self.length = Some(length);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.length.is_some() {
                return Err(Ambiguous);
            }
            self.is_chunked = true;
        }
        Ok(())
    }

    /// What follows a head.
    fn body(&mut self) -> State {
        match (std::mem::take(&mut self.is_chunked), self.length.take()) {
            (true, _) => State::ChunkSize,
            (false, Some(left_bytes @ 1..)) => State::Body { left_bytes },
            (false, Some(0) | None) => State::Start,
        }
    }
}

/// The size at the beginning of a chunk's first line; what may follow are spaces and extensions.
fn chunk_size(line: &[u8]) -> Result<u64, Ambiguous> {
    let size = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
    let text = str::from_utf8(size).map_err(|_| Ambiguous)?;
    let is_hex = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|_| is_hex).ok_or(Ambiguous)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Where the bytes are cut off, read in pieces of this size.
    fn passed(bytes: &[u8], piece: usize) -> usize {
        let mut screen = Screen::new();
        for (index, part) in bytes.chunks(piece).enumerate() {
            if let Some(count) = screen.pass(part) {
                assert!(screen.is_refused());
                return index * piece + count;
            }
        }
        bytes.len()
    }

    #[test]
    fn ambiguous_requests_are_cut_before_their_head_is_complete() {
        for bad in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n",
            "GET / HTTP/1.1\r\nHost\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\nCONTENT-LENGTH: 3\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\nz\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\nz\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nzz\r\n",
        ] {
            for piece in [1, 7, bad.len()] {
                let count = passed(bad.as_bytes(), piece);
                assert!(count < bad.len(), "{bad:?} passed");
                assert_eq!(bad.as_bytes()[count], b'\n', "{bad:?} is cut within a line");
            }
        }
    }

    #[test]
    fn only_a_refused_head_is_ended_with_an_empty_line() {
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let head = |bytes: &str| (bytes.to_owned(), HEAD_ENDING);
        let body = |bytes: &str| (format!("{chunked}{bytes}"), BODY_ENDING);
        for (bad, ending) in [
            head("\n"),
            head("GET / HTTP/1.1\r\n\n"),
            head(&format!("{chunked}0\r\n\r\nGET / HTTP/1.1\n")),
            body("0;x\n"),
            body("1\r\na\n"),
            body("0\r\nX: y\n"),
        ] {
            for room in [1, 2, 9] {
                let mut screen = Screen::new();
                assert_eq!(screen.take_ending(room), b"", "nothing is refused yet");
                assert_eq!(screen.pass(bad.as_bytes()), Some(bad.len() - 1), "{bad:?}");
                let mut taken = Vec::new();
                while let part @ [_, ..] = screen.take_ending(room) {
                    assert!(part.len() <= room);
                    taken.extend_from_slice(part);
                }
                assert_eq!(taken, ending, "{bad:?}");
                assert!(screen.is_refused());
            }
        }
    }

    #[test]
    fn a_second_request_is_looked_at_as_closely_as_the_first() {
        let good = "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\na\nbGET / HTTP/1.1\r\n";
        for piece in [1, 5, 1_000] {
            assert_eq!(passed(format!("{good}Host: a\n\r\n").as_bytes(), piece), good.len() + 7);
        }
    }

    #[test]
    fn http2_passes_and_endless_lines_do_not() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\n\n\n";
        assert_eq!(passed(preface, 3), preface.len());
        assert!(
            passed(&vec![b'a'; 2 * limits::REQUEST_HEAD_BYTES_MAX], 1_000) <= limits::REQUEST_HEAD_BYTES_MAX
        );
    }

    fn request() -> impl Strategy<Value = Vec<u8>> {
        let body = prop::collection::vec(any::<u8>(), 0..40);
        (body, prop::bool::ANY, 1_usize..9).prop_map(|(body, is_chunked, size)| {
            let mut bytes = b"POST /x HTTP/1.1\r\nHost: a.example\r\n".to_vec();
            if !is_chunked {
                bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
                bytes.extend_from_slice(&body);
                return bytes;
            }
            bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for chunk in body.chunks(size) {
                bytes.extend_from_slice(format!("{:X} ;ext=1\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\nTrailer: x\r\n\r\n");
            bytes
        })
    }

    proptest! {
        #[test]
        fn clear_requests_pass_whatever_their_bodies_and_cuts(
            requests in prop::collection::vec(request(), 1..5),
            piece in 1_usize..80,
        ) {
            let bytes = requests.concat();
            prop_assert_eq!(passed(&bytes, piece), bytes.len());
            let bad = [&bytes[..], b"GET / HTTP/1.1\nHost: a\r\n\r\n"].concat();
            prop_assert_eq!(passed(&bad, piece), bytes.len() + 14, "borders were found");
        }
    }
}
