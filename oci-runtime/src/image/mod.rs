//! What an image runs: the config, with names resolved to numbers.
//!
//! Pure but for the account files that a caller reads for it. It must not know where layers lie or how they unpack.
//! Source: OCI image-spec 1.1, `config.md`.

mod user;

use crate::unpack::UnpackError;
use neap_sdk::{Digest, limits};
use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

pub use user::User;

/// The files of an image, as a registry keeps them.
#[derive(Debug, Clone)]
pub struct ImageFiles {
    /// The digest of the manifest; names the image.
    pub digest: Digest,
    /// The file of its config.
    pub config: PathBuf,
    /// Its layers, the lowest first.
    pub layers: Vec<LayerFile>,
}

/// One layer of an image.
#[derive(Debug, Clone)]
pub struct LayerFile {
    /// The digest of the file.
    pub digest: Digest,
    /// The media type that the manifest gives it.
    pub media_type: String,
    /// The file, compressed as the media type says.
    pub path: PathBuf,
}

/// What an unpacked image runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Program and arguments; never empty.
    pub args: Vec<String>,
    /// `NAME=value`, as the image sets them.
    pub env: Vec<String>,
    /// An absolute path.
    pub working_dir: String,
    /// Who runs it.
    pub user: User,
    /// The signal that asks it to end.
    pub stop_signal: i32,
    /// The first TCP port that the image exposes.
    pub port: Option<u16>,
}

const PORT_DEFAULT: u16 = 8080;
const PATH_DEFAULT: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The architecture of this machine in the words of images (GOARCH).
fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Refuses an image for another machine.
pub fn check_platform(config: &ImageConfiguration) -> Result<(), UnpackError> {
    let image = format!("{}/{}", config.os(), config.architecture());
    let host = format!("linux/{}", host_architecture());
    if image == host { Ok(()) } else { Err(UnpackError::Platform { image, host }) }
}

/// Reads from the config what runs; `accounts` reads `/etc/passwd` and `/etc/group` of the image.
pub fn resolve(
    config: &ImageConfiguration,
    accounts: impl Fn(&str) -> Result<Vec<u8>, String>,
) -> Result<Image, UnpackError> {
    let broken = UnpackError::NotRunnable;
    let empty = oci_spec::image::Config::default();
    let config = config.config().as_ref().unwrap_or(&empty);
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let mut args = list(config.entrypoint());
    args.extend(list(config.cmd()));
    if args.first().is_none_or(String::is_empty) {
        return Err(broken("it names no program; set ENTRYPOINT or CMD".into()));
    }
    let env = list(config.env());
    if args.iter().chain(&env).any(|text| text.contains('\0')) {
        return Err(broken("a NUL byte stands in its arguments or environment".into()));
    }
    if env.iter().map(String::len).sum::<usize>() > limits::ENV_BYTES_MAX {
        return Err(broken(format!("its environment is larger than {} bytes", limits::ENV_BYTES_MAX)));
    }
    let working_dir = match config.working_dir().as_deref() {
        None | Some("") => "/".to_owned(),
        Some(path) if path.starts_with('/') => path.to_owned(),
        Some(path) => format!("/{path}"),
    };
    let user = user::resolve(
        config.user().as_deref().unwrap_or_default(),
        &accounts("/etc/passwd").map_err(broken)?,
        &accounts("/etc/group").map_err(broken)?,
    )
    .map_err(broken)?;
    let stop_signal = match config.stop_signal().as_deref() {
        None | Some("") => libc::SIGTERM,
        Some(text) => signal(text).ok_or_else(|| broken(format!("its stop signal {text:?} is unknown")))?,
    };
    let port = list(config.exposed_ports()).iter().filter_map(|port| tcp_port(port)).min();
    Ok(Image { args, env, working_dir, user, stop_signal, port })
}

/// `8080`, `8080/tcp`; others are no port of ours.
fn tcp_port(text: &str) -> Option<u16> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    port.parse().ok().filter(|port| *port != 0 && protocol == "tcp")
}

/// `SIGTERM`, `TERM` or `15`.
fn signal(text: &str) -> Option<i32> {
    const NAMES: [(&str, i32); 8] = [
        ("HUP", libc::SIGHUP),
        ("INT", libc::SIGINT),
        ("QUIT", libc::SIGQUIT),
        ("KILL", libc::SIGKILL),
        ("USR1", libc::SIGUSR1),
        ("USR2", libc::SIGUSR2),
        ("TERM", libc::SIGTERM),
        ("WINCH", libc::SIGWINCH),
    ];
    if let Ok(number) = text.parse() {
        return (1..=libc::SIGRTMAX()).contains(&number).then_some(number);
    }
    if let Some(offset) = text.trim_start_matches("SIG").strip_prefix("RTMIN+") {
        let number = libc::SIGRTMIN() + offset.parse::<u8>().map(i32::from).ok()?;
        return (number <= libc::SIGRTMAX()).then_some(number);
    }
    let name = text.trim_start_matches("SIG");
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

impl Image {
    /// The environment of a container, `extra` before the image's own, and the port it is to listen on:
    /// `PORT` of `extra`, of the image, the exposed port, 8080.
    pub fn environment(&self, extra: &[(String, String)]) -> (Vec<String>, u16) {
        let name = |entry: &str| entry.split_once('=').map_or(entry, |(name, _)| name).to_owned();
        let mut env: Vec<String> = self
            .env
            .iter()
            .filter(|entry| extra.iter().all(|(key, _)| *key != name(entry)))
            .cloned()
            .chain(extra.iter().map(|(key, value)| format!("{key}={value}")))
            .collect();
        if !env.iter().any(|entry| entry.starts_with("PATH=")) {
            env.push(PATH_DEFAULT.into());
        }
        let asked = env.iter().rev().find_map(|entry| entry.strip_prefix("PORT=")?.parse().ok());
        let port = asked.filter(|port| *port != 0).or(self.port).unwrap_or(PORT_DEFAULT);
        env.retain(|entry| name(entry) != "PORT");
        env.push(format!("PORT={port}"));
        (env, port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(json: &str) -> Result<Image, UnpackError> {
        let json = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}},"config":{json}}}"#
        );
        let config = serde_json::from_str(&json).unwrap();
        resolve(&config, |_| Ok(Vec::new()))
    }

    #[test]
    fn entrypoint_then_cmd_with_defaults() {
        let image =
            image(r#"{"Entrypoint":["/app"],"Cmd":["-v"],"ExposedPorts":{"9090/tcp":{},"53/udp":{}}}"#);
        let image = image.unwrap();
        assert_eq!(image.args, ["/app", "-v"]);
        assert_eq!((image.working_dir.as_str(), image.stop_signal), ("/", libc::SIGTERM));
        let (env, port) = image.environment(&[]);
        assert_eq!(port, 9090);
        assert!(env.contains(&"PORT=9090".to_owned()) && env.iter().any(|entry| entry.starts_with("PATH=")));
    }

    #[test]
    fn what_the_function_sets_wins_over_the_image() {
        let image = image(r#"{"Cmd":["a"],"Env":["A=image","PORT=1000","PATH=/x"],"StopSignal":"SIGINT"}"#);
        let image = image.unwrap();
        assert_eq!(image.stop_signal, libc::SIGINT);
        assert_eq!(image.environment(&[]).1, 1000);
        let (env, port) = image.environment(&[("A".into(), "mine".into()), ("PORT".into(), "2000".into())]);
        assert_eq!((env, port), (vec!["PATH=/x".into(), "A=mine".into(), "PORT=2000".into()], 2000));
    }

    #[test]
    fn refuses_what_cannot_run() {
        for (json, word) in [
            ("{}", "ENTRYPOINT"),
            (r#"{"Cmd":[""]}"#, "ENTRYPOINT"),
            (r#"{"Cmd":["a\u0000b"]}"#, "NUL"),
            (r#"{"Cmd":["a"],"StopSignal":"SIGNOT"}"#, "SIGNOT"),
            (r#"{"Cmd":["a"],"User":"nobody"}"#, "nobody"),
        ] {
            let text = image(json).unwrap_err().to_string();
            assert!(text.contains(word), "{text}");
        }
    }
}
