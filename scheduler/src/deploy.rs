//! What tenants do: deploy, roll back, shift traffic, delete. Traffic moves only to a revision that is up; what was
//! answered is durable; what failed left the old revision serving.

use crate::{
    admissions::AdmissionError,
    cluster::{Added, Cluster, FunctionKey, NewRevision},
    error::AcquireError,
    lease::Lease,
    metrics::Outcome,
    scheduler::{ChangeError, Scheduler},
    target::{Target, unix_ms},
};
use futures_util::future::try_join_all;
use neap_sdk::{
    ErrorCode, Problem, TenantName,
    admission::Verdict,
    api::{DeployRequest, FunctionView, TrafficShare},
    artifact::Repository,
    function::InvalidSpec,
    limits,
};
use std::{sync::Arc, time::Duration};

/// All of a function's traffic.
const WHOLE: u32 = 100;

/// Why a deployment, or a shift of traffic, did not happen.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The spec is out of its limits.
    #[error("the function's spec is not valid: {0}")]
    Spec(InvalidSpec),
    /// The repository is another tenant's.
    #[error("{repository} does not belong to tenant {tenant}")]
    Foreign {
        /// Which.
        repository: Repository,
        /// Who asked.
        tenant: TenantName,
    },
    /// Nothing could be decided about the artifact.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    /// The artifact was not admitted.
    #[error("{}", refusal(.0))]
    Refused(Box<Verdict>),
    /// The desired state could not be changed.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The revision did not start; traffic is where it was.
    #[error("{error}")]
    Start {
        /// Why.
        error: AcquireError,
        /// Whether another revision goes on serving.
        serving: bool,
    },
}

fn refusal(verdict: &Verdict) -> String {
    let reasons: Vec<String> =
        verdict.reasons.iter().map(|reason| format!("{}: {}", reason.code, reason.text)).collect();
    format!("{} was not admitted: {}", verdict.digest, reasons.join("; "))
}

impl DeployError {
    /// What a client is told.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Spec(_) => Problem::new(ErrorCode::Invalid, self.to_string()),
            Self::Foreign { tenant, .. } => Problem::new(ErrorCode::Forbidden, self.to_string())
                .with_hint(format!("push to a repository of the tenant, such as {tenant}/app")),
            Self::Admission(error) => error.problem(),
            Self::Refused(verdict) => {
                let code = verdict.reasons.first().map_or(ErrorCode::Policy, |reason| reason.code);
                Problem::new(code, self.to_string())
            }
            Self::Change(error) => error.problem(),
            Self::Start { error: error @ AcquireError::StartFailed { .. }, serving } => {
                let hint = if *serving {
                    "the revision that served before goes on serving; correct the function and push again"
                } else {
                    "no revision of the function serves; correct it and push again"
                };
                error.problem().with_hint(hint)
            }
            Self::Start { error, .. } => error.problem(),
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Refused(_) => Outcome::Refused,
            Self::Start { .. } => Outcome::StartFailed,
            Self::Spec(_) | Self::Foreign { .. } | Self::Admission(_) | Self::Change(_) => Outcome::Failed,
        }
    }
}

impl Scheduler {
    /// Makes a function run an artifact of the registry: admits it, adds a revision without traffic, waits until an
    /// instance of it is up, and only then shifts all traffic to it. The same digest and spec make no second revision.
    ///
    /// # Errors
    /// Refused, not started, or not kept; traffic is then where it was.
    ///
    /// # Cancellation
    /// Dropping the future leaves the function with or without the new revision's traffic, never in between.
    pub async fn deploy(
        &self,
        key: &FunctionKey,
        request: DeployRequest,
    ) -> Result<FunctionView, DeployError> {
        let outcome = self.try_deploy(key, request).await;
        self.inner.shared.metrics.deployed(match &outcome {
            Ok((_, true)) => Outcome::Deployed,
            Ok((_, false)) => Outcome::Unchanged,
            Err(error) => error.outcome(),
        });
        outcome.map(|(view, _)| view)
    }

    async fn try_deploy(
        &self,
        key: &FunctionKey,
        request: DeployRequest,
    ) -> Result<(FunctionView, bool), DeployError> {
        request.spec.check().map_err(DeployError::Spec)?;
        if request.repository.tenant().as_ref() != Some(&key.tenant) {
            let DeployRequest { repository, .. } = request;
            return Err(DeployError::Foreign { repository, tenant: key.tenant.clone() });
        }
        let admission = self.inner.admissions.admit(&request.repository, &request.digest).await?;
        let Some(release) = admission.release.filter(|_| admission.verdict.admitted) else {
            return Err(DeployError::Refused(Box::new(admission.verdict)));
        };
        let new = NewRevision {
            repository: request.repository,
            digest: release.digest,
            kind: release.kind,
            spec: request.spec,
            verdict: admission.verdict,
            created_at_ms: unix_ms(),
        };
        // Two pushes of one function go one after the other, or the slower, older one would win.
        let order = self.inner.live().deploy_order(key);
        let _turn = order.lock().await;
        let number = self.add_revision(key, new).await?;
        let shares = [TrafficShare { revision: number, weight: WHOLE }];
        let shifted = self.shift(key, &shares, None).await?;
        Ok((self.function(key).map_err(ChangeError::from)?, shifted))
    }

    async fn add_revision(&self, key: &FunctionKey, new: NewRevision) -> Result<u32, ChangeError> {
        let key = key.clone();
        self.change(move |cluster| match cluster.add_revision(&key, new.clone())? {
            Added::Known(revision) => Ok((revision.number, None)),
            Added::New(number, transaction) => Ok((number, Some(transaction))),
        })
        .await
    }

    /// Gives a function's traffic to `shares`. Each revision that gets some is up before.
    ///
    /// # Errors
    /// No such revision, or one that does not start; traffic is then where it was.
    pub async fn set_traffic(
        &self,
        key: &FunctionKey,
        shares: &[TrafficShare],
    ) -> Result<FunctionView, DeployError> {
        let order = self.inner.live().deploy_order(key);
        let _turn = order.lock().await;
        self.shift(key, shares, None).await?;
        Ok(self.function(key).map_err(ChangeError::from)?)
    }

    /// Gives all traffic to an older revision: the named one, or the one that had most traffic before. Nothing is built
    /// or judged again, and a revision that is slow to start is not waited for: requests wait for it instead.
    ///
    /// # Errors
    /// No such revision, or one that fails to start at once; traffic is then where it was.
    pub async fn rollback(
        &self,
        key: &FunctionKey,
        number: Option<u32>,
    ) -> Result<FunctionView, DeployError> {
        let order = self.inner.live().deploy_order(key);
        let _turn = order.lock().await;
        let target = self.inner.live().cluster().rollback_target(key, number);
        let revision = target.map_err(ChangeError::from)?;
        let shares = [TrafficShare { revision, weight: WHOLE }];
        let patience = Duration::from_millis(limits::ROLLBACK_WAIT_MS_MAX);
        self.shift(key, &shares, Some(patience)).await?;
        Ok(self.function(key).map_err(ChangeError::from)?)
    }

    /// Deletes a function: its routes are gone when this returns, its instances soon after; its logs and usage stay.
    ///
    /// # Errors
    /// No such function, or the store failed.
    pub async fn delete(&self, key: &FunctionKey) -> Result<(), ChangeError> {
        let order = self.inner.live().deploy_order(key);
        let _turn = order.lock().await;
        let key = key.clone();
        self.change(move |cluster| Ok(((), Some(cluster.delete(&key)?)))).await
    }

    /// Waits until every revision that gets traffic is up (at most for `patience`, where there is one), then shifts.
    /// Answers whether anything changed.
    async fn shift(
        &self,
        key: &FunctionKey,
        shares: &[TrafficShare],
        patience: Option<Duration>,
    ) -> Result<bool, DeployError> {
        let (before, targets) = {
            let live = self.inner.live();
            let function = live.cluster().function(key).map_err(ChangeError::from)?;
            // Told before anything is started for it.
            live.cluster().set_traffic(key, shares).map_err(ChangeError::from)?;
            let getting = shares.iter().filter(|share| share.weight > 0);
            let targets: Vec<Arc<Target>> = getting
                .filter_map(|share| live.target(&key.revision(share.revision)).map(Arc::clone))
                .collect();
            (function.traffic.clone(), targets)
        };
        // Held until traffic leads there, so that nobody stops what is up but not yet in use.
        let _leases = self.bring_up(&targets, patience, !before.is_empty()).await?;
        if before == shares {
            return Ok(false);
        }
        let (key, shares) = (key.clone(), shares.to_vec());
        let plan = move |cluster: &Cluster| Ok(((), Some(cluster.set_traffic(&key, &shares)?)));
        self.change(plan).await?;
        Ok(true)
    }

    async fn bring_up(
        &self,
        targets: &[Arc<Target>],
        patience: Option<Duration>,
        serving: bool,
    ) -> Result<Vec<Lease>, DeployError> {
        let all = try_join_all(targets.iter().map(|target| target.ensure_ready()));
        let up = match patience {
            None => all.await,
            // Starts go on after that; they belong to the targets.
            Some(patience) => tokio::time::timeout(patience, all).await.unwrap_or(Ok(Vec::new())),
        };
        up.map_err(|error| DeployError::Start { error, serving })
    }
}
