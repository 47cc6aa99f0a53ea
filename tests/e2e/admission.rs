//! Admission from outside: what is refused, with which code, and that nothing refused ever runs.

use crate::harness::{Server, behave, hello};
use neap_sdk::{ErrorCode, admission::Verdict};

#[test]
fn unsigned_is_stored_but_refused() {
    let server = Server::start();
    let wasm = hello().to_str().expect("path");
    let done = server.run(&["push", wasm, "--name", "unsigned", "--no-sign"]);
    done.assert_failed(6, &["sign"]);
    server.get("unsigned", "/").assert_problem(ErrorCode::NoRoute);
    server.run(&["get", "unsigned"]).assert_failed(4, &["unsigned"]);

    let done = server.run(&["verify", "default/unsigned", "-o", "json"]);
    assert_eq!(done.code, 6, "{done:?}");
    let verdict: Verdict = serde_json::from_str(&done.stdout).expect("a verdict");
    assert!(
        !verdict.admitted && verdict.reasons.iter().any(|reason| reason.code == ErrorCode::Unsigned),
        "{verdict:?}"
    );

    // The same bytes, signed afterwards, are admitted.
    server.push(hello(), "unsigned", &[]);
    assert_eq!(server.get("unsigned", "/").status, 200);
    server.ok(&["verify", "default/unsigned"]);
}

#[test]
fn only_trusted_keys_count() {
    let server = Server::start();
    server.ok(&["key", "generate", "stranger.key"]);
    let wasm = hello().to_str().expect("path");
    let push = ["push", wasm, "--name", "app", "--key", "stranger.key"];
    server.run(&push).assert_failed(6, &["trust"]);
    server.ok(&["key", "trust", "stranger.key.pub", "--name", "stranger"]);
    server.ok(&push);
    assert!(server.ok(&["get", "app"]).contains("stranger"), "the signer is shown");

    let keys: Vec<neap_sdk::api::KeyView> = server.json(&["key", "list"]);
    let key = keys.iter().find(|key| key.name == "stranger").expect("the trusted key");
    server.ok(&["key", "revoke", &key.key_id]);
    let push = ["push", behave().to_str().expect("path"), "--name", "later", "--key", "stranger.key"];
    server.run(&push).assert_failed(6, &["trust"]);
}

#[test]
fn keys_are_never_overwritten_and_private_ones_never_trusted() {
    let server = Server::start();
    server.ok(&["key", "generate", "mine.key"]);
    let before = std::fs::read(server.folder.path().join("mine.key")).expect("key");
    assert_eq!(server.run(&["key", "generate", "mine.key"]).code, 1);
    assert_eq!(std::fs::read(server.folder.path().join("mine.key")).expect("key"), before);
    server.run(&["key", "trust", "mine.key"]).assert_failed(2, &["private"]);
}

#[test]
fn an_sbom_of_ones_own_is_attested_and_a_bad_one_refused() {
    let server = Server::start();
    let folder = server.folder.path();
    let sbom = r#"{"bomFormat":"CycloneDX","specVersion":"1.5","version":1,"components":[
        {"type":"library","name":"left-pad","version":"1.3.0","purl":"pkg:npm/left-pad@1.3.0"}]}"#;
    std::fs::write(folder.join("sbom.json"), sbom).expect("sbom");
    server.push(hello(), "listed", &["--sbom", "sbom.json"]);
    assert!(server.ok(&["get", "listed"]).contains("CycloneDX 1.5, 1 packages"));

    std::fs::write(folder.join("bad.json"), "{\"some\":\"json\"}").expect("sbom");
    let wasm = hello().to_str().expect("path");
    let done = server.run(&["push", wasm, "--name", "bad", "--sbom", "bad.json"]);
    assert_ne!(done.code, 0, "{done:?}");
    assert!(done.stderr.contains("SBOM"), "{}", done.stderr);
}

#[test]
fn what_is_no_artifact_is_named() {
    let server = Server::start();
    let folder = server.folder.path();
    let whole = std::fs::read(hello()).expect("wasm");
    std::fs::write(folder.join("text.wasm"), "this is text").expect("file");
    std::fs::write(folder.join("short.wasm"), &whole[..whole.len() / 2]).expect("file");
    std::fs::write(folder.join("empty.wasm"), "").expect("file");
    for file in ["text.wasm", "short.wasm", "empty.wasm", "missing.wasm"] {
        let done = server.run(&["push", file, "--name", "bad"]);
        assert!(done.code == 6 || done.code == 2 || done.code == 1, "{file}: {done:?}");
        assert!(done.stderr.contains(file) || done.stderr.contains("Wasm"), "{file}: {}", done.stderr);
        assert!(!done.stderr.contains("panicked"), "{file}: {}", done.stderr);
    }
    server.run(&["get", "bad"]).assert_failed(4, &["bad"]);
}
