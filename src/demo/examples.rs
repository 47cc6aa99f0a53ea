//! The demo's two functions: built from `sdk/examples` inside a checkout, taken out of the binary elsewhere.

use crate::{
    exit::{Failure, Outcome},
    output,
};
use neap_sdk::build::{COMPONENT_TARGET, build_guest};
use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// `sdk/examples/hello` as it was built for this release.
const CARRIED_COMPONENT: &[u8] = include_bytes!("carried/hello.wasm");
/// `sdk/examples/hello-container`, likewise, for x86_64 Linux.
const CARRIED_CONTAINER: &[u8] = include_bytes!("carried/hello-container");
/// Linked statically, so that an image needs nothing else.
const CONTAINER_TARGET: &str = "x86_64-unknown-linux-musl";

/// Where the built examples lie.
pub struct Examples {
    /// A Wasm component.
    pub component: PathBuf,
    /// A static executable.
    pub container: PathBuf,
}

/// Builds both, or unpacks the carried ones into `folder`.
pub fn build(folder: &Path) -> Outcome<Examples> {
    let Some(sources) = checkout() else {
        output::say("   this is no checkout of neap: taking the examples that the binary carries");
        return Ok(Examples {
            component: unpack(&folder.join("hello.wasm"), CARRIED_COMPONENT)?,
            container: unpack(&folder.join("hello-container"), CARRIED_CONTAINER)?,
        });
    };
    let built = |name: &str, target: &str| {
        let target_dir = sources.join("target");
        build_guest(&sources.join(name), target, &target_dir)
            .map_err(|error| Failure::failed(format!("the example {name} cannot be built"), &error))
    };
    Ok(Examples {
        component: built("hello", COMPONENT_TARGET)?,
        container: built("hello-container", CONTAINER_TARGET)?,
    })
}

/// `sdk/examples` of the checkout that the current folder lies in.
fn checkout() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    here.ancestors()
        .map(|folder| folder.join("sdk/examples"))
        .find(|path| path.join("hello/Cargo.toml").is_file())
}

fn unpack(path: &Path, bytes: &[u8]) -> Outcome<PathBuf> {
    std::fs::write(path, bytes)
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)))
        .map_err(|error| Failure::failed(format!("{} cannot be written", path.display()), &error))?;
    Ok(path.to_owned())
}
