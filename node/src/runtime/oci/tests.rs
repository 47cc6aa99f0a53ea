//! The HTTP client against real sockets: servers that keep, close and break connections.

use super::http::HttpClient;
use crate::{Body, CallError, runtime::fake::text_body};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use http::{Method, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

fn client_of(address: SocketAddr) -> HttpClient {
    HttpClient::new(Arc::new(move || TcpStream::connect(address).boxed()))
}

/// A server that treats its n-th connection as `serve(n, stream)` does.
async fn server<F, S>(mut serve: S) -> HttpClient
where
    S: FnMut(usize, TcpStream) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client_of(listener.local_addr().unwrap());
    tokio::spawn(async move {
        for n in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(n, stream));
        }
    });
    client
}

/// Reads one head; empty when the client has closed.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return String::new(),
        }
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

async fn reply(stream: &mut TcpStream, text: &str) {
    let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
    stream.write_all(response.as_bytes()).await.unwrap();
}

fn request(method: Method, body: &'static str) -> Request<Body> {
    Request::builder().method(method).uri("http://shop.example/a?b=c").body(text_body(body)).unwrap()
}

async fn text(client: &HttpClient, request: Request<Body>) -> Result<String, CallError> {
    let bytes = client.call(request).await?.into_body().collect().await.unwrap().to_bytes();
    // The connection's task must see the end before the next call asks for it.
    tokio::time::sleep(Duration::from_millis(20)).await;
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn a_connection_is_used_again_and_its_headers_stay_on_it() {
    let client = server(|n, mut stream| async move {
        loop {
            let head = read_head(&mut stream).await;
            if head.is_empty() {
                return;
            }
            let response = format!("{n} {}", head.replace("\r\n", "|"));
            let start =
                "HTTP/1.1 200 OK\r\nconnection: x-mine\r\nx-mine: 1\r\nkeep-alive: timeout=5\r\nx-app: 2";
            let text = format!("{start}\r\ncontent-length: {}\r\n\r\n{response}", response.len());
            stream.write_all(text.as_bytes()).await.unwrap();
        }
    })
    .await;
    let mut first = request(Method::GET, "");
    for (name, value) in [
        ("connection", "x-hop, keep-alive"),
        ("x-hop", "1"),
        ("te", "trailers"),
        ("upgrade", "websocket"),
        ("x-forwarded-for", "10.0.0.1"),
    ] {
        first.headers_mut().insert(name, value.parse().unwrap());
    }
    let response = client.call(first).await.unwrap();
    assert!(response.headers().contains_key("x-app"));
    for gone in ["connection", "x-mine", "keep-alive"] {
        assert!(!response.headers().contains_key(gone), "{gone} stays on its connection");
    }
    let seen = response.into_body().collect().await.unwrap().to_bytes();
    let seen = std::str::from_utf8(&seen).unwrap();
    assert!(seen.starts_with("0 get /a?b=c http/1.1|"), "{seen}");
    assert!(seen.contains("|host: shop.example|") && seen.contains("|x-forwarded-for: 10.0.0.1|"), "{seen}");
    assert!(!["x-hop", "te:", "upgrade", "connection:"].iter().any(|gone| seen.contains(gone)), "{seen}");
    tokio::time::sleep(Duration::from_millis(20)).await;
    for _ in 0..3 {
        let again = text(&client, request(Method::GET, "")).await.unwrap();
        assert!(again.starts_with("0 get"), "the same connection: {again}");
    }
    client.close_idle();
    assert!(text(&client, request(Method::GET, "")).await.unwrap().starts_with("1 get"), "a new connection");
}

#[tokio::test]
async fn a_connection_that_went_stale_is_replaced_if_nothing_can_happen_twice() {
    let client = server(|n, mut stream| async move {
        read_head(&mut stream).await;
        reply(&mut stream, &n.to_string()).await;
        // Takes the next request and closes without an answer, as a server does whose timer fires just then.
        read_head(&mut stream).await;
    })
    .await;
    assert_eq!(text(&client, request(Method::GET, "")).await.unwrap(), "0");
    assert_eq!(text(&client, request(Method::GET, "")).await.unwrap(), "1", "sent again on a new connection");
    let error = text(&client, request(Method::POST, "order")).await.unwrap_err();
    assert!(matches!(error, CallError::Failed(_)), "{error}: an order is not sent twice");
    assert_eq!(text(&client, request(Method::POST, "order")).await.unwrap(), "2", "nothing stale is left");
}

#[tokio::test]
async fn a_closed_connection_is_not_used() {
    let client = server(|n, mut stream| async move {
        read_head(&mut stream).await;
        reply(&mut stream, &n.to_string()).await;
    })
    .await;
    for n in 0..3 {
        assert_eq!(text(&client, request(Method::POST, "")).await.unwrap(), n.to_string());
    }
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let client = server(|_, mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        let mut buffer = [0; 64];
        loop {
            // Echoes what comes, chunk head and all.
            let read = stream.read(&mut buffer).await.unwrap();
            stream.write_all(&buffer[..read]).await.unwrap();
            if read == 0 || buffer[..read].ends_with(b"0\r\n\r\n") {
                return;
            }
        }
    })
    .await;
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let pieces = stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
    let body = StreamBody::new(pieces.map(|piece| Ok(Frame::data(piece)))).boxed_unsync();
    let mut response = client.call(Request::post("/").body(body).unwrap()).await.unwrap();
    for piece in ["one", "two", "three"] {
        sender.send(piece.into()).await.unwrap();
        let frame = response.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), piece, "before the next one was sent");
    }
    drop(sender);
    assert!(response.body_mut().frame().await.is_none());
}

#[tokio::test]
async fn dropping_the_response_body_or_the_call_closes_the_connection() {
    let (closed, mut closes) = mpsc::channel(2);
    let client = server(move |n, mut stream| {
        let closed = closed.clone();
        async move {
            read_head(&mut stream).await;
            if n == 0 {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nsome").await.unwrap();
            }
            let _ = stream.read(&mut [0; 1]).await;
            closed.send(n).await.unwrap();
        }
    })
    .await;
    let mut response = client.call(request(Method::GET, "")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.body_mut().frame().await.unwrap().unwrap();
    drop(response);
    assert_eq!(closes.recv().await, Some(0));
    let call = tokio::time::timeout(Duration::from_millis(50), client.call(request(Method::GET, ""))).await;
    assert!(call.is_err());
    assert_eq!(closes.recv().await, Some(1));
}

#[tokio::test]
async fn what_is_not_http_or_not_there_fails_the_call() {
    let client = server(|_, mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"220 smtp ready\r\n\r\n").await.unwrap();
    })
    .await;
    assert!(matches!(text(&client, request(Method::GET, "")).await, Err(CallError::Failed(_))));

    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = text(&client_of(nobody), request(Method::GET, "")).await.unwrap_err();
    assert!(error.to_string().contains("takes no connection"), "{error}");
}

#[tokio::test]
async fn many_at_once_keep_a_bounded_number_of_connections() {
    let client = server(|_, mut stream| async move {
        while !read_head(&mut stream).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
            reply(&mut stream, "x").await;
        }
    })
    .await;
    let calls = (0..100).map(|_| async {
        let mut request = request(Method::GET, "");
        *request.body_mut() = Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync();
        text(&client, request).await
    });
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(|answer| answer.as_deref() == Ok("x")), "{answers:?}");
    assert!(client.idle_connections() <= neap_sdk::limits::CONTAINER_CONNECTIONS_IDLE_MAX);
}
