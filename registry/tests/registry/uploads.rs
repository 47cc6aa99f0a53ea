//! Uploads in one request, in parts, resumed, raced, mounted.

use crate::harness::{Server, error_code, header, http, repository};
use neap_sdk::{Digest, limits};
use std::time::{Duration, SystemTime};
use tokio::io::AsyncWriteExt as _;

async fn begin(server: &Server, repository: &str) -> String {
    let url = server.url(&format!("/v2/{repository}/blobs/uploads/"));
    let answer = http().post(url).send().await.expect("an answer");
    assert_eq!(answer.status(), 202);
    server.url(header(&answer, "location"))
}

async fn patch(location: &str, range: &str, bytes: &'static [u8]) -> reqwest::Response {
    let request = http().patch(location).header("content-range", range).body(bytes);
    request.send().await.expect("an answer")
}

async fn get(server: &Server, repository: &str, digest: Digest) -> reqwest::Response {
    let url = server.url(&format!("/v2/{repository}/blobs/{digest}"));
    http().get(url).send().await.expect("an answer")
}

#[tokio::test]
async fn parts_must_follow_each_other() {
    let server = Server::start().await;
    let location = begin(&server, "a/b").await;
    assert_eq!(patch(&location, "0-4", b"hello").await.status(), 202);
    let gap = patch(&location, "6-10", b"world").await;
    assert_eq!((gap.status().as_u16(), header(&gap, "range")), (416, "0-4"));
    assert_eq!(patch(&location, "nonsense", b"world").await.status(), 400);
    assert_eq!(error_code(patch(&location, "5-99", b"world").await).await, "SIZE_INVALID");
    let status = http().get(&location).send().await.expect("an answer");
    assert_eq!((status.status().as_u16(), header(&status, "range")), (204, "0-4"));
    // Without Content-Range a part goes to the end.
    assert_eq!(http().patch(&location).body(" wor").send().await.expect("an answer").status(), 202);
    let digest = Digest::of(b"hello world");
    let end = http().put(format!("{location}?digest={digest}")).body("ld").send().await.expect("an answer");
    assert_eq!((end.status().as_u16(), header(&end, "docker-content-digest")), (201, &*digest.to_string()));
    assert_eq!(get(&server, "a/b", digest).await.bytes().await.expect("a body"), "hello world");
    assert_eq!(http().get(&location).send().await.expect("an answer").status(), 404, "the session is over");
}

#[tokio::test]
async fn a_cancelled_upload_is_gone() {
    let server = Server::start().await;
    let location = begin(&server, "a").await;
    assert_eq!(patch(&location, "0-4", b"hello").await.status(), 202);
    let elsewhere = location.replace("/v2/a/", "/v2/b/");
    assert_eq!(
        http().delete(elsewhere).send().await.expect("an answer").status(),
        404,
        "not in that repository"
    );
    assert_eq!(http().delete(&location).send().await.expect("an answer").status(), 204);
    assert_eq!(http().get(&location).send().await.expect("an answer").status(), 404);
    assert_eq!(std::fs::read_dir(server.path("uploads")).expect("uploads").count(), 0);
}

#[tokio::test]
async fn other_bytes_than_named_are_not_kept() {
    let server = Server::start().await;
    let wrong = Digest::of(b"something else");
    let location = begin(&server, "a").await;
    let end = http().put(format!("{location}?digest={wrong}")).body("bytes").send().await.expect("an answer");
    assert_eq!(end.status(), 400);
    assert_eq!(error_code(end).await, "DIGEST_INVALID");
    let url = server.url(&format!("/v2/a/blobs/uploads/?digest={wrong}"));
    let whole = http().post(url).body("bytes").send().await.expect("an answer");
    assert_eq!(error_code(whole).await, "DIGEST_INVALID");
    for digest in [wrong, Digest::of(b"bytes")] {
        assert_eq!(get(&server, "a", digest).await.status(), 404);
        assert!(!server.registry.blob_path(&digest).exists());
    }
    let missing = http().put(begin(&server, "a").await).send().await.expect("an answer");
    assert_eq!(error_code(missing).await, "DIGEST_INVALID");
}

#[tokio::test]
async fn an_upload_goes_on_after_a_broken_connection_and_a_restart() {
    let server = Server::start().await;
    let location = begin(&server, "a").await;
    let path = location.strip_prefix(&server.url("")).expect("our server").to_owned();
    let blob: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut socket = tokio::net::TcpStream::connect(&server.host).await.expect("a connection");
    let head = format!("PATCH {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", blob.len());
    socket.write_all(head.as_bytes()).await.expect("sent");
    socket.write_all(&blob[..1_500_000]).await.expect("sent");
    drop(socket);
    let offset = wait_for_bytes(&location).await;
    assert!((1..=1_500_000).contains(&offset), "{offset} bytes came before the connection broke");

    let server = server.restart().await;
    let location = server.url(&path);
    let resumed = http().get(&location).send().await.expect("an answer");
    assert_eq!(header(&resumed, "range"), format!("0-{}", offset - 1), "what was acknowledged is there");
    let rest = http()
        .patch(&location)
        .header("content-range", format!("{offset}-{}", blob.len() - 1))
        .body(blob[offset..].to_vec());
    assert_eq!(rest.send().await.expect("an answer").status(), 202);
    let digest = Digest::of(&blob);
    let end = http().put(format!("{location}?digest={digest}")).send().await.expect("an answer");
    assert_eq!(end.status(), 201);
    assert!(get(&server, "a", digest).await.bytes().await.expect("a body") == blob);
}

/// The bytes that an upload has once the server has noticed that its connection is gone.
async fn wait_for_bytes(location: &str) -> usize {
    for _ in 0..50 {
        let status = http().get(location).send().await.expect("an answer");
        if status.status() == 204 {
            let last =
                header(&status, "range").strip_prefix("0-").and_then(|last| last.parse::<usize>().ok());
            if let Some(last) = last.filter(|last| *last > 0) {
                return last + 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the server never had a byte");
}

#[tokio::test]
async fn concurrent_pushes_of_one_blob_all_succeed() {
    let server = Server::start().await;
    let bytes = vec![7; 300_000];
    let pushes = (0..8).map(|index| {
        let (server, bytes) = (&server, &bytes);
        async move { server.push_blob(if index % 2 == 0 { "a" } else { "b" }, bytes).await }
    });
    let digests = futures_util::future::join_all(pushes).await;
    for repository in ["a", "b"] {
        assert!(get(&server, repository, digests[0]).await.bytes().await.expect("a body") == bytes);
    }
    assert_eq!(
        std::fs::read_dir(server.path("scratch")).expect("scratch").count(),
        0,
        "nothing is left over"
    );
}

#[tokio::test]
async fn a_blob_is_seen_only_where_it_was_pushed_or_mounted() {
    let server = Server::start().await;
    let digest = server.push_blob("team/one", b"blob").await;
    assert_eq!(get(&server, "team/two", digest).await.status(), 404);
    let mount = async |from: &str| {
        let url = server.url(&format!("/v2/team/two/blobs/uploads/?mount={digest}&from={from}"));
        http().post(url).send().await.expect("an answer").status().as_u16()
    };
    assert_eq!(mount("team/none").await, 202, "an ordinary upload begins instead");
    assert_eq!(get(&server, "team/two", digest).await.status(), 404);
    assert_eq!(mount("team/one").await, 201);
    assert_eq!(get(&server, "team/two", digest).await.bytes().await.expect("a body"), "blob");
    let url = server.url(&format!("/v2/team/one/blobs/{digest}"));
    assert_eq!(http().delete(&url).send().await.expect("an answer").status(), 202);
    assert_eq!(http().delete(&url).send().await.expect("an answer").status(), 404);
    assert_eq!(get(&server, "team/two", digest).await.status(), 200, "the other repository keeps it");
}

#[tokio::test]
async fn sessions_are_bounded_and_expire() {
    let server = Server::start().await;
    let store = server.registry.store();
    let first = store.begin_upload(&repository("a")).await.expect("a session");
    for _ in 1..limits::UPLOADS_OPEN_MAX {
        store.begin_upload(&repository("a")).await.expect("a session");
    }
    let refused = http().post(server.url("/v2/a/blobs/uploads/")).send().await.expect("an answer");
    assert_eq!(refused.status(), 429);
    assert_eq!(store.expire_uploads(SystemTime::now()).expect("no error"), 0);
    store.cancel_upload(&repository("a"), &first).await.expect("cancelled");
    begin(&server, "a").await;
    let tomorrow = SystemTime::now() + Duration::from_secs(limits::UPLOAD_IDLE_S);
    assert_eq!(store.expire_uploads(tomorrow).expect("no error"), limits::UPLOADS_OPEN_MAX);
    assert_eq!(std::fs::read_dir(server.path("uploads")).expect("uploads").count(), 0);
}

#[tokio::test]
async fn parts_of_a_blob_and_a_changed_blob() {
    let server = Server::start().await;
    let bytes: Vec<u8> = (0..600_000_u32).map(|index| (index % 251) as u8).collect();
    let digest = server.push_blob("a", &bytes).await;
    let url = server.url(&format!("/v2/a/blobs/{digest}"));
    let head = http().head(&url).send().await.expect("an answer");
    assert_eq!((header(&head, "content-length"), header(&head, "accept-ranges")), ("600000", "bytes"));
    let part = http().get(&url).header("range", "bytes=10-19").send().await.expect("an answer");
    assert_eq!((part.status().as_u16(), header(&part, "content-range")), (206, "bytes 10-19/600000"));
    assert_eq!(part.bytes().await.expect("a body"), &bytes[10..20]);
    let outside = http().get(&url).header("range", "bytes=600000-").send().await.expect("an answer");
    assert_eq!((outside.status().as_u16(), header(&outside, "content-range")), (416, "bytes */600000"));

    let path = server.registry.blob_path(&digest);
    let mut changed = bytes.clone();
    changed[599_999] ^= 1;
    std::fs::write(&path, &changed).expect("somebody changes the file");
    let answer = http().get(&url).send().await.expect("the head comes before the last byte is checked");
    assert!(answer.bytes().await.is_err(), "a changed blob is never a complete answer");
    server.push_blob("a", &bytes).await;
    assert!(http().get(&url).send().await.expect("an answer").bytes().await.expect("healed") == bytes);
}
