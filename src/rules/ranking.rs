//! Ranks clients by score. Ties go to the lowest client id.

use crate::rules::Warning;
use crate::rules::geometry::Geometry;

/// The score of a client with a bound on its numeric error.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Score {
    /// The score. A lower score is better.
    pub value: f64,
    /// The bound on its error.
    pub error: f64,
}

impl Score {
    /// A score from exact numbers.
    pub fn exact(value: f64) -> Self {
        Self { value, error: 0.0 }
    }

    /// The squared distance of two points.
    pub fn squared_distance(geometry: &Geometry, a: usize, b: usize) -> Self {
        Self { value: geometry.squared_distance(a, b), error: geometry.error(a, b) }
    }
}

/// The indices of scores, lowest score first.
pub fn ranked(scores: &[Score]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    // A stable sort: ties stay in order of id.
    order.sort_by(|a, b| scores[*a].value.total_cmp(&scores[*b].value));
    order
}

/// Which of `scores` are among the `count` lowest, and a warning if that depends on a tie or on rounding.
pub fn lowest(scores: &[Score], count: usize, ids: &[String]) -> (Vec<bool>, Option<Warning>) {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let by_score = |a: &usize, b: &usize| scores[*a].value.total_cmp(&scores[*b].value).then(a.cmp(b));
    let mut kept = vec![false; scores.len()];
    if count >= scores.len() {
        kept.fill(true);
        return (kept, None);
    }
    let (low, first, _) = order.select_nth_unstable_by(count, by_score);
    low.iter().for_each(|i| kept[*i] = true);
    let last = low.iter().max_by(|a, b| by_score(a, b));
    (kept, last.and_then(|last| close_call(scores, *last, *first, ids)))
}

/// The warning about a choice between two scores that are equal or that rounding could swap.
fn close_call(scores: &[Score], kept: usize, dropped: usize, ids: &[String]) -> Option<Warning> {
    let (a, b) = (scores[kept], scores[dropped]);
    let (kept, dropped) = (&ids[kept], &ids[dropped]);
    if a.value == b.value {
        let text = format!("`{kept}` and `{dropped}` score the same, {}: the lower id is kept", a.value);
        return Some(text.into());
    }
    (b.value - a.value <= a.error + b.error).then(|| {
        let bound = a.error + b.error;
        Warning::close_call(format!(
            "`{kept}` is kept before `{dropped}` by {:e}, less than the numeric bound {bound:e}",
            b.value - a.value
        ))
    })
}

/// The median; of an even number of values the midpoint of the middle two, of no values zero.
pub fn median(mut values: Vec<f64>) -> f64 {
    let n = values.len();
    if n == 0 {
        return 0.0;
    }
    let (low, high, _) = values.select_nth_unstable_by(n / 2, f64::total_cmp);
    let high = *high;
    let low = if n % 2 == 1 { high } else { low.iter().copied().max_by(f64::total_cmp).unwrap_or(high) };
    low * 0.5 + high * 0.5
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("c{i}")).collect()
    }

    #[test]
    fn ties_go_to_the_lowest_id_with_a_warning() {
        let scores = [3.0, 1.0, 1.0, 2.0].map(Score::exact);
        let (kept, warning) = lowest(&scores, 1, &ids(4));
        assert_eq!(kept, [false, true, false, false]);
        assert!(warning.unwrap().text.contains("`c1` and `c2` score the same"));
        assert_eq!(lowest(&scores, 2, &ids(4)), (vec![false, true, true, false], None));
        assert_eq!(lowest(&scores, 4, &ids(4)).1, None);
    }

    #[test]
    fn a_gap_below_the_bound_gives_a_warning() {
        let scores = [Score { value: 1.0, error: 0.1 }, Score { value: 1.15, error: 0.1 }];
        assert!(lowest(&scores, 1, &ids(2)).1.unwrap().text.contains("less than the numeric bound"));
    }
}
