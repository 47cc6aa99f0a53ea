//! Scripted admissions for tests: everything is admitted as one kind, but what a test refuses.

use super::{Admission, AdmissionError, Admissions, AdmittedRelease};
use futures_util::{future::BoxFuture, stream, stream::BoxStream};
use neap_sdk::{
    Digest, ErrorCode,
    admission::{Evidence, Reason, Verdict},
    artifact::{ArtifactKind, Repository, TagOrDigest},
};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// Admissions that a test decides.
#[derive(Debug)]
pub struct FakeAdmissions {
    kind: ArtifactKind,
    refused: Mutex<HashMap<Digest, Vec<Reason>>>,
    changes: watch::Sender<()>,
}

impl FakeAdmissions {
    /// Admits everything as `kind`.
    pub fn new(kind: ArtifactKind) -> Self {
        Self { kind, refused: Mutex::default(), changes: watch::Sender::new(()) }
    }

    /// From now on refuses `digest` for these reasons.
    pub fn refuse(&self, digest: Digest, reasons: &[(ErrorCode, &str)]) {
        let reason = |(code, text): &(ErrorCode, &str)| Reason { code: *code, text: (*text).to_owned() };
        self.refused().insert(digest, reasons.iter().map(reason).collect());
    }

    /// Tells that the set of releases changed.
    pub fn announce(&self) {
        self.changes.send_replace(());
    }

    fn refused(&self) -> MutexGuard<'_, HashMap<Digest, Vec<Reason>>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn verdict(&self, digest: &Digest) -> Verdict {
        let reasons = self.refused().get(digest).cloned().unwrap_or_default();
        Verdict {
            digest: *digest,
            admitted: reasons.is_empty(),
            reasons,
            evidence: Evidence::default(),
            policy: Digest::of(b"the policy of a test"),
            decided_at_ms: 1,
        }
    }
}

impl Admissions for FakeAdmissions {
    fn admit<'a>(
        &'a self,
        _repository: &'a Repository,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<Admission, AdmissionError>> {
        let verdict = self.verdict(digest);
        let release = verdict.admitted.then_some(AdmittedRelease { digest: *digest, kind: self.kind });
        Box::pin(async move { Ok(Admission { verdict, release }) })
    }

    fn verify<'a>(
        &'a self,
        _repository: &'a Repository,
        target: &'a TagOrDigest,
    ) -> BoxFuture<'a, Result<Verdict, AdmissionError>> {
        let digest = match target {
            TagOrDigest::Digest(digest) => *digest,
            TagOrDigest::Tag(tag) => Digest::of(tag.as_str().as_bytes()),
        };
        let verdict = self.verdict(&digest);
        Box::pin(async move { Ok(verdict) })
    }

    fn changes(&self) -> BoxStream<'static, ()> {
        Box::pin(stream::unfold(self.changes.subscribe(), |mut changes| async move {
            changes.changed().await.ok()?;
            Some(((), changes))
        }))
    }
}
