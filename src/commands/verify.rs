//! `neap verify`: the verdict on an artifact in the server's registry, without deploying it.

use crate::{
    cli::VerifyArgs,
    config::Server,
    exit::Outcome,
    output::{self, Format},
};
use neap_sdk::{admission::Verdict, api::VerifyRequest, error::exit};
use std::process::ExitCode;

/// Ends with 0 when admitted, with 6 when refused.
pub async fn run(args: &VerifyArgs, server: &Server, format: Format) -> Outcome {
    let request = VerifyRequest {
        repository: args.reference.repository.clone(),
        target: args.reference.target.to_string(),
    };
    let verdict = server.client()?.verify(&request).await?;
    output::print(format, &verdict, describe)?;
    Ok(ExitCode::from(if verdict.admitted { exit::OK } else { exit::REFUSED }))
}

fn describe(verdict: &Verdict) -> String {
    let mut lines =
        vec![format!("{} {}", if verdict.admitted { "admitted" } else { "refused" }, verdict.digest)];
    lines.extend(
        verdict
            .evidence
            .signers
            .iter()
            .map(|signer| format!("  signed by {} ({})", signer.name, signer.key_id)),
    );
    if let Some(sbom) = &verdict.evidence.sbom {
        lines.push(format!(
            "  sbom {} with {} packages, attested by {}",
            sbom.format, sbom.packages, sbom.signer.name
        ));
    }
    lines.extend(verdict.reasons.iter().map(|reason| format!("  {}: {}", reason.code, reason.text)));
    lines.join("\n")
}
