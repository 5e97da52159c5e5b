//! Circles in a directed graph.

/// The groups of nodes that all reach each other, each sorted, without the nodes that stand in no circle.
///
/// `arrows[n]` holds the nodes behind node `n`. An arrow from a node to itself is no circle.
pub(crate) fn circles(arrows: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let reached: Vec<Vec<bool>> = (0..arrows.len()).map(|node| reach(arrows, node)).collect();
    let mut taken = vec![false; arrows.len()];
    let mut found = Vec::new();
    for node in 0..arrows.len() {
        let both_ways = |other: &usize| reached[node][*other] && reached[*other][node];
        let circle: Vec<usize> = (0..arrows.len()).filter(both_ways).collect();
        if circle.len() > 1 && !taken[node] {
            circle.iter().for_each(|member| taken[*member] = true);
            found.push(circle);
        }
    }
    found
}

/// Which nodes a node reaches over one arrow or more.
fn reach(arrows: &[Vec<usize>], from: usize) -> Vec<bool> {
    let mut reached = vec![false; arrows.len()];
    let mut open = arrows[from].clone();
    while let Some(node) = open.pop() {
        if !std::mem::replace(&mut reached[node], true) {
            open.extend(&arrows[node]);
        }
    }
    reached
}

#[test]
fn nodes_that_reach_each_other_are_a_circle() {
    let arrows = [vec![1], vec![2], vec![0, 3], vec![4], vec![3], vec![0], vec![6], vec![]];
    assert_eq!(circles(&arrows), [vec![0, 1, 2], vec![3, 4]]);
}

#[test]
fn a_chain_a_fork_and_an_arrow_to_itself_are_no_circle() {
    assert_eq!(circles(&[vec![1, 2], vec![3], vec![3], vec![3]]), Vec::<Vec<usize>>::new());
}
