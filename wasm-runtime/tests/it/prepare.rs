//! From a file to a program: what is refused and why, and a cache that trusts nobody.

use crate::harness::{Caller, digest, runtime, settings, wasm};
use neap_sdk::artifact::ArtifactKind;
use neap_wasm_runtime::{PrepareError, Settings, WasmRuntime};
use std::{fs, path::Path, time::Instant};

async fn refused(path: &Path) -> PrepareError {
    runtime().prepare(digest(path), path).await.expect_err("refused")
}

async fn refused_bytes(bytes: &[u8]) -> PrepareError {
    let file = tempfile::NamedTempFile::new().expect("file");
    fs::write(file.path(), bytes).expect("written");
    refused(file.path()).await
}

#[tokio::test]
async fn kinds_are_told_apart() {
    for (name, kind) in [
        ("behave", ArtifactKind::WasmComponent),
        ("p3", ArtifactKind::WasmComponent),
        ("cgi-plain", ArtifactKind::WasmModule),
    ] {
        let path = wasm(name);
        assert_eq!(runtime().prepare(digest(&path), &path).await.expect(name), kind);
    }
}

#[tokio::test]
async fn what_is_no_wasm_is_called_so() {
    assert!(matches!(refused_bytes(b"\x7fELF....").await, PrepareError::NotWasm));
    assert!(matches!(refused_bytes(b"").await, PrepareError::NotWasm));
    assert!(matches!(refused_bytes(b"(module)").await, PrepareError::NotWasm), "nor is its text");
    assert!(matches!(refused_bytes(b"\0asm\x01").await, PrepareError::Invalid(_)));
    let missing = runtime().prepare(neap_sdk::Digest::of(b"?"), Path::new("/nowhere")).await;
    assert!(matches!(missing, Err(PrepareError::Read { .. })));
}

#[tokio::test]
async fn a_truncated_file_is_refused_with_a_reason() {
    for name in ["behave", "cgi-echo"] {
        let whole = fs::read(wasm(name)).expect("guest");
        for length in [9, whole.len() / 2, whole.len() - 1] {
            let error = refused_bytes(&whole[..length]).await;
            assert!(matches!(error, PrepareError::Invalid(_)), "{name}, {length} bytes: {error}");
        }
    }
}

#[tokio::test]
async fn a_file_that_changed_on_disk_is_not_compiled() {
    let path = wasm("cgi-plain");
    let error = runtime().prepare(neap_sdk::Digest::of(b"another"), &path).await.expect_err("refused");
    assert!(matches!(error, PrepareError::Changed { .. }) && !error.blames_artifact(), "{error}");
}

#[tokio::test]
async fn what_the_host_lacks_is_named() {
    let error = refused(&wasm("unknown-import")).await;
    let PrepareError::MissingImports(names) = &error else { panic!("{error}") };
    assert_eq!(*names, ["wasi:keyvalue/store@0.2.0-draft", "acme:printer/paper@1.0.0"]);
    assert!(error.to_string().contains("which neap does not offer"), "{error}");

    let error = refused(&wasm("unknown-import-core")).await;
    let PrepareError::MissingImports(names) = &error else { panic!("{error}") };
    assert_eq!(*names, ["env::launch"]);
}

#[tokio::test]
async fn what_answers_no_requests_is_called_so() {
    let error = refused(&wasm("no-handler")).await;
    assert!(error.to_string().contains("wasi:http/incoming-handler"), "{error}");
    let error = refused_bytes(b"\0asm\x01\0\0\0").await;
    assert!(error.to_string().contains("_start"), "{error}");
}

#[tokio::test]
async fn code_is_compiled_once_and_damaged_code_is_built_again() {
    let dir = tempfile::tempdir().expect("folder");
    let path = wasm("hello");
    let key = digest(&path);
    let caller = Caller::default();

    let first = WasmRuntime::new(settings(dir.path().into())).expect("runtime");
    let start = Instant::now();
    let (one, two) = tokio::join!(first.prepare(key, &path), first.prepare(key, &path));
    assert!(one.is_ok() && two.is_ok());
    let compiled_in = start.elapsed();
    let code = code_file(dir.path());
    let built = fs::read(&code).expect("code");

    // A runtime whose compiler cannot work proves that the cache alone is enough.
    let broken = Settings { compiler: vec!["/bin/false".into()], ..settings(dir.path().into()) };
    let second = WasmRuntime::new(broken).expect("runtime");
    let start = Instant::now();
    let program = second.load(key, &path).await.expect("from the cache");
    assert!(start.elapsed() < compiled_in, "{:?}, compiled in {compiled_in:?}", start.elapsed());
    assert_eq!(caller.text(&program, "/").await, "hello, world\n");

    let mut damaged = built.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    for damaged in [&damaged[..], &built[..middle], b""] {
        fs::write(&code, damaged).expect("damaged");
        let error = second.load(key, &path).await.expect_err("not loaded, and not to be rebuilt either");
        assert!(matches!(error, PrepareError::Compiler { .. }), "{error}");
        let program = first.load(key, &path).await.expect("rebuilt");
        assert_eq!(caller.text(&program, "/").await, "hello, world\n");
        assert_eq!(fs::read(&code).expect("code").len(), built.len());
    }

    first.forget(key).await.expect("forgotten");
    assert!(!code.exists());
}

#[tokio::test]
async fn a_cache_key_that_is_lost_makes_all_code_foreign() {
    let dir = tempfile::tempdir().expect("folder");
    let path = wasm("cgi-plain");
    let first = WasmRuntime::new(settings(dir.path().into())).expect("runtime");
    first.prepare(digest(&path), &path).await.expect("prepared");
    drop(first);
    fs::write(dir.path().join("key"), b"short").expect("damaged");
    let broken = Settings { compiler: vec!["/bin/false".into()], ..settings(dir.path().into()) };
    let second = WasmRuntime::new(broken).expect("a new key is made");
    assert!(matches!(second.load(digest(&path), &path).await, Err(PrepareError::Compiler { .. })));
}

#[tokio::test]
async fn a_compile_child_that_cannot_run_is_named() {
    let dir = tempfile::tempdir().expect("folder");
    let path = wasm("cgi-plain");
    for (program, reason) in [("/nowhere/compiler", "No such file"), ("/bin/false", "exit status: 1")] {
        let settings = Settings { cache_dir: dir.path().into(), compiler: vec![program.into()] };
        let runtime = WasmRuntime::new(settings).expect("runtime");
        let error = runtime.prepare(digest(&path), &path).await.expect_err("no compiler");
        let text = error.to_string();
        assert!(text.contains(program) && text.contains(reason), "{text}");
    }
}

#[tokio::test]
async fn a_compile_child_that_is_killed_blames_its_limits() {
    let dir = tempfile::tempdir().expect("folder");
    let path = wasm("cgi-plain");
    for (signal, text) in [("KILL", "address space"), ("XCPU", "compiling took longer")] {
        let compiler = vec!["/bin/sh".into(), "-c".into(), format!("kill -{signal} $$").into()];
        let runtime = WasmRuntime::new(Settings { cache_dir: dir.path().into(), compiler }).expect("runtime");
        let error = runtime.prepare(digest(&path), &path).await.expect_err("killed");
        assert!(error.to_string().contains(text) && error.blames_artifact(), "{error}");
    }
}

fn code_file(dir: &Path) -> std::path::PathBuf {
    let mut files = fs::read_dir(dir).expect("folder").map(|entry| entry.expect("entry").path());
    files.find(|path| path.extension().is_some_and(|extension| extension == "code")).expect("native code")
}
