//! Transitions of the desired state, each committed in memory as the store would.

use super::*;
use crate::store::Committed;
use neap_sdk::admission::Evidence;
use std::collections::HashMap;

/// A cluster and what its store would hold.
struct World {
    cluster: Cluster,
    revision: u64,
    mod_revisions: HashMap<String, u64>,
}

impl World {
    fn new() -> Self {
        Self { cluster: Cluster::new("localhost"), revision: 1, mod_revisions: HashMap::new() }
    }

    fn commit(&mut self, transaction: &Transaction) -> Committed {
        transaction.check().expect("a transition keeps the store's limits");
        for compare in &transaction.compares {
            let known = self.mod_revisions.get(&compare.key);
            let holds = match &compare.condition {
                Condition::Absent => known.is_none(),
                Condition::ModRevision(revision) => known == Some(revision),
                other => panic!("{other:?} is not used here"),
            };
            if !holds {
                return Committed::Conflict { revision: self.revision };
            }
        }
        self.revision += 1;
        for write in &transaction.writes {
            match write {
                Write::Put { key, .. } => self.mod_revisions.insert(key.clone(), self.revision),
                Write::Delete { key } => self.mod_revisions.remove(key),
            };
        }
        let changes: Vec<_> =
            transaction.writes.iter().map(|write| Change::committed(write, self.revision)).collect();
        self.cluster.apply(&changes).expect("what was written can be read");
        Committed::Done { revision: self.revision }
    }

    fn deploy(&mut self, name: &str, digest: &str, routes: &[&str]) -> Result<u32, ClusterError> {
        let key = key(name);
        let number = match self.cluster.add_revision(&key, new(digest, routes))? {
            Added::Known(revision) => revision.number,
            Added::New(number, transaction) => {
                self.commit(&transaction);
                number
            }
        };
        self.shift(name, &[(number, 100)])?;
        Ok(number)
    }

    fn shift(&mut self, name: &str, shares: &[(u32, u32)]) -> Result<(), ClusterError> {
        let shares: Vec<_> = shares
            .iter()
            .map(|(revision, weight)| TrafficShare { revision: *revision, weight: *weight })
            .collect();
        let transaction = self.cluster.set_traffic(&key(name), &shares)?;
        assert!(matches!(self.commit(&transaction), Committed::Done { .. }));
        Ok(())
    }
}

fn key(text: &str) -> FunctionKey {
    let (tenant, name) = text.split_once('/').unwrap_or(("default", text));
    FunctionKey { tenant: tenant.parse().unwrap(), name: name.parse().unwrap() }
}

fn new(digest: &str, routes: &[&str]) -> NewRevision {
    let digest = Digest::of(digest.as_bytes());
    let routes = routes.iter().map(|route| route.parse().unwrap()).collect();
    let verdict = Verdict {
        digest,
        admitted: true,
        reasons: vec![],
        evidence: Evidence::default(),
        policy: digest,
        decided_at_ms: 0,
    };
    NewRevision {
        repository: "app".parse().unwrap(),
        digest,
        kind: ArtifactKind::Image,
        spec: FunctionSpec { routes, ..FunctionSpec::default() },
        verdict,
        created_at_ms: 7,
    }
}

#[test]
fn the_same_digest_and_spec_make_no_second_revision() {
    let mut world = World::new();
    assert_eq!(world.deploy("a", "one", &[]), Ok(1));
    assert_eq!(world.deploy("a", "two", &[]), Ok(2));
    assert_eq!(world.deploy("a", "one", &[]), Ok(1), "back to the first one");
    assert_eq!(world.deploy("a", "one", &["shop.example"]), Ok(3), "another spec is another revision");
    assert_eq!(world.cluster.function(&key("a")).unwrap().revisions.len(), 3);
}

#[test]
fn rollback_leads_to_what_had_traffic_before() {
    let mut world = World::new();
    world.deploy("a", "one", &[]).unwrap();
    assert_eq!(world.cluster.rollback_target(&key("a"), None), Err(ClusterError::NothingBefore(key("a"))));
    world.deploy("a", "two", &[]).unwrap();
    assert_eq!(world.cluster.rollback_target(&key("a"), None), Ok(1));
    assert_eq!(world.cluster.rollback_target(&key("a"), Some(2)), Ok(2));
    let missing = world.cluster.rollback_target(&key("a"), Some(9)).unwrap_err();
    assert_eq!(missing.to_string(), "default/a has no revision 9; it has 1, 2");
    world.shift("a", &[(1, 100)]).unwrap();
    assert_eq!(world.cluster.rollback_target(&key("a"), None), Ok(2), "and forth again");
}

#[test]
fn routes_belong_to_one_function_and_follow_its_traffic() {
    let mut world = World::new();
    world.deploy("a", "one", &["shop.example/api"]).unwrap();
    let taken = world.deploy("b", "two", &["shop.example/api/"]).unwrap_err();
    assert_eq!(taken.to_string(), "the route shop.example/api/ belongs to default/a already");
    assert_eq!(taken.problem().code, ErrorCode::Conflict);
    world.deploy("b", "two", &["shop.example"]).expect("another path of the same host is free");
    world.deploy("a", "three", &[]).unwrap();
    world
        .deploy("b", "two", &["shop.example/api"])
        .expect("a's traffic moved to a revision without the route");
    let back = world.shift("a", &[(1, 100)]).unwrap_err();
    assert!(matches!(back, ClusterError::RouteTaken { .. }), "{back:?}");
}

#[test]
fn names_below_the_domain_cannot_be_claimed() {
    let mut world = World::new();
    for route in ["localhost", "other.localhost", "a.team.localhost", "127.0.0.1"] {
        let error = world.deploy("a", "one", &[route]).unwrap_err();
        assert!(matches!(error, ClusterError::RouteTaken { .. }), "{route}: {error:?}");
    }
    world.deploy("a", "one", &["a.localhost/x", "notlocalhost", "*/any"]).expect("its own name, and others'");
}

#[test]
fn two_claims_at_once_are_decided_by_the_store() {
    let mut world = World::new();
    for (name, digest) in [("a", "one"), ("b", "two")] {
        let Added::New(_, transaction) =
            world.cluster.add_revision(&key(name), new(digest, &["x.example"])).unwrap()
        else {
            panic!("{name} is new")
        };
        world.commit(&transaction);
    }
    let share = [TrafficShare { revision: 1, weight: 1 }];
    let [first, second] = ["a", "b"].map(|name| world.cluster.set_traffic(&key(name), &share).unwrap());
    assert!(matches!(world.commit(&first), Committed::Done { .. }));
    assert!(matches!(world.commit(&second), Committed::Conflict { .. }));
}

#[test]
fn numbers_are_not_reused_after_a_deletion() {
    let mut world = World::new();
    world.deploy("a", "one", &["x.example"]).unwrap();
    world.deploy("a", "two", &["x.example"]).unwrap();
    let transaction = world.cluster.delete(&key("a")).unwrap();
    world.commit(&transaction);
    assert_eq!(world.cluster.function(&key("a")), Err(ClusterError::NoFunction(key("a"))));
    assert_eq!(world.cluster.claims().count(), 0);
    assert_eq!(world.deploy("a", "one", &[]), Ok(3));
    assert_eq!(world.cluster.function(&key("a")).unwrap().revisions.len(), 1);
}

#[test]
fn old_revisions_are_forgotten_but_never_one_with_traffic() {
    let mut world = World::new();
    world.deploy("a", "first", &[]).unwrap();
    let kept = limits::REVISIONS_KEPT_MAX as u32;
    for number in 2..=kept + 5 {
        world.deploy("a", &number.to_string(), &[]).unwrap();
        world.shift("a", &[(1, 1), (number, 9)]).unwrap();
    }
    let function = world.cluster.function(&key("a")).unwrap();
    assert_eq!(function.revisions.len(), limits::REVISIONS_KEPT_MAX);
    assert!(function.revisions.contains_key(&1), "the first one has traffic still");
    assert!(!function.revisions.contains_key(&2), "the second one is the oldest without");
    assert!(function.revisions.contains_key(&(kept + 5)));
}

#[test]
fn shares_must_make_sense() {
    let mut world = World::new();
    world.deploy("a", "one", &[]).unwrap();
    assert!(matches!(world.shift("a", &[]), Err(ClusterError::Shares(_))));
    assert!(matches!(world.shift("a", &[(1, 0)]), Err(ClusterError::Shares(_))));
    assert!(matches!(world.shift("a", &[(1, 1), (1, 1)]), Err(ClusterError::Shares(_))));
    assert!(matches!(world.shift("a", &[(2, 1)]), Err(ClusterError::NoRevision { .. })));
    assert!(matches!(world.shift("b", &[(1, 1)]), Err(ClusterError::NoFunction(_))));
}

#[test]
fn default_hosts_name_the_tenant_unless_it_is_the_default_one() {
    let cluster = Cluster::new("localhost");
    assert_eq!(cluster.default_host(&key("a")), "a.localhost");
    assert_eq!(cluster.default_host(&key("team/a")), "a.team.localhost");
}

#[test]
fn what_cannot_be_read_is_named() {
    let mut cluster = Cluster::new("localhost");
    let change = |key: &str, value: &str| Change { key: key.into(), value: Some(value.into()), revision: 5 };
    for key in ["/functions/x", "/functions/a/b", "/revisions/a/b/c", "/unknown"] {
        let error = cluster.apply(&[change(key, "not JSON")]).expect_err(key);
        assert_eq!(error.key, key);
        cluster.revision = 0;
    }
}
