//! Who waits for whom: circles, those who hold others up, and how many wait for each.

use std::collections::{BTreeMap, BTreeSet};

use crate::addr::KVirtAddr;

/// A circle's or a chain's members that are looked at.
const LONGEST: usize = 1 << 16;

/// A task waits for at most one other: each has one way out.
#[derive(Debug, Default)]
pub(super) struct Graph {
    owner_of: BTreeMap<KVirtAddr, KVirtAddr>,
}

/// One who holds others up and waits for none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Root {
    pub(super) task: KVirtAddr,
    /// How many wait for it.
    pub(super) direct: u64,
    /// The same with those who wait for these in turn.
    pub(super) all: u64,
}

impl Graph {
    /// Notes that one waits for the other.
    pub(super) fn add(&mut self, waiter: KVirtAddr, owner: KVirtAddr) {
        self.owner_of.entry(waiter).or_insert(owner);
    }

    /// For whom it waits.
    pub(super) fn owner(&self, waiter: KVirtAddr) -> Option<KVirtAddr> {
        self.owner_of.get(&waiter).copied()
    }

    /// The circles; each begins with its lowest address and goes on from waiter to owner.
    pub(super) fn cycles(&self) -> Vec<Vec<KVirtAddr>> {
        let mut done: BTreeSet<KVirtAddr> = BTreeSet::new();
        let mut found = Vec::new();
        for start in self.owner_of.keys() {
            let mut way: Vec<KVirtAddr> = Vec::new();
            let mut places: BTreeMap<KVirtAddr, usize> = BTreeMap::new();
            let mut at = Some(*start);
            while let Some(task) = at.filter(|task| !done.contains(task) && way.len() < LONGEST) {
                if let Some(place) = places.get(&task) {
                    let mut circle = way.get(*place..).unwrap_or_default().to_vec();
                    let lowest =
                        circle.iter().enumerate().min_by_key(|(_, task)| **task).map_or(0, |(at, _)| at);
                    circle.rotate_left(lowest);
                    found.push(circle);
                    break;
                }
                places.insert(task, way.len());
                way.push(task);
                at = self.owner(task);
            }
            done.extend(way);
        }
        found
    }

    /// Those who hold others up and wait for none themselves, the one with the most waiters first.
    pub(super) fn roots(&self) -> Vec<Root> {
        // Where each one's chain ends; nothing where it runs into a circle.
        let mut end_of: BTreeMap<KVirtAddr, Option<KVirtAddr>> = BTreeMap::new();
        let mut roots: BTreeMap<KVirtAddr, Root> = BTreeMap::new();
        for waiter in self.owner_of.keys() {
            let mut way: BTreeSet<KVirtAddr> = BTreeSet::new();
            let mut at = *waiter;
            let end = loop {
                if let Some(known) = end_of.get(&at) {
                    break *known;
                }
                if !way.insert(at) || way.len() > LONGEST {
                    break None;
                }
                match self.owner(at) {
                    Some(owner) => at = owner,
                    None => break Some(at),
                }
            };
            end_of.extend(way.into_iter().map(|task| (task, end)));
            let Some(end) = end else { continue };
            let root = roots.entry(end).or_insert(Root { task: end, direct: 0, all: 0 });
            root.all = root.all.saturating_add(1);
            root.direct = root.direct.saturating_add(u64::from(self.owner(*waiter) == Some(end)));
        }
        let mut roots: Vec<Root> = roots.into_values().collect();
        roots.sort_by_key(|root| (std::cmp::Reverse(root.all), root.task));
        roots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(u64, u64)]) -> Graph {
        let mut graph = Graph::default();
        for (waiter, owner) in edges {
            graph.add(KVirtAddr(*waiter), KVirtAddr(*owner));
        }
        graph
    }

    fn circles(graph: &Graph) -> Vec<Vec<u64>> {
        graph.cycles().iter().map(|circle| circle.iter().map(|task| task.0).collect()).collect()
    }

    #[test]
    fn two_that_wait_for_each_other_are_a_circle_and_no_root() {
        let graph = graph(&[(2, 1), (1, 2), (3, 1), (4, 3)]);
        assert_eq!(circles(&graph), [[1, 2]]);
        assert_eq!(graph.roots(), []);
    }

    #[test]
    fn a_long_circle_and_one_who_waits_for_itself_are_found() {
        let ring: Vec<(u64, u64)> = (0..1000).map(|n| (n, (n + 1) % 1000)).chain([(5000, 5000)]).collect();
        let found = circles(&graph(&ring));
        assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [1000, 1]);
    }

    #[test]
    fn a_root_counts_those_behind_its_waiters() {
        let graph = graph(&[(2, 1), (3, 1), (4, 3), (5, 4), (8, 7)]);
        assert_eq!(circles(&graph), Vec::<Vec<u64>>::new());
        let roots: Vec<_> = graph.roots().iter().map(|root| (root.task.0, root.direct, root.all)).collect();
        assert_eq!(roots, [(1, 2, 4), (7, 1, 1)]);
    }
}
