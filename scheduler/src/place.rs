//! Which node an instance goes to. A score over what is free, as the Kubernetes scheduler's "least allocated".
//!
//! Pure: sees nodes as values, starts nothing.

use crate::fleet::{NodeName, NodeState};

/// The node with the largest free share that has room for `memory_bytes`; among equals the one with fewer instances,
/// then the first by name, so that the same view always leads to the same place. `None` where none has room.
pub fn choose(nodes: &[NodeState], memory_bytes: u64) -> Option<&NodeName> {
    let roomy = nodes.iter().filter(|node| free_bytes(node) >= memory_bytes);
    let best = roomy.max_by(|a, b| {
        let free = score(a, memory_bytes).cmp(&score(b, memory_bytes));
        free.then_with(|| b.instances.cmp(&a.instances)).then_with(|| b.name.cmp(&a.name))
    })?;
    Some(&best.name)
}

fn free_bytes(node: &NodeState) -> u64 {
    node.memory_bytes.saturating_sub(node.memory_promised_bytes)
}

/// The share that stays free once the instance is there, in parts of 10⁶.
fn score(node: &NodeState, memory_bytes: u64) -> u128 {
    let left = u128::from(free_bytes(node) - memory_bytes);
    left * 1_000_000 / u128::from(node.memory_bytes.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, memory_bytes: u64, memory_promised_bytes: u64, instances: u32) -> NodeState {
        NodeState { name: NodeName(name.into()), memory_bytes, memory_promised_bytes, instances }
    }

    #[test]
    fn the_emptiest_node_with_room_wins() {
        let nodes = [node("a", 100, 60, 1), node("b", 1_000, 900, 1), node("c", 50, 0, 0)];
        let chosen = |need| choose(&nodes, need).map(|name| name.to_string());
        assert_eq!(chosen(10).as_deref(), Some("c"), "80 % stay free there");
        assert_eq!(chosen(60).as_deref(), Some("b"), "the only one with room");
        assert_eq!(chosen(101), None, "nobody has room");
    }

    #[test]
    fn ties_are_broken_the_same_way_each_time() {
        let nodes = [node("b", 100, 0, 1), node("a", 100, 0, 1), node("c", 100, 0, 2)];
        assert_eq!(choose(&nodes, 1).map(|name| name.to_string()).as_deref(), Some("a"));
    }
}
