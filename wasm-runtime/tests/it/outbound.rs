//! Outgoing requests: to whom they may go, and that they stream.

use crate::harness::{Caller, load};
use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use neap_sdk::function::HostPattern;
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};
use tokio::net::TcpListener;

/// A server on loopback that tells what it was asked, and counts.
struct Peer {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Peer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("address");
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let count = count.clone();
                let answer = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    count.fetch_add(1, SeqCst);
                    let host = request.headers()["host"].to_str().expect("host").to_owned();
                    let text = format!("{} {} of {host}\n", request.method(), request.uri());
                    async move { Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from(text)))) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer),
                );
            }
        });
        Self { address, asked }
    }
}

fn granting(hosts: &[&str]) -> Caller {
    let outbound_hosts = hosts.iter().map(|host| host.parse::<HostPattern>().expect("a pattern")).collect();
    Caller { outbound_hosts, ..Caller::default() }
}

#[tokio::test]
async fn a_granted_host_is_reached() {
    let (peer, behave) = (Peer::start().await, load("behave").await);
    let host = peer.address.to_string();
    let seen = granting(&[&host]).text(&behave, &format!("/fetch?http://{host}/a?b")).await;
    assert_eq!(seen, format!("GET /a?b of {host}\n"));
}

#[tokio::test]
async fn a_granted_host_is_reached_from_0_3() {
    let (peer, program) = (Peer::start().await, load("p3").await);
    let host = peer.address.to_string();
    let seen = granting(&[&host]).text(&program, &format!("/fetch?{host}/a")).await;
    assert_eq!(seen, format!("GET /a of {host}\n"));
}

#[tokio::test]
async fn the_fetch_example_streams_a_page_back() {
    let (peer, fetch) = (Peer::start().await, load("fetch").await);
    let host = peer.address.to_string();
    let mut caller = granting(&[&host]);
    let by_query = caller.text(&fetch, &format!("/?url=http://{host}/q")).await;
    assert_eq!(by_query, format!("GET /q of {host}\n"));
    caller.env.push(("URL".into(), format!("http://{host}/e")));
    assert_eq!(caller.text(&fetch, "/").await, format!("GET /e of {host}\n"));
}

#[tokio::test]
async fn nothing_is_reached_without_a_grant() {
    let (peer, behave, p3) = (Peer::start().await, load("behave").await, load("p3").await);
    let port = peer.address.port();
    let other_port = format!("127.0.0.1:{}", port.wrapping_add(1).max(1));
    for grants in [&[][..], &["*.0.0.1"], &["127.0.0.1"], &[&other_port], &["api.example"]] {
        let caller = granting(grants);
        let seen = caller.text(&behave, &format!("/fetch?http://127.0.0.1:{port}/")).await;
        assert_eq!(seen, "refused: ErrorCode::HttpRequestDenied\n", "{grants:?}");
        let seen = caller.text(&p3, &format!("/fetch?127.0.0.1:{port}/")).await;
        assert_eq!(seen, "refused: ErrorCode::HttpRequestDenied\n", "{grants:?}");
    }
    assert_eq!(peer.asked.load(SeqCst), 0);
}

#[tokio::test]
async fn a_name_leads_to_no_inner_address() {
    let (peer, behave) = (Peer::start().await, load("behave").await);
    let port = peer.address.port();
    // Spellings that a resolver takes for 127.0.0.1, granted as if they were names.
    for host in ["127.1", "2130706433", "0x7f000001", "127.0.0.01"] {
        let host = format!("{host}:{port}");
        let seen = granting(&[&host]).text(&behave, &format!("/fetch?http://{host}/")).await;
        assert!(seen.starts_with("refused: ErrorCode::D"), "{host}: {seen}");
    }
    assert_eq!(peer.asked.load(SeqCst), 0);
    let localhost = format!("localhost:{port}");
    let seen = granting(&[&localhost]).text(&behave, &format!("/fetch?http://{localhost}/")).await;
    assert_eq!(seen, format!("GET / of {localhost}\n"), "an exact grant of this machine's own name");
}

#[tokio::test]
async fn a_closed_port_is_an_error_the_guest_can_handle() {
    let closed =
        TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("address").to_string();
    let behave = load("behave").await;
    let seen = granting(&[&closed]).text(&behave, &format!("/fetch?http://{closed}/")).await;
    assert_eq!(seen, "refused: ErrorCode::ConnectionRefused\n");
}
