//! The seam to the registry: what the scheduler asks about artifacts. Owned here, by its consumer; the registry itself
//! implements it, and [`fake`] is a scripted one for tests.
//!
//! The scheduler never sees bytes, signatures or blobs: only verdicts.

#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod registry;

use futures_util::{future::BoxFuture, stream::BoxStream};
use neap_sdk::{
    Digest, Problem,
    admission::Verdict,
    artifact::{ArtifactKind, Repository, TagOrDigest},
};

/// Who decides which artifacts may run.
pub trait Admissions: Send + Sync + 'static {
    /// Judges an artifact and, where it is admitted, makes it ready to run. Refusals are answers, not errors.
    fn admit<'a>(
        &'a self,
        repository: &'a Repository,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<Admission, AdmissionError>>;

    /// The same judgement without any effect.
    fn verify<'a>(
        &'a self,
        repository: &'a Repository,
        target: &'a TagOrDigest,
    ) -> BoxFuture<'a, Result<Verdict, AdmissionError>>;

    /// Tells each time the set of admitted artifacts changes after this call: what failed to start may work now.
    fn changes(&self) -> BoxStream<'static, ()>;
}

/// What was decided about an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// The verdict with its evidence.
    pub verdict: Verdict,
    /// What may run, where it was admitted.
    pub release: Option<AdmittedRelease>,
}

/// An artifact that may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmittedRelease {
    /// The manifest that runs: of an index, its child for this machine.
    pub digest: Digest,
    /// Of which kind.
    pub kind: ArtifactKind,
}

/// Nothing was decided. Holds what the client is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AdmissionError(Box<Problem>);

impl AdmissionError {
    /// Nothing was decided, and the client is told so like this.
    pub fn new(problem: Problem) -> Self {
        Self(Box::new(problem))
    }

    /// What the client is told.
    pub fn problem(&self) -> Problem {
        (*self.0).clone()
    }
}
