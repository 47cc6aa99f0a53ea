//! The builder of guests: what it gives, and what it says when it cannot.

use neap_sdk::build::{BuildError, COMPONENT_TARGET, build_guest};
use std::{fs, path::PathBuf};

/// A package of one file, below cargo's own folder so that the pinned toolchain builds it.
fn package(name: &str, main: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(dir.join("src")).expect("folder");
    let manifest =
        format!("[workspace]\n[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n");
    fs::write(dir.join("Cargo.toml"), manifest).expect("manifest");
    fs::write(
        dir.join("Cargo.lock"),
        format!("version = 4\n[[package]]\nname = \"{name}\"\nversion = \"0.1.0\"\n"),
    )
    .expect("lock file");
    fs::write(dir.join("src/main.rs"), main).expect("source");
    dir
}

#[test]
fn a_package_becomes_a_component() {
    let dir = package("builds", "fn main() {}");
    let wasm =
        build_guest(&dir, COMPONENT_TARGET, &dir.join("target")).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(fs::read(&wasm).expect("output")[..8], *b"\0asm\x0d\0\x01\0", "{}", wasm.display());
    let again = build_guest(&dir, COMPONENT_TARGET, &dir.join("target")).expect("nothing to do");
    assert_eq!(again, wasm);
}

#[test]
fn what_the_compiler_said_is_shown() {
    let dir = package("broken", "fn main() { let _: u8 = \"text\"; }");
    let error = build_guest(&dir, COMPONENT_TARGET, &dir.join("target")).expect_err("does not compile");
    assert!(matches!(error, BuildError::Cargo { .. }), "{error}");
    assert!(error.to_string().contains("mismatched types"), "{error}");
}

#[test]
fn a_target_that_nobody_has_is_named() {
    let dir = package("nowhere", "fn main() {}");
    let error = build_guest(&dir, "wasm32-nonsense", &dir.join("target")).expect_err("no such target");
    assert!(error.to_string().contains("wasm32-nonsense"), "{error}");
}
