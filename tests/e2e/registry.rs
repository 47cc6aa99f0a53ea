//! The registry as other clients use it: skopeo, and the raw protocol.

use crate::{
    harness::{Done, Server, hello_container, skip_without_containers},
    http::{self, Answer, request},
};
use neap_sdk::{Digest, ErrorCode};
use std::process::Command;

fn plain(server: &Server, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut request = request(method, path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    http::send(server.address, &server.plain_host(), request, body.to_vec()).expect("an answer")
}

#[test]
fn blobs_go_in_pieces_or_whole_and_are_checked() {
    let server = Server::start();
    assert_eq!(plain(&server, "GET", "/v2/", &[], b"").status, 200);
    let digest = Digest::of(b"hello blob");
    let started = plain(&server, "POST", "/v2/team/app/blobs/uploads/", &[], b"");
    assert_eq!(started.status, 202);
    let location = started.header("location").to_owned();
    let path =
        location.strip_prefix(&format!("http://{}", server.plain_host())).unwrap_or(&location).to_owned();
    let patched = plain(&server, "PATCH", &path, &[("content-type", "application/octet-stream")], b"hello ");
    assert_eq!((patched.status.as_u16(), patched.header("range")), (202, "0-5"));
    let separator = if path.contains('?') { '&' } else { '?' };
    let finished = plain(&server, "PUT", &format!("{path}{separator}digest={digest}"), &[], b"blob");
    assert_eq!(finished.status, 201, "{}", finished.text());
    assert_eq!(plain(&server, "GET", &format!("/v2/team/app/blobs/{digest}"), &[], b"").text(), "hello blob");
    let part = plain(&server, "GET", &format!("/v2/team/app/blobs/{digest}"), &[("range", "bytes=6-9")], b"");
    assert_eq!((part.status.as_u16(), part.text().as_str()), (206, "blob"));
    assert_eq!(plain(&server, "GET", &format!("/v2/team/other/blobs/{digest}"), &[], b"").status, 404);
    let mounted = format!("/v2/team/other/blobs/uploads/?mount={digest}&from=team/app");
    assert_eq!(plain(&server, "POST", &mounted, &[], b"").status, 201);

    let wrong = format!("/v2/team/app/blobs/uploads/?digest={digest}");
    let refused =
        plain(&server, "POST", &wrong, &[("content-type", "application/octet-stream")], b"other bytes");
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert!(refused.text().contains("DIGEST_INVALID"), "{}", refused.text());
    let manifest = plain(
        &server,
        "PUT",
        "/v2/team/app/manifests/latest",
        &[("content-type", "application/vnd.oci.image.manifest.v1+json")],
        b"{not json",
    );
    assert_eq!(manifest.status, 400, "{}", manifest.text());
    assert!(
        plain(&server, "GET", "/v2/team/app/manifests/nothing", &[], b"").text().contains("MANIFEST_UNKNOWN")
    );
}

#[test]
fn skopeo_pushes_and_pulls_and_its_unsigned_image_is_not_run() {
    let server = Server::start();
    if skip_without_containers(&server) {
        return;
    }
    server.push(hello_container(), "web", &[]);
    let folder = server.folder.path();
    let host = server.plain_host();
    let skopeo = |args: &[&str]| Command::new("skopeo").args(args).current_dir(folder).output();
    let pulled = skopeo(&[
        "copy",
        "--src-tls-verify=false",
        &format!("docker://{host}/default/web:latest"),
        "oci:copy:v1",
    ]);
    let pulled = match pulled {
        Ok(output) => Done::new(output),
        Err(error) => return eprintln!("SKIPPED: skopeo cannot be run: {error}"),
    };
    assert_eq!(pulled.code, 0, "{pulled:?}");
    let target = format!("docker://{host}/team/again:v1");
    let pushed =
        Done::new(skopeo(&["copy", "--dest-tls-verify=false", "oci:copy:v1", &target]).expect("skopeo"));
    assert_eq!(pushed.code, 0, "{pushed:?}");
    let inspected = skopeo(&["inspect", "--tls-verify=false", &target]).expect("skopeo");
    assert!(inspected.status.success(), "{inspected:?}");
    let done = server.run(&["verify", "team/again:v1"]);
    assert_eq!(done.code, 6, "stored, and not admitted: {done:?}");
    assert!(done.stdout.contains(ErrorCode::Unsigned.name()), "{done:?}");
    // What another client left as a layout on disk can be pushed, signed and run.
    server.ok(&["push", "copy", "--name", "from-layout"]);
    assert_eq!(server.get("from-layout", "/").status, 200);
}

#[test]
fn a_tampered_blob_is_never_run() {
    let server = Server::start();
    server.push(crate::harness::hello(), "app", &[]);
    let wasm = Digest::of(&std::fs::read(crate::harness::hello()).expect("wasm"));
    let blob = walk(&server.data_dir().join("registry")).into_iter().find(|path| {
        // Elsewhere the same name is only a link of a repository.
        path.ends_with(wasm.hex()) && path.metadata().is_ok_and(|metadata| metadata.len() > 0)
    });
    let blob = blob.expect("the component's blob on disk");
    let mut bytes = std::fs::read(&blob).expect("blob");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&blob, bytes).expect("write");
    let done = server.run(&["verify", "default/app"]);
    assert_ne!(done.code, 0, "{done:?}");
    // The way out that the error names.
    server.push(crate::harness::hello(), "app", &[]);
    server.ok(&["verify", "app"]);
    assert_eq!(server.get("app", "/").status, 200);
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).expect("folder").map(|entry| entry.expect("entry").path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
