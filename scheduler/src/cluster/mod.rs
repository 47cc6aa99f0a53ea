//! The desired state: which functions there are, their revisions, where their traffic goes, which hosts and paths they
//! claim. Values, and transitions that say what must be written for them: no clock, no I/O, no instances.
//!
//! A transition is a [`Transaction`] whose comparisons make it fail where the state has moved on in between; what was
//! committed is applied with [`Cluster::apply`], from a commit, a watch or the first read alike.

mod codec;
#[cfg(test)]
mod tests;

pub use codec::CorruptError;

use crate::store::{Compare, Condition, Event, Range, Transaction, Write};
use neap_sdk::{
    Digest, ErrorCode, FunctionName, FunctionSpec, Problem, RevisionId, TenantName,
    admission::Verdict,
    api::TrafficShare,
    artifact::{ArtifactKind, Repository},
    function::RoutePattern,
    limits,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

/// Which function of whom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FunctionKey {
    /// Who owns it.
    pub tenant: TenantName,
    /// Its name.
    pub name: FunctionName,
}

impl fmt::Display for FunctionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.name)
    }
}

impl FunctionKey {
    /// The id of one of its revisions.
    pub fn revision(&self, number: u32) -> RevisionId {
        RevisionId { tenant: self.tenant.clone(), function: self.name.clone(), number }
    }
}

/// One immutable version of a function, with why it was admitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Its number.
    pub number: u32,
    /// Where its release lies.
    pub repository: Repository,
    /// The manifest that runs.
    pub digest: Digest,
    /// Of which kind.
    pub kind: ArtifactKind,
    /// How to run it.
    pub spec: Arc<FunctionSpec>,
    /// Why it was admitted.
    pub verdict: Verdict,
    /// When it was made, in milliseconds since 1970.
    pub created_at_ms: u64,
}

/// What a revision is made of.
#[derive(Debug, Clone)]
pub struct NewRevision {
    /// Where its release lies.
    pub repository: Repository,
    /// The manifest that runs.
    pub digest: Digest,
    /// Of which kind.
    pub kind: ArtifactKind,
    /// How to run it.
    pub spec: FunctionSpec,
    /// Why it was admitted.
    pub verdict: Verdict,
    /// Now, in milliseconds since 1970.
    pub created_at_ms: u64,
}

/// A function.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Function {
    /// Its revisions by number.
    pub revisions: BTreeMap<u32, Arc<Revision>>,
    /// Shares of traffic; empty until a revision has worked.
    pub traffic: Vec<TrafficShare>,
    /// The revision that had most traffic before.
    pub previous: Option<u32>,
    head: Head,
}

/// The part of a function that changes, as it is stored. Outlives the function, because numbers are never reused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Head {
    next_number: u32,
    mod_revision: u64,
}

impl Function {
    /// The newest revision.
    pub fn newest(&self) -> Option<&Arc<Revision>> {
        self.revisions.values().next_back()
    }

    /// Whether a revision has traffic.
    pub fn has_traffic(&self, number: u32) -> bool {
        self.traffic.iter().any(|share| share.revision == number && share.weight > 0)
    }

    /// The revision with most traffic.
    pub fn main(&self) -> Option<u32> {
        let share = self.traffic.iter().filter(|share| share.weight > 0).max_by_key(|share| share.weight)?;
        Some(share.revision)
    }
}

/// Why a transition is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// No such function.
    #[error("there is no function {0}")]
    NoFunction(FunctionKey),
    /// No such revision.
    #[error("{function} has no revision {number}; it has {}", list(kept))]
    NoRevision {
        /// Of which function.
        function: FunctionKey,
        /// Which.
        number: u32,
        /// Those that there are.
        kept: Vec<u32>,
    },
    /// No revision had traffic before.
    #[error("{0} has no earlier revision that had traffic")]
    NothingBefore(FunctionKey),
    /// The route is another function's.
    #[error("the route {pattern} belongs to {owner} already")]
    RouteTaken {
        /// Which.
        pattern: RoutePattern,
        /// Whose.
        owner: String,
    },
    /// Shares that make no sense.
    #[error("the shares of traffic {0}")]
    Shares(String),
    /// Too much of something.
    #[error("{0}")]
    TooMany(String),
}

fn list(numbers: &[u32]) -> String {
    let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
    if numbers.is_empty() { "none".to_owned() } else { numbers.join(", ") }
}

impl ClusterError {
    /// What a client is told.
    pub fn problem(&self) -> Problem {
        let code = match self {
            Self::NoFunction(_) | Self::NoRevision { .. } | Self::NothingBefore(_) => ErrorCode::NotFound,
            Self::RouteTaken { .. } => ErrorCode::Conflict,
            Self::Shares(_) | Self::TooMany(_) => ErrorCode::Invalid,
        };
        Problem::new(code, self.to_string())
    }
}

/// What adding a revision leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Added {
    /// There is one with the same digest and spec.
    Known(Arc<Revision>),
    /// A new one, once the transaction is committed.
    New(u32, Transaction),
}

/// Everything that tenants asked for.
#[derive(Debug, Clone)]
pub struct Cluster {
    domain: String,
    functions: BTreeMap<FunctionKey, Function>,
    /// Numbers of functions that were deleted.
    graves: BTreeMap<FunctionKey, Head>,
    claims: BTreeMap<RoutePattern, FunctionKey>,
    revision: u64,
}

impl Cluster {
    /// An empty state; functions answer below `domain`.
    pub fn new(domain: &str) -> Self {
        Self {
            domain: domain.to_owned(),
            functions: BTreeMap::new(),
            graves: BTreeMap::new(),
            claims: BTreeMap::new(),
            revision: 0,
        }
    }

    /// The store's revision up to which changes were applied.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Every function, in order.
    pub fn functions(&self) -> impl Iterator<Item = (&FunctionKey, &Function)> {
        self.functions.iter()
    }

    /// One function.
    ///
    /// # Errors
    /// [`ClusterError::NoFunction`].
    pub fn function(&self, key: &FunctionKey) -> Result<&Function, ClusterError> {
        self.functions.get(key).ok_or_else(|| ClusterError::NoFunction(key.clone()))
    }

    /// Hosts and paths that functions claim, besides their default hosts.
    pub fn claims(&self) -> impl Iterator<Item = (&RoutePattern, &FunctionKey)> {
        self.claims.iter()
    }

    /// `NAME.domain`, or `NAME.TENANT.domain` for tenants other than the default one.
    pub fn default_host(&self, key: &FunctionKey) -> String {
        if key.tenant == TenantName::default() {
            format!("{}.{}", key.name, self.domain)
        } else {
            format!("{}.{}.{}", key.name, key.tenant, self.domain)
        }
    }

    /// Adds a revision without traffic; makes the function where there is none. Revisions beyond the limit that have no
    /// traffic, and had none last, are forgotten, oldest first.
    ///
    /// # Errors
    /// A route is taken, or every kept revision has traffic.
    pub fn add_revision(&self, key: &FunctionKey, new: NewRevision) -> Result<Added, ClusterError> {
        let none = Function::default();
        let function = self.functions.get(key).unwrap_or(&none);
        self.check_claims(key, &new.spec.routes)?;
        let same = |revision: &&Arc<Revision>| {
            revision.digest == new.digest
                && revision.repository == new.repository
                && *revision.spec == new.spec
        };
        if let Some(known) = function.revisions.values().rev().find(same) {
            return Ok(Added::Known(Arc::clone(known)));
        }
        let head = self.functions.get(key).map(|f| &f.head).or_else(|| self.graves.get(key));
        let number = head.map_or(1, |head| head.next_number.max(1));
        let revision = Revision {
            number,
            repository: new.repository,
            digest: new.digest,
            kind: new.kind,
            spec: Arc::new(new.spec),
            verdict: new.verdict,
            created_at_ms: new.created_at_ms,
        };
        let mut writes =
            vec![codec::put_head(key, number + 1, Some(function)), codec::put_revision(key, &revision)];
        writes.extend(self.forgettable(key, function)?.map(|old| codec::delete_revision(key, old)));
        Ok(Added::New(number, Transaction { compares: vec![compare_head(key, head)], writes }))
    }

    fn forgettable<'a>(
        &self,
        key: &FunctionKey,
        function: &'a Function,
    ) -> Result<impl Iterator<Item = u32> + use<'a>, ClusterError> {
        let excess = (function.revisions.len() + 1).saturating_sub(limits::REVISIONS_KEPT_MAX);
        let free = |number: &&u32| !function.has_traffic(**number) && function.previous != Some(**number);
        let forgettable = function.revisions.keys().filter(free);
        if forgettable.clone().count() < excess {
            let text = format!(
                "all {} revisions of {key} have traffic; take it from one first",
                limits::REVISIONS_KEPT_MAX
            );
            return Err(ClusterError::TooMany(text));
        }
        Ok(forgettable.take(excess).copied())
    }

    /// Shifts traffic. The revisions with traffic decide which routes the function claims.
    ///
    /// # Errors
    /// No such function or revision, shares that make no sense, a route that is taken.
    pub fn set_traffic(
        &self,
        key: &FunctionKey,
        shares: &[TrafficShare],
    ) -> Result<Transaction, ClusterError> {
        let function = self.function(key)?;
        check_shares(key, function, shares)?;
        let with_traffic = shares.iter().filter(|share| share.weight > 0);
        let routes: BTreeSet<RoutePattern> = with_traffic
            .filter_map(|share| function.revisions.get(&share.revision))
            .flat_map(|revision| revision.spec.routes.iter().map(normal))
            .collect();
        if routes.len() > limits::ROUTES_MAX {
            let text = format!("{key} would claim {} routes; at most {}", routes.len(), limits::ROUTES_MAX);
            return Err(ClusterError::TooMany(text));
        }
        self.check_claims(key, &routes)?;
        let mut shifted = Function { traffic: shares.to_vec(), ..function.clone() };
        if function.main() != shifted.main() {
            shifted.previous = function.main().or(function.previous);
        }
        let mut compares = vec![compare_head(key, Some(&function.head))];
        let mut writes = vec![codec::put_head(key, function.head.next_number, Some(&shifted))];
        for pattern in &routes {
            if !self.claims.contains_key(pattern) {
                // Two functions may claim it at this moment: the store lets one of them.
                compares.push(Compare { key: codec::route_key(pattern), condition: Condition::Absent });
                writes.push(codec::put_route(pattern, key));
            }
        }
        let lost = self.claims_of(key).filter(|pattern| !routes.contains(*pattern));
        writes.extend(lost.map(|pattern| Write::Delete { key: codec::route_key(pattern) }));
        Ok(Transaction { compares, writes })
    }

    /// The revision that a rollback leads to.
    ///
    /// # Errors
    /// No such function or revision, or none that had traffic before.
    pub fn rollback_target(&self, key: &FunctionKey, number: Option<u32>) -> Result<u32, ClusterError> {
        let function = self.function(key)?;
        let number = match number {
            Some(number) => number,
            None => function.previous.ok_or_else(|| ClusterError::NothingBefore(key.clone()))?,
        };
        check_revision(key, function, number)?;
        Ok(number)
    }

    /// Deletes a function with its revisions and routes. Its numbers are remembered: logs and usage keep their meaning.
    ///
    /// # Errors
    /// [`ClusterError::NoFunction`].
    pub fn delete(&self, key: &FunctionKey) -> Result<Transaction, ClusterError> {
        let function = self.function(key)?;
        let mut writes = vec![codec::put_head(key, function.head.next_number, None)];
        writes.extend(function.revisions.keys().map(|number| codec::delete_revision(key, *number)));
        writes.extend(self.claims_of(key).map(|pattern| Write::Delete { key: codec::route_key(pattern) }));
        Ok(Transaction { compares: vec![compare_head(key, Some(&function.head))], writes })
    }

    fn claims_of<'a>(&'a self, key: &'a FunctionKey) -> impl Iterator<Item = &'a RoutePattern> {
        self.claims.iter().filter(move |(_, owner)| *owner == key).map(|(pattern, _)| pattern)
    }

    fn check_claims<'a>(
        &self,
        key: &FunctionKey,
        routes: impl IntoIterator<Item = &'a RoutePattern>,
    ) -> Result<(), ClusterError> {
        for pattern in routes {
            let taken = |owner: String| Err(ClusterError::RouteTaken { pattern: pattern.clone(), owner });
            if let Some(owner) = self.claims.get(&normal(pattern)).filter(|owner| *owner != key) {
                return taken(owner.to_string());
            }
            let below = pattern
                .host
                .strip_suffix(&self.domain)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
            let address = pattern.host.parse::<std::net::Ipv4Addr>().is_ok();
            if (below || address) && pattern.host != self.default_host(key) {
                return taken(format!("the platform, which gives out the names below {}", self.domain));
            }
        }
        Ok(())
    }

    /// Applies what was committed, in order. Changes that are known already are skipped.
    ///
    /// # Errors
    /// [`CorruptError`] where the store holds something that this version did not write; the rest is applied.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), CorruptError> {
        let known = self.revision;
        let mut corrupt = None;
        for change in changes.iter().filter(|change| change.revision > known) {
            if let Err(error) = self.apply_one(change) {
                corrupt.get_or_insert(error);
            }
            self.revision = self.revision.max(change.revision);
        }
        corrupt.map_or(Ok(()), Err)
    }

    /// The state that a first read of the whole store leads to.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn load(domain: &str, range: Range) -> Result<Self, CorruptError> {
        let mut cluster = Self::new(domain);
        for entry in range.entries {
            cluster.apply_one(&Event::Put(entry).into())?;
        }
        cluster.revision = range.revision;
        Ok(cluster)
    }
}

/// One key of the store as it is from a revision on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub key: String,
    /// What it holds; `None` where it was deleted.
    pub value: Option<Vec<u8>>,
    /// Since which revision.
    pub revision: u64,
}

impl Change {
    /// What a write that was committed at `revision` changed.
    pub fn committed(write: &Write, revision: u64) -> Self {
        let value = match write {
            Write::Put { value, .. } => Some(value.clone()),
            Write::Delete { .. } => None,
        };
        Self { key: write.key().to_owned(), value, revision }
    }
}

impl From<Event> for Change {
    fn from(event: Event) -> Self {
        match event {
            Event::Put(entry) => {
                Self { key: entry.key, value: Some(entry.value), revision: entry.mod_revision }
            }
            Event::Delete { key, revision } => Self { key, value: None, revision },
        }
    }
}

fn compare_head(key: &FunctionKey, head: Option<&Head>) -> Compare {
    let condition = head.map_or(Condition::Absent, |head| Condition::ModRevision(head.mod_revision));
    Compare { key: codec::function_key(key), condition }
}

/// The pattern as it is claimed: `/api/` and `/api` are the same.
fn normal(pattern: &RoutePattern) -> RoutePattern {
    let path = pattern.path.trim_end_matches('/');
    RoutePattern {
        host: pattern.host.clone(),
        path: if path.is_empty() { "/".to_owned() } else { path.to_owned() },
    }
}

fn check_revision(key: &FunctionKey, function: &Function, number: u32) -> Result<(), ClusterError> {
    if function.revisions.contains_key(&number) {
        return Ok(());
    }
    let kept = function.revisions.keys().copied().collect();
    Err(ClusterError::NoRevision { function: key.clone(), number, kept })
}

fn check_shares(key: &FunctionKey, function: &Function, shares: &[TrafficShare]) -> Result<(), ClusterError> {
    for (index, share) in shares.iter().enumerate() {
        check_revision(key, function, share.revision)?;
        if shares[..index].iter().any(|other| other.revision == share.revision) {
            return Err(ClusterError::Shares(format!("name revision {} twice", share.revision)));
        }
    }
    if shares.iter().all(|share| share.weight == 0) {
        return Err(ClusterError::Shares(
            "leave no revision with traffic; give one a weight above 0".to_owned(),
        ));
    }
    Ok(())
}
