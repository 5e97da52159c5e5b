//! The noise of a binary tree over the rounds: every prefix sum has the noise of few nodes.
//!
//! Papers: Dwork, Naor, Pitassi and Rothblum, 2010; Chan, Shi and Song, 2011; in DP-FTRL, Kairouz et al. 2021.
//!
//! A node of level l covers 2^l rounds, and holds the sum of their updates with independent noise. The sum over rounds
//! 1 to t is the sum of few nodes, one for each set bit of t. A round releases the difference of two prefix sums, with
//! and without the round: x_t, plus the noise of the one node that ends with the round, less the noise of the nodes
//! that this node replaces. All values are integers.
//!
//! Only the key is kept. The noise of a node is made from the key each time it is needed, twice in all.

use super::Schedule;

/// A node whose noise is added or subtracted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Node {
    /// The node covers `1 << level` rounds.
    pub level: u32,
    /// Number of the node in its level, from 1 on; the node ends with round `number << level`.
    pub number: u32,
}

impl Node {
    /// The round that adds the noise of the node: the last that it covers.
    pub fn comes_in(self) -> u32 {
        self.number << self.level
    }
}

/// The node whose noise a round adds. Rounds count from 1.
pub fn comes(round: u32) -> Node {
    let level = round.trailing_zeros();
    Node { level, number: round >> level }
}

/// The nodes whose noise a round subtracts: nodes of the earlier prefix that the round's node replaces.
pub fn go(round: u32) -> impl Iterator<Item = Node> {
    (0..round.trailing_zeros()).map(move |level| Node { level, number: (round - 1) >> level })
}

/// Upper bound of the distance that one client moves the sums of all nodes, divided by the distance of one update.
///
/// On each level the separation limits how often a client is in one node, and its participations limit how often it is
/// in all nodes. The sum of squares is largest if the client is in few nodes often. The bound takes the worst case of
/// each level separately, so it is exact only for clients that take part once.
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

    /// Nodes of the sum over the first rounds, by the bits of their number.
    fn prefix(rounds: u32) -> HashSet<Node> {
        let digits = (0..32).filter(|level| rounds >> level & 1 == 1);
        digits.map(|level| Node { level, number: rounds >> level }).collect()
    }

    #[test]
    fn added_and_subtracted_nodes_are_the_difference_of_prefixes() {
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
    fn no_set_of_rounds_moves_more() {
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

    /// As in dp_accounting, each client is in ceil(log2(T + 1)) nodes.
    #[test]
    fn a_client_that_takes_part_once_is_in_a_node_of_each_level() {
        for (rounds, levels) in [(1, 1.0), (2, 2.0), (3, 2.0), (4, 3.0), (1600, 11.0)] {
            let found = sensitivity(&Schedule { rounds, participations: 1, separation: 1 });
            assert!((found.powi(2) - levels).abs() < 1e-9, "{rounds}: {found}");
        }
    }
}
