//! A moment on two clocks, so that a change of the wall clock does not open or close a round.

use serde::{Deserialize, Serialize};

/// A moment, on the wall clock and on the clock that counts from the start of the machine.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Moment {
    /// Milliseconds since 1970, on the wall clock.
    pub unix_ms: u64,
    /// The name of this start of the machine.
    pub boot: String,
    /// Milliseconds since the machine started; a sleep counts.
    pub up_ms: u64,
}

impl Moment {
    /// Seconds from an earlier moment to this one. Within one start of the machine the wall clock has no say. Across a
    /// start it decides, and time that runs backwards counts as none.
    pub fn since(&self, earlier: &Self) -> f64 {
        let ms = if self.boot == earlier.boot {
            self.up_ms.saturating_sub(earlier.up_ms)
        } else {
            self.unix_ms.saturating_sub(earlier.unix_ms)
        };
        ms as f64 / 1000.0
    }

    /// Whether the wall clock was set between an earlier moment and this one. Across a start of the machine it cannot be
    /// known, and the answer is no.
    fn was_set_since(&self, earlier: &Self) -> bool {
        let wall = i128::from(self.unix_ms) - i128::from(earlier.unix_ms);
        let up = i128::from(self.up_ms) - i128::from(earlier.up_ms);
        self.boot == earlier.boot && (wall - up).abs() > CLOCK_STEP_MS
    }

    /// Seconds from an opening to the arrival of a file that changed last at `changed_ms` on the wall clock, as a look at
    /// this moment finds it. Never before the opening or after this moment.
    ///
    /// If the wall clock was set in between, the arrival cannot be known: it then counts as no later than `deadline_s`.
    pub fn arrival_s(&self, opened: &Self, changed_ms: u64, deadline_s: f64) -> f64 {
        let elapsed = self.since(opened);
        let age = self.unix_ms.saturating_sub(changed_ms) as f64 / 1000.0;
        let after = (elapsed - age).max(0.0);
        if self.was_set_since(opened) { after.min(deadline_s) } else { after }
    }

    /// Seconds since 1970.
    pub fn unix_s(&self) -> u64 {
        self.unix_ms / 1000
    }
}

/// Difference of two clocks from which on the wall clock was set: more than a leap second.
const CLOCK_STEP_MS: i128 = 2000;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(boot: &str, up_ms: u64, unix_ms: u64) -> Moment {
        Moment { unix_ms, boot: boot.to_owned(), up_ms }
    }

    #[test]
    fn the_wall_clock_has_no_say_within_one_start_of_the_machine() {
        let opened = at("a", 1_000, 5_000_000);
        assert_eq!(at("a", 4_500, 0).since(&opened), 3.5);
        assert_eq!(at("a", 4_500, 9_000_000_000).since(&opened), 3.5);
    }

    #[test]
    fn an_update_arrived_when_its_file_changed_and_not_when_a_run_saw_it() {
        let (opened, now) = (at("a", 1_000, 5_000_000), at("a", 601_000, 5_600_000));
        assert_eq!(now.arrival_s(&opened, 5_040_000, 300.0), 40.0);
        assert_eq!(now.arrival_s(&opened, 5_400_000, 300.0), 400.0, "after the deadline");
        assert_eq!(now.arrival_s(&opened, 4_000_000, 300.0), 0.0, "never before the opening");
        assert_eq!(now.arrival_s(&opened, 9_000_000, 300.0), 600.0, "never after the look");
        let after_start = at("b", 10, 5_600_000);
        assert_eq!(after_start.arrival_s(&opened, 5_040_000, 300.0), 40.0, "across a start of the machine");
    }

    #[test]
    fn an_arrival_that_the_clock_cannot_tell_counts_as_on_time() {
        let opened = at("a", 1_000, 5_000_000);
        let set_back = at("a", 601_000, 1_600_000);
        assert_eq!(set_back.arrival_s(&opened, 5_040_000, 300.0), 300.0);
        assert_eq!(set_back.arrival_s(&opened, 1_599_000, 900.0), 599.0, "no later than it can have come");
        let set_forward = at("a", 601_000, 9_600_000);
        assert_eq!(set_forward.arrival_s(&opened, 5_040_000, 300.0), 0.0);
        let slewed = at("a", 601_000, 5_601_500);
        assert_eq!(slewed.arrival_s(&opened, 5_601_500, 300.0), 600.0, "a leap second sets no clock");
    }

    #[test]
    fn across_a_start_the_wall_clock_decides_and_never_runs_backwards() {
        let opened = at("a", 1_000_000, 5_000_000);
        assert_eq!(at("b", 10, 5_060_000).since(&opened), 60.0);
        assert_eq!(at("b", 10, 4_000_000).since(&opened), 0.0);
    }
}
