//! The registry as it answers the scheduler.

use super::{Admission, AdmissionError, Admissions, AdmittedRelease};
use crate::error::with_causes;
use futures_util::{future::BoxFuture, stream, stream::BoxStream};
use neap_registry::{AdmitError, Registry};
use neap_sdk::{
    Digest, Problem,
    admission::Verdict,
    artifact::{Repository, TagOrDigest},
};

impl From<AdmitError> for AdmissionError {
    fn from(error: AdmitError) -> Self {
        Self::new(Problem::new(error.code(), with_causes(&error)))
    }
}

impl Admissions for Registry {
    fn admit<'a>(
        &'a self,
        repository: &'a Repository,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<Admission, AdmissionError>> {
        Box::pin(async move {
            let admitted = Registry::admit(self, repository, &TagOrDigest::Digest(*digest)).await?;
            let release = admitted
                .release
                .map(|release| AdmittedRelease { digest: release.digest, kind: release.kind });
            Ok(Admission { verdict: admitted.verdict, release })
        })
    }

    fn verify<'a>(
        &'a self,
        repository: &'a Repository,
        target: &'a TagOrDigest,
    ) -> BoxFuture<'a, Result<Verdict, AdmissionError>> {
        Box::pin(async move { Ok(Registry::verify(self, repository, target).await?) })
    }

    fn changes(&self) -> BoxStream<'static, ()> {
        Box::pin(stream::unfold(self.releases(), |mut releases| async move {
            releases.changed().await.ok()?;
            Some(((), releases))
        }))
    }
}
