//! The sensitivity of C: the distance that one client moves C x.
//!
//! C is Toeplitz, and its first column is not negative and does not increase.
//!
//! Let a client take part in rounds p_0 < p_1 < ..., each at least b after the previous one, with integers of norm B or
//! less. Then C x moves by at most B times the norm of the sum of the columns at these rounds, because columns have no
//! negative entries (Choquette-Choo et al. 2023, theorem 2). The rounds 0, b, 2b, ... are the worst (Kalinin and
//! Lampert 2024, theorem 2). Proof: the product of the columns i and i + g is the sum over s < T - i - g of c_(s+g)
//! c_s. It falls as g grows, because c falls, and as i grows, because there are fewer terms. And p_j is at least j b,
//! and p_l - p_j at least (l - j) b. So every product in the square of that norm is at most its value for 0, b, 2b,
//! ....

use super::Schedule;

/// The norm of the sum of the columns 0, b, 2b, ..., for this first column. Exact in integers, then rounded up.
pub fn of_columns(column: &[i32], schedule: &Schedule) -> f64 {
    let rounds = schedule.rounds as usize;
    let starts = (0..schedule.most()).map(|turn| (turn * schedule.separation) as usize);
    let end = starts.clone().next_back().map_or(0, |last| rounds.min(last + column.len()));
    let mut sum = vec![0u64; end];
    for start in starts {
        for (sum, entry) in sum[start..].iter_mut().zip(column) {
            *sum += u64::from(entry.unsigned_abs());
        }
    }
    let squares: u128 = sum.iter().map(|entry| u128::from(*entry) * u128::from(*entry)).sum();
    // The conversion and the root may each round down.
    (squares as f64).next_up().sqrt().next_up()
}

/// The largest `cost` over all sets of rounds that the schedule allows, counted from zero.
#[cfg(test)]
pub(super) fn worst_by_trial(schedule: &Schedule, mut cost: impl FnMut(&[usize]) -> f64) -> f64 {
    fn extend(
        schedule: &Schedule,
        turns: &mut Vec<usize>,
        worst: &mut f64,
        cost: &mut impl FnMut(&[usize]) -> f64,
    ) {
        *worst = worst.max(cost(turns));
        let first = turns.last().map_or(0, |last| last + schedule.separation as usize);
        if turns.len() as u64 == schedule.participations {
            return;
        }
        for next in first..schedule.rounds as usize {
            turns.push(next);
            extend(schedule, turns, worst, cost);
            turns.pop();
        }
    }
    let mut worst = 0.0;
    extend(schedule, &mut Vec::new(), &mut worst, &mut cost);
    worst
}

/// Schedules small enough to try all sets of rounds.
#[cfg(test)]
pub(super) fn small_schedules() -> impl Iterator<Item = Schedule> {
    let all = (1..=9).flat_map(|rounds| (1..=4).map(move |participations| (rounds, participations)));
    all.flat_map(|(rounds, participations)| {
        (1..=5).map(move |separation| Schedule { rounds, participations, separation })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privacy::correlated::banded::Banded;

    /// The norm of the sum of columns at these rounds, from the full matrix.
    fn norm(column: &[i32], rounds: usize, turns: &[usize]) -> f64 {
        let entry = |row: usize, turn: usize| {
            if row < turn { 0.0 } else { column.get(row - turn).map_or(0.0, |entry| f64::from(*entry)) }
        };
        let row = |row: usize| turns.iter().map(|turn| entry(row, *turn)).sum::<f64>();
        (0..rounds).map(|at| row(at).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn no_set_of_rounds_moves_more() {
        for schedule in small_schedules() {
            for column in [&[256][..], &[256, 128], &[9, 9, 9, 9], &[5, 5, 2, 2, 1, 0, 0]] {
                let worst = worst_by_trial(&schedule, |turns| norm(column, schedule.rounds as usize, turns));
                let found = of_columns(column, &schedule);
                assert!(found >= worst && found < worst * (1.0 + 1e-12), "{schedule:?}: {found}, {worst}");
            }
        }
    }

    /// The negative control: if a later entry is larger, other rounds are worse.
    #[test]
    fn a_growing_column_has_other_worst_rounds() {
        let schedule = Schedule { rounds: 6, participations: 2, separation: 3 };
        let column = [1, 0, 0, 0, 9, 0];
        let worst = worst_by_trial(&schedule, |turns| norm(&column, 6, turns));
        assert!(of_columns(&column, &schedule) < 0.95 * worst);
    }

    #[test]
    fn a_client_that_returns_after_the_bands_moves_separate_rows() {
        let once = Schedule { rounds: 1000, participations: 1, separation: 1 };
        let often = Schedule { rounds: 1000, participations: 10, separation: 100 };
        let banded = Banded::new(100);
        let ratio = banded.sensitivity(&often) / banded.sensitivity(&once);
        assert!((ratio - 10f64.sqrt()).abs() < 1e-12);
        assert!(Banded::new(200).sensitivity(&often) > 10f64.sqrt() * Banded::new(200).sensitivity(&once));
        let independent = Banded::new(1).sensitivity(&often);
        assert!((independent - 10f64.sqrt()).abs() < 1e-12);
    }
}
