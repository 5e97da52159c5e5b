//! The axis of a chart: linear or logarithmic, with a few round values that have labels.

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use std::ops::Range;

/// An axis: its range, and the values that have labels.
#[derive(Clone, PartialEq, Debug)]
pub struct Axis {
    range: Range<f64>,
    ticks: Vec<f64>,
    is_log: bool,
}

impl Axis {
    /// Logarithmic if all values are positive and span more than a factor of 50.
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = ends(values);
        if low > 0.0 && high > 50.0 * low { Self::log(low, high) } else { Self::linear(low, high, 0.06) }
    }

    /// An axis of whole numbers, such as those of rounds.
    pub fn whole(numbers: impl Iterator<Item = f64>) -> Self {
        let (low, high) = ends(numbers);
        let mut axis = Self::linear(low, high, 0.0);
        axis.ticks.retain(|tick| tick.fract() == 0.0);
        axis
    }

    /// `room` is what is added at both ends, as a part of the span.
    fn linear(low: f64, high: f64, room: f64) -> Self {
        let room = if high > low { room * (high - low) } else { (high.abs() * 0.1).max(0.5) };
        // Room below 0 would suggest values that cannot be.
        let range = if low >= 0.0 { (low - room).max(0.0) } else { low - room }..high + room;
        let rough = (range.end - range.start) / 4.5;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0].map(|digit| digit * power).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(10.0 * power);
        let (first, last) = ((range.start / step).ceil() as i64, (range.end / step).floor() as i64);
        Self { range, ticks: (first..=last).map(|n| n as f64 * step).collect(), is_log: false }
    }

    /// A linear axis of values.
    pub fn spanning(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = ends(values);
        Self::linear(low, high, 0.06)
    }

    fn log(low: f64, high: f64) -> Self {
        let range = low / 1.25..high * 1.25;
        let (first, last) = (range.start.log10().ceil() as i32, range.end.log10().floor() as i32);
        let stride = ((last - first) / 5 + 1).max(1) as usize;
        let ticks = (first..=last).step_by(stride).map(|power| 10f64.powi(power)).collect();
        Self { range, ticks, is_log: true }
    }

    /// A value, or its logarithm: distances on the axis are those between places.
    pub fn place(&self, value: f64) -> f64 {
        if self.is_log { value.log10() } else { value }
    }

    /// The value of a place.
    pub fn value(&self, place: f64) -> f64 {
        if self.is_log { 10f64.powf(place) } else { place }
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let (low, high) = (self.place(self.range.start), self.place(self.range.end));
        let share = ((self.place(*value) - low) / (high - low)).clamp(0.0, 1.0);
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

/// The least and the largest value, cut so that their span is finite; 0 and 1 if there is none.
fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
    if low <= high { (low.max(-1e300), high.min(1e300)) } else { (0.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_has_a_few_round_ticks_within_its_range() {
        for values in [
            [0.0, 1.0],
            [0.93, 0.931],
            [-3.0, 250.0],
            [5.0, 5.0],
            [0.0, 0.0],
            [1e-9, 1e9],
            [-f64::MAX, f64::MAX],
            [f64::MIN_POSITIVE, f64::MAX],
        ] {
            let axis = Axis::of(values.into_iter());
            let inside = |tick: &f64| axis.range.start <= *tick && *tick <= axis.range.end;
            assert!((2..=8).contains(&axis.ticks.len()), "{values:?}: {:?}", axis.ticks);
            assert!(axis.ticks.iter().all(inside), "{values:?}: {:?} {:?}", axis.ticks, axis.range);
        }
        assert_eq!(Axis::of([0.001, 10.0].into_iter()).ticks, [0.001, 0.01, 0.1, 1.0, 10.0]);
    }
}
