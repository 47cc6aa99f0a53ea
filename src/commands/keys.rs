//! `neap key`: makes signing keys, and tells the server which public keys to trust.

use crate::{
    cli::KeyCommand,
    config::Server,
    exit::{Failure, Outcome},
    output::{self, Format},
};
use neap_sdk::{
    api::{KeyView, TrustKeyRequest},
    error::exit,
};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Runs the subcommand.
pub async fn run(command: KeyCommand, server: &Server, format: Format) -> Outcome {
    match command {
        KeyCommand::Generate { file } => generate(&file)?,
        KeyCommand::Trust { file, name } => {
            let pem = std::fs::read_to_string(&file).map_err(|error| {
                Failure::new(exit::USAGE, format!("{} cannot be read", file.display())).because(&error)
            })?;
            if pem.contains("PRIVATE KEY") {
                let failure = Failure::usage(format!("{} holds a private key", file.display()));
                return Err(
                    failure.hint("trust the public key; `neap key generate` writes it beside, as FILE.pub")
                );
            }
            let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            let key =
                server.client()?.trust_key(&TrustKeyRequest { name: name.unwrap_or(stem), pem }).await?;
            output::print(format, &key, |key| format!("trusted {} {}", key.key_id, key.name))?;
        }
        KeyCommand::List => {
            let keys = server.client()?.keys().await?;
            output::print(format, &keys, |keys| {
                let row =
                    |key: &KeyView| [key.key_id.clone(), key.name.clone(), output::age(key.trusted_at_ms)];
                output::table(["KEY ID", "NAME", "TRUSTED FOR"], keys.iter().map(row))
            })?;
        }
        KeyCommand::Revoke { key_id } => {
            server.client()?.revoke_key(&key_id).await?;
            output::say(format!(
                "{key_id} is trusted no longer; what it signed before stays admitted until it is pushed again"
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn generate(file: &Path) -> Outcome<()> {
    let public_file = PathBuf::from(format!("{}.pub", file.display()));
    let key = neap_registry::sign::SigningKey::generate(file)
        .map_err(|error| Failure::failed("no key was made", &error))?;
    output::say(format!(
        "private key {} (keep it secret), public key {}",
        file.display(),
        public_file.display()
    ));
    output::line(key.public_key().id())
}
