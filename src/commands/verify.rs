//! `neap verify`: the verdict on an artifact in the server's registry, without deploying it.

use crate::{
    cli::VerifyArgs,
    config::Server,
    exit::{Failure, Outcome},
    output::{self, Format},
};
use neap_sdk::{admission::Verdict, api::VerifyRequest, artifact::Repository, error::exit};
use std::process::ExitCode;

/// Ends with 0 when admitted, with 6 when refused. A repository's first part names its tenant; a name alone is the
/// one that `neap push` gave to the acting tenant's function.
pub async fn run(args: &VerifyArgs, server: &Server, format: Format) -> Outcome {
    let named = &args.reference.repository;
    let repository = if named.as_str().contains('/') {
        named.clone()
    } else {
        format!("{}/{named}", server.tenant)
            .parse::<Repository>()
            .map_err(|error| Failure::usage(format!("{named} is no repository")).because(&error))?
    };
    let tenant = repository.tenant().unwrap_or_else(|| server.tenant.clone());
    let server = Server { tenant, ..server.clone() };
    let request = VerifyRequest { repository, target: args.reference.target.to_string() };
    let verdict = server.client()?.verify(&request).await?;
    output::print(format, &verdict, describe)?;
    Ok(ExitCode::from(if verdict.admitted { exit::OK } else { exit::REFUSED }))
}

fn describe(verdict: &Verdict) -> String {
    let mut lines =
        vec![format!("{} {}", if verdict.admitted { "admitted" } else { "refused" }, verdict.digest)];
    let signers = verdict.evidence.signers.iter();
    lines.extend(signers.map(|signer| format!("  signed by {} ({})", signer.name, signer.key_id)));
    if let Some(sbom) = &verdict.evidence.sbom {
        let text = format!(
            "  sbom {} with {} packages, attested by {}",
            sbom.format, sbom.packages, sbom.signer.name
        );
        lines.push(text);
    }
    lines.extend(verdict.reasons.iter().map(|reason| format!("  {}: {}", reason.code, reason.text)));
    lines.join("\n")
}
