//! The limits that a file must meet, and its cost.

/// The most bytes and the largest error of a file.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Goal {
    /// Bytes of the file, at most.
    pub(crate) bytes: Option<u64>,
    /// NMSE, at most.
    pub(crate) nmse: Option<f64>,
}

/// The bytes and the error of a file.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Cost {
    /// Bytes of the file.
    pub(crate) bytes: u64,
    /// NMSE.
    pub(crate) nmse: f64,
}

impl Goal {
    /// Whether a file meets the goal.
    pub(crate) fn is_met(&self, cost: &Cost) -> bool {
        self.bytes.is_none_or(|most| cost.bytes <= most) && self.nmse.is_none_or(|most| cost.nmse <= most)
    }

    /// Whether the goal limits the bytes, and a file keeps that limit.
    fn fits(&self, cost: &Cost) -> bool {
        self.bytes.is_some_and(|most| cost.bytes <= most)
    }

    /// The logarithm of a file's cost over the goal: above zero if the file misses it. A goal of bytes and error counts
    /// bytes alone, since the least error for the bytes answers both.
    pub(crate) fn excess(&self, cost: &Cost) -> f64 {
        match (self.bytes, self.nmse) {
            (Some(most), _) => (cost.bytes as f64 / most.max(1) as f64).ln(),
            (None, Some(most)) => (cost.nmse.max(f64::MIN_POSITIVE) / most.max(f64::MIN_POSITIVE)).ln(),
            (None, None) => 0.0,
        }
    }

    /// Whether one file is better than another. A file that meets the goal is better than one that misses it.
    pub(crate) fn prefers(&self, one: &Cost, other: &Cost) -> bool {
        match (self.is_met(one), self.is_met(other)) {
            (true, false) => true,
            (false, true) => false,
            (false, false) if self.fits(one) && self.fits(other) => one.nmse < other.nmse,
            (false, false) => self.excess(one) < self.excess(other),
            (true, true) if self.bytes.is_some() => (one.nmse, one.bytes) < (other.nmse, other.bytes),
            (true, true) => (one.bytes as f64, one.nmse) < (other.bytes as f64, other.nmse),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn cost(bytes: u64, nmse: f64) -> Cost {
        Cost { bytes, nmse }
    }

    /// The files in order for each kind of goal, the best first.
    const ORDERS: [(Option<u64>, Option<f64>, [Cost; 4]); 4] = [
        // The least error among those that fit, then the fewest bytes.
        (Some(100), None, [cost(100, 0.1), cost(90, 0.2), cost(80, 0.2 + 1e-9), cost(101, 0.01)]),
        // The fewest bytes among those that are close enough, then the least error.
        (None, Some(0.1), [cost(80, 0.1), cost(90, 0.01), cost(10, 0.2), cost(5, 0.3)]),
        // The least error among those that meet both; if none does, among those that fit.
        (Some(100), Some(0.1), [cost(100, 0.01), cost(90, 0.1), cost(95, 0.2), cost(50, 0.5)]),
        (Some(100), Some(0.1), [cost(99, 0.3), cost(10, 0.9), cost(101, 0.01), cost(200, 0.001)]),
    ];

    #[test]
    fn files_are_preferred_in_one_order() {
        for (bytes, nmse, files) in ORDERS {
            let goal = Goal { bytes, nmse };
            for (i, one) in files.iter().enumerate() {
                for (k, other) in files.iter().enumerate() {
                    assert_eq!(goal.prefers(one, other), i < k, "{goal:?}: {one:?} {other:?}");
                }
            }
        }
    }

    /// With equal errors, the one of fewer bytes; with equal bytes, the one of less error.
    #[test]
    fn ties_are_settled_by_the_other_figure() {
        let by_bytes = Goal { bytes: Some(100), nmse: None };
        assert!(by_bytes.prefers(&cost(80, 0.2), &cost(90, 0.2)));
        assert!(!by_bytes.prefers(&cost(90, 0.2), &cost(80, 0.2)));
        let by_error = Goal { bytes: None, nmse: Some(0.5) };
        assert!(by_error.prefers(&cost(80, 0.1), &cost(80, 0.2)));
        assert!(!by_error.prefers(&cost(80, 0.2), &cost(80, 0.1)));
        assert!(!by_error.prefers(&cost(80, 0.2), &cost(80, 0.2)));
    }

    #[test]
    fn a_goal_is_met_by_what_is_just_as_much() {
        let goal = Goal { bytes: Some(100), nmse: Some(0.1) };
        let met = [(100, 0.1, true), (101, 0.1, false), (100, 0.11, false), (0, 0.0, true)];
        for (bytes, nmse, is_met) in met {
            assert_eq!(goal.is_met(&cost(bytes, nmse)), is_met, "{bytes} {nmse}");
        }
    }
}
