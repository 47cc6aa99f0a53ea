//! What this scheduler knows now: the desired state as last read, and a target for each of its revisions. The only owner
//! of both; whoever changes one lets the other follow.

use crate::{
    cluster::{Change, Cluster, CorruptError, FunctionKey},
    fleet::RunningInstance,
    route::{Route, RouteTable},
    target::{Shared, Target},
};
use neap_sdk::{FunctionSpec, RevisionId, function::RoutePattern};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Weak},
};

/// The desired state and the targets that follow it.
pub(crate) struct Live {
    cluster: Cluster,
    targets: HashMap<RevisionId, Arc<Target>>,
    /// Whose turn it is to change a function; only those that somebody holds are kept.
    orders: HashMap<FunctionKey, Weak<tokio::sync::Mutex<()>>>,
    draining: bool,
}

impl Live {
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, targets: HashMap::new(), orders: HashMap::new(), draining: false }
    }

    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub fn target(&self, revision: &RevisionId) -> Option<&Arc<Target>> {
        self.targets.get(revision)
    }

    pub fn targets(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.targets.values()
    }

    /// The lock under which deployments of one function go one after the other.
    pub fn deploy_order(&mut self, key: &FunctionKey) -> Arc<tokio::sync::Mutex<()>> {
        if let Some(order) = self.orders.get(key).and_then(Weak::upgrade) {
            return order;
        }
        self.orders.retain(|_, order| order.strong_count() > 0);
        let order = Arc::new(tokio::sync::Mutex::new(()));
        self.orders.insert(key.clone(), Arc::downgrade(&order));
        order
    }

    /// Applies changes; answers whether anything was new. Whoever calls lets [`Self::follow`] do its part.
    pub fn apply(&mut self, changes: &[Change]) -> Result<bool, CorruptError> {
        let before = self.cluster.revision();
        self.cluster.apply(changes)?;
        Ok(self.cluster.revision() != before)
    }

    /// Takes a state that was read anew, unless what is known is newer. Answers whether it was taken.
    pub fn replace(&mut self, cluster: Cluster) -> bool {
        let newer = cluster.revision() > self.cluster.revision();
        if newer {
            self.cluster = cluster;
        }
        newer
    }

    /// Makes targets for new revisions, retires those of revisions that are gone, and answers the routes of now.
    pub fn follow(&mut self, shared: &Arc<Shared>) -> RouteTable {
        let mut kept = HashSet::new();
        for (key, function) in self.cluster.functions() {
            for revision in function.revisions.values() {
                let id = key.revision(revision.number);
                kept.insert(id.clone());
                let target = self.targets.entry(id).or_insert_with_key(|id| {
                    let artifact = (revision.repository.clone(), revision.digest, revision.kind);
                    let spec: Arc<FunctionSpec> = Arc::clone(&revision.spec);
                    let target = Arc::new(Target::new(id.clone(), artifact, spec, Arc::clone(shared)));
                    if self.draining {
                        target.drain();
                    }
                    target
                });
                target.set_traffic(function.has_traffic(revision.number));
            }
        }
        self.targets.retain(|id, target| {
            let keep = kept.contains(id);
            if !keep {
                target.retire();
            }
            keep
        });
        self.route_table()
    }

    fn route_table(&self) -> RouteTable {
        let routes: BTreeMap<&FunctionKey, Arc<Route>> = self
            .cluster
            .functions()
            .filter_map(|(key, function)| {
                let target = |number| self.targets.get(&key.revision(number)).map(Arc::clone);
                let shares =
                    function.traffic.iter().filter_map(|share| Some((share.weight, target(share.revision)?)));
                let mut shares: Vec<_> = shares.filter(|(weight, _)| *weight > 0).collect();
                if shares.is_empty() {
                    // Nothing ever worked: say why, instead of that there is nothing.
                    shares.push((1, Arc::new(Target::reporting(&target(function.newest()?.number)?))));
                }
                Some((key, Arc::new(Route::new(key.tenant.clone(), key.name.clone(), shares))))
            })
            .collect();
        let defaults = routes.iter().map(|(key, route)| {
            let host = self.cluster.default_host(key);
            (RoutePattern { host, path: "/".to_owned() }, Arc::clone(route))
        });
        let claimed = self
            .cluster
            .claims()
            .filter_map(|(pattern, owner)| Some((pattern.clone(), Arc::clone(routes.get(owner)?))));
        RouteTable::new(defaults.chain(claimed))
    }

    /// Hands instances that are up already to their targets. Answers those that belong to nobody.
    pub fn adopt(&self, running: &[RunningInstance]) -> Vec<neap_sdk::InstanceId> {
        let mut strangers = Vec::new();
        for instance in running {
            match self.targets.get(&instance.revision) {
                Some(target) => target.adopt(instance),
                None => strangers.push(instance.instance),
            }
        }
        strangers
    }

    /// From now on no target takes new requests.
    pub fn drain(&mut self) {
        self.draining = true;
        self.targets.values().for_each(|target| target.drain());
    }
}
