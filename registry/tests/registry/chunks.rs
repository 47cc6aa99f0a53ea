//! Large blobs: chunks, progress, and a connection that breaks in the middle.

use crate::harness::{Server, repository, tag};
use neap_registry::{
    client::{ClientSettings, Progress, RegistryClient, Transfer, no_progress},
    package,
};
use neap_sdk::limits::UPLOAD_CHUNK_BYTES;
use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// What a linker would make of nothing, followed by `padding` bytes: enough to be packaged.
pub fn executable(dir: &Path, padding: usize) -> PathBuf {
    let mut bytes = vec![0; 120];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    bytes[16] = 2; // ET_EXEC
    bytes[18] = 62; // EM_X86_64
    bytes[32] = 64; // program headers follow the header
    bytes[56] = 1; // of which there is one
    bytes[64] = 1; // PT_LOAD
    let path = dir.join("server");
    let mut file = std::fs::File::create(&path).expect("a file");
    file.write_all(&bytes).expect("written");
    let block: Vec<u8> = (0..1 << 20).map(|index: u32| (index % 253) as u8).collect();
    for _ in 0..padding >> 20 {
        file.write_all(&block).expect("written");
    }
    path
}

/// Forwards connections to `target`; the first one that carries `cut_after` bytes is cut there.
async fn flaky(target: String, cut_after: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let host = listener.local_addr().expect("an address").to_string();
    let cuts = Arc::new(AtomicUsize::new(0));
    let counted = cuts.clone();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.expect("a connection");
            let server = TcpStream::connect(&target).await.expect("the registry");
            let cuts = counted.clone();
            tokio::spawn(async move {
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let back =
                    tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
                let mut buffer = vec![0; 64 << 10];
                let mut forwarded = 0;
                while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
                    forwarded += count;
                    if forwarded >= cut_after && cuts.load(Ordering::SeqCst) == 0 {
                        cuts.fetch_add(1, Ordering::SeqCst);
                        break;
                    }
                    if to_server.write_all(&buffer[..count]).await.is_err() {
                        break;
                    }
                }
                back.abort();
            });
        }
    });
    (host, cuts)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_blob_survives_a_broken_connection() {
    let server = Server::start().await;
    let chunk = usize::try_from(UPLOAD_CHUNK_BYTES).expect("fits");
    let (host, cuts) = flaky(server.host.clone(), chunk + (8 << 20)).await;
    let client = RegistryClient::new(&host, ClientSettings::default()).expect("a client");
    let dir = tempfile::tempdir().expect("a folder");
    let path = executable(dir.path(), 2 * chunk + (8 << 20));
    let artifact = package::static_image(&path).expect("packaged");

    let seen: Arc<Mutex<Vec<Transfer>>> = Arc::default();
    let progress: Progress = {
        let seen = seen.clone();
        Arc::new(move |transfer| seen.lock().expect("no panic").push(transfer))
    };
    let pushed = client.push(&repository("big"), Some(&tag("v1")), &artifact, progress).await;
    assert_eq!(pushed.expect("pushed in spite of it"), artifact.digest);
    assert_eq!(cuts.load(Ordering::SeqCst), 1, "the connection was cut once");
    let seen = seen.lock().expect("no panic").clone();
    let layer = seen.iter().max_by_key(|transfer| transfer.total_bytes).expect("transfers").digest;
    let of_layer: Vec<u64> = seen.iter().filter(|t| t.digest == layer).map(|t| t.done_bytes).collect();
    assert!(of_layer.len() > 10, "progress is told while it goes on: {} times", of_layer.len());
    assert_eq!(
        (of_layer[0], *of_layer.last().expect("some")),
        (0, seen.iter().map(|t| t.total_bytes).max().expect("some"))
    );

    let pulled = server.client().pull(&repository("big"), &crate::harness::by_tag("v1"), no_progress()).await;
    let pulled = pulled.expect("pulled");
    assert_eq!((pulled.digest, pulled.size_bytes()), (artifact.digest, artifact.size_bytes()));
}

#[tokio::test]
async fn what_is_there_is_not_sent_again() {
    let server = Server::start().await;
    let artifact = package::wasm(crate::harness::component(1)).expect("packaged");
    crate::harness::push(&server, "a", "v1", &artifact).await;
    let before =
        std::fs::metadata(server.registry.blob_path(&artifact.blobs[0].digest)).expect("there").modified();
    crate::harness::push(&server, "a", "v2", &artifact).await;
    let after =
        std::fs::metadata(server.registry.blob_path(&artifact.blobs[0].digest)).expect("there").modified();
    assert_eq!(before.expect("a time"), after.expect("a time"), "the blob was not written again");
    for blob in &artifact.blobs {
        let mounted =
            server.client().push_blob(&repository("b"), blob, Some(&repository("a")), no_progress()).await;
        mounted.expect("mounted");
    }
    assert_eq!(std::fs::read_dir(server.path("uploads")).expect("uploads").count(), 0);
}
