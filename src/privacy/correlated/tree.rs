//! The noise of a binary tree over the rounds: every prefix sum is of few nodes (Dwork, Naor, Pitassi and Rothblum, 2010;
//! Chan, Shi and Song, 2011; in DP-FTRL, Kairouz et al. 2021).
//!
//! A node of level l covers 2^l rounds, and has the sum of their updates with noise of its own. The sum over rounds 1 to t
//! is that of the nodes that its binary digits name, one for each that is set. What a round releases is the prefix sum with
//! it less that without it: x_t, the noise of the one node that ends with it, and less that of the nodes that this one
//! takes the place of. All of it is integers.
//!
//! Nothing is kept but the key: each node's noise is made again where it is needed, twice in all.

use super::Schedule;

/// A node whose noise is added or taken away.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Node {
    /// It covers two to the power of this many rounds.
    pub level: u32,
    /// Which of its level, from one on; it ends with round `number << level`.
    pub number: u32,
}

/// The node whose noise comes with a round, counted from one.
pub fn comes(round: u32) -> Node {
    let level = round.trailing_zeros();
    Node { level, number: round >> level }
}

/// The nodes whose noise goes with it: those of the prefix before that it takes the place of.
pub fn go(round: u32) -> impl Iterator<Item = Node> {
    (0..round.trailing_zeros()).map(move |level| Node { level, number: (round - 1) >> level })
}

/// How far the sums of all nodes move at most with one client, by how far one update does; or more.
///
/// On each level a client is in a node at most as often as its rounds allow, and in all nodes as often as it takes part:
/// squares add up to the most where it is in few nodes often. Levels are taken each for itself, which is the worst of all
/// only where clients take part once.
pub fn sensitivity(schedule: &Schedule) -> f64 {
    let turns = schedule.most();
    let levels = u64::BITS - schedule.rounds.leading_zeros();
    let of_level = |level: u32| {
        let together = (1u64 << level).div_ceil(schedule.separation.max(1)).min(turns).max(1);
        let (full, rest) = (turns / together, turns % together);
        u128::from(full) * u128::from(together).pow(2) + u128::from(rest).pow(2)
    };
    let squares: u128 = (0..levels).map(of_level).sum();
    (squares as f64).next_up().sqrt().next_up()
}

#[cfg(test)]
mod tests {
    use super::super::sensitivity::{small_schedules, worst_by_trial};
    use super::*;
    use std::collections::HashSet;

    /// Nodes in the sum over the first rounds, by binary digits.
    fn prefix(rounds: u32) -> HashSet<Node> {
        let digits = (0..32).filter(|level| rounds >> level & 1 == 1);
        digits.map(|level| Node { level, number: rounds >> level }).collect()
    }

    #[test]
    fn what_comes_and_goes_is_the_difference_of_prefixes() {
        for round in 1..=300 {
            let (before, after) = (prefix(round - 1), prefix(round));
            assert_eq!(HashSet::from([comes(round)]), &after - &before);
            assert_eq!(go(round).collect::<HashSet<_>>(), &before - &after);
        }
    }

    fn covers(node: Node, round: usize) -> bool {
        let end = (node.number as usize) << node.level;
        (end - (1 << node.level)..end).contains(&round)
    }

    #[test]
    fn no_way_to_take_part_moves_more() {
        for schedule in small_schedules() {
            let nodes: Vec<Node> = (1..=schedule.rounds as u32).map(comes).collect();
            let norm = |turns: &[usize]| {
                let inside = |node: &Node| turns.iter().filter(|turn| covers(*node, **turn)).count() as f64;
                nodes.iter().map(|node| inside(node).powi(2)).sum::<f64>().sqrt()
            };
            let (worst, found) = (worst_by_trial(&schedule, norm), sensitivity(&schedule));
            assert!(found >= worst, "{schedule:?}: {found}, {worst}");
            let loose = if schedule.most() == 1 { 1.0 } else { 1.5 };
            assert!(found <= worst * (loose + 1e-12), "{schedule:?}: {found}, {worst}");
        }
    }

    /// As dp_accounting counts them: ceil(log2(T + 1)) nodes for each client.
    #[test]
    fn a_client_that_takes_part_once_is_in_a_node_of_each_level() {
        for (rounds, levels) in [(1, 1.0), (2, 2.0), (3, 2.0), (4, 3.0), (1600, 11.0)] {
            let found = sensitivity(&Schedule { rounds, participations: 1, separation: 1 });
            assert!((found.powi(2) - levels).abs() < 1e-9, "{rounds}: {found}");
        }
    }
}
