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

    /// Seconds since 1970.
    pub fn unix_s(&self) -> u64 {
        self.unix_ms / 1000
    }
}

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
    fn across_a_start_the_wall_clock_decides_and_never_runs_backwards() {
        let opened = at("a", 1_000_000, 5_000_000);
        assert_eq!(at("b", 10, 5_060_000).since(&opened), 60.0);
        assert_eq!(at("b", 10, 4_000_000).since(&opened), 0.0);
    }
}
