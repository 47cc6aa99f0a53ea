//! A client that speaks raw HTTP/1.1, so that tests say byte by byte what goes over the wire.

use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Longer than anything here takes on a busy machine; a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// An answer's head, and its body where that was read.
#[derive(Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's value, or nothing.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("text")
    }

    /// Checks that this is a problem document of one kind and returns it.
    pub fn problem(&self, status: u16, code: &str) -> serde_json::Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(self.header("x-neap-error"), Some(code), "{self:?}");
        let problem: serde_json::Value = serde_json::from_slice(&self.body).expect("a JSON document");
        assert_eq!(problem["code"], code);
        assert_eq!(problem["status"], status);
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"), "{self:?}");
        problem
    }
}

/// One connection.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream =
            timeout(PATIENCE, TcpStream::connect(address)).await.expect("in time").expect("connects");
        stream.set_nodelay(true).expect("no delay");
        Self { stream, buffer: Vec::new() }
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("sends");
    }

    /// Sends bytes; the other side may be gone already.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Sends a request without a body.
    pub async fn get(&mut self, host: &str, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        self.answer().await
    }

    /// Reads one whole answer.
    pub async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        if let Some(length) = answer.header("content-length") {
            let length = length.parse().expect("a length");
            answer.body = self.take(length).await;
        } else if answer.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk().await {
                answer.body.extend(chunk);
            }
        }
        answer
    }

    /// Reads one answer's head.
    pub async fn head(&mut self) -> Answer {
        let status = self.line().await;
        let mut answer = Answer {
            status: status.split(' ').nth(1).and_then(|text| text.parse().ok()).expect("a status line"),
            ..Answer::default()
        };
        loop {
            let line = self.line().await;
            let Some((name, value)) = line.split_once(": ") else { break };
            answer.headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        answer
    }

    /// Reads one chunk of a chunked body; `None` is the last.
    pub async fn chunk(&mut self) -> Option<Vec<u8>> {
        let length = usize::from_str_radix(&self.line().await, 16).expect("a chunk's size");
        let chunk = self.take(length).await;
        assert_eq!(self.line().await, "", "a chunk ends with a line end");
        (length > 0).then_some(chunk)
    }

    /// Waits for the server to close, and returns what it still sent.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.buffer)
    }

    /// Whether nothing comes for a while.
    pub async fn is_silent(&mut self) -> bool {
        let mut byte = [0];
        let silent = timeout(Duration::from_millis(150), self.stream.peek(&mut byte)).await.is_err();
        silent && self.buffer.is_empty()
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).take(end).collect();
                return String::from_utf8(line).expect("text");
            }
            assert!(self.fill().await, "closed within a line: {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    async fn take(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            assert!(self.fill().await, "closed within a body");
        }
        self.buffer.drain(..length).collect()
    }

    async fn fill(&mut self) -> bool {
        let read = self.stream.read_buf(&mut self.buffer);
        matches!(timeout(PATIENCE, read).await.expect("something comes, or the end, in time"), Ok(1..))
    }
}
