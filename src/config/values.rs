//! Checks of values that have the right type: what was found, and what was expected.

use crate::config::duration::Friendly;
use jiff::SignedDuration;
use std::fmt::Display;

/// A value that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct BadValue {
    /// The key: `section.key`.
    pub(super) key: String,
    /// What was found, and what was expected.
    pub(super) why: String,
}

/// The bad values found so far.
#[derive(Default, Debug)]
pub(super) struct Values(pub(super) Vec<BadValue>);

/// The bad values of a section.
pub(super) struct SectionValues<'v> {
    section: &'static str,
    found: &'v mut Vec<BadValue>,
}

impl Values {
    pub(super) fn of(&mut self, section: &'static str) -> SectionValues<'_> {
        SectionValues { section, found: &mut self.0 }
    }
}

impl SectionValues<'_> {
    fn add(&mut self, key: &str, why: String) {
        self.found.push(BadValue { key: format!("{}.{key}", self.section), why });
    }

    /// Notes a value that is not as expected.
    pub(super) fn check(&mut self, key: &str, is_fine: bool, found: impl Display, expected: impl Display) {
        if !is_fine {
            self.add(key, format!("found {found}, expected {expected}"));
        }
    }

    pub(super) fn count(&mut self, key: &str, found: u64) {
        self.check(key, found > 0, found, "a count above 0");
    }

    pub(super) fn positive(&mut self, key: &str, found: f64) {
        self.check(key, found.is_finite() && found > 0.0, found, "a finite number above 0");
    }

    pub(super) fn not_negative(&mut self, key: &str, found: f64) {
        self.check(key, found.is_finite() && found >= 0.0, found, "a finite number that is not negative");
    }

    pub(super) fn positive_share(&mut self, key: &str, found: f64) {
        self.check(key, found > 0.0 && found <= 1.0, found, "a share above 0 and at most 1");
    }

    pub(super) fn positive_time(&mut self, key: &str, found: SignedDuration) {
        self.check(key, found.is_positive(), Friendly(found), "a time above 0");
    }

    /// Notes a text that names no rule, step, strategy or codec.
    pub(super) fn parsed<T, E: Display>(&mut self, key: &str, found: &str, parsed: Result<T, E>) {
        if let Err(why) = parsed {
            self.add(key, format!("`{found}` is not understood: {why}"));
        }
    }

    /// Notes bounds that are not as expected, or the wrong way round.
    pub(super) fn bounds<T: Display + PartialOrd>(
        &mut self,
        key: &str,
        bounds: Option<[T; 2]>,
        expected: &str,
        is_fine: impl Fn(&T) -> bool,
    ) {
        let Some([least, most]) = bounds else { return };
        for bound in [&least, &most] {
            self.check(key, is_fine(bound), bound, expected);
        }
        self.check(key, least <= most, format!("[{least}, {most}]"), "the lower bound first");
    }
}
