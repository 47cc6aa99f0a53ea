//! Routes: which revision answers a host and a path. An immutable snapshot, made anew for each change of the desired
//! state, so that a request reads it without a lock.
//!
//! It must not know how a target gets an instance.

use crate::target::Target;
use neap_sdk::{FunctionName, TenantName, function::RoutePattern};
use std::{collections::HashMap, sync::Arc};

/// One function, as a host and path lead to it.
#[derive(Debug)]
pub struct Route {
    /// Who owns the function.
    pub tenant: TenantName,
    /// The function.
    pub function: FunctionName,
    /// Cumulative weights, so that picking is one comparison for most functions.
    shares: Vec<(u64, Arc<Target>)>,
}

impl Route {
    /// A route over `shares` of (weight, target); zero weights get nothing.
    pub(crate) fn new(
        tenant: TenantName,
        function: FunctionName,
        shares: impl IntoIterator<Item = (u32, Arc<Target>)>,
    ) -> Self {
        let mut sum = 0;
        let cumulative = shares.into_iter().filter(|(weight, _)| *weight > 0).map(|(weight, target)| {
            sum += u64::from(weight);
            (sum, target)
        });
        Self { tenant, function, shares: cumulative.collect() }
    }

    /// The revision for one request, by weight; `random` is any evenly distributed number.
    /// A function of which no revision ever worked leads to its newest one, whose lease tells why.
    pub fn pick(&self, random: u32) -> Option<&Arc<Target>> {
        let (sum, _) = self.shares.last()?;
        // Scales the number to 0..sum without the bias of a remainder.
        let point = (u128::from(random) * u128::from(*sum)) >> 32;
        let (_, target) = self.shares.iter().find(|(upto, _)| point < u128::from(*upto))?;
        Some(target)
    }
}

/// Every route. Exact hosts beat `*`, longer paths beat shorter ones.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// Per host, longest path first.
    hosts: HashMap<Box<str>, Vec<(RoutePattern, Arc<Route>)>>,
    /// Patterns of any host, longest path first.
    any_host: Vec<(RoutePattern, Arc<Route>)>,
}

impl RouteTable {
    /// A table of patterns, each with where it leads.
    pub(crate) fn new(patterns: impl IntoIterator<Item = (RoutePattern, Arc<Route>)>) -> Self {
        let mut table = Self::default();
        for (pattern, route) in patterns {
            match pattern.host.as_str() {
                "*" => table.any_host.push((pattern, route)),
                host => table.hosts.entry(host.into()).or_default().push((pattern, route)),
            }
        }
        let longest_first = |list: &mut Vec<(RoutePattern, Arc<Route>)>| {
            list.sort_by_key(|(pattern, _)| usize::MAX - pattern.path.len())
        };
        table.hosts.values_mut().for_each(longest_first);
        longest_first(&mut table.any_host);
        table
    }

    /// The route of a host (lower case, without port) and a path.
    pub fn find(&self, host: &str, path: &str) -> Option<&Route> {
        let exact = self.hosts.get(host).and_then(|list| covering(list, path));
        exact.or_else(|| covering(&self.any_host, path))
    }

    /// How many patterns lead somewhere.
    pub fn len(&self) -> usize {
        self.hosts.values().map(Vec::len).sum::<usize>() + self.any_host.len()
    }

    /// Whether nothing leads anywhere.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn covering<'a>(list: &'a [(RoutePattern, Arc<Route>)], path: &str) -> Option<&'a Route> {
    list.iter().find(|(pattern, _)| pattern.covers_path(path)).map(|(_, route)| &**route)
}
