//! Numbers, sizes, durations and times as the page shows them: three digits and a unit.

use jiff::Timestamp;

/// The unit of a figure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unit {
    /// None.
    Plain,
    /// Bytes, shown with decimal prefixes.
    Bytes,
    /// Seconds, shown up to hours.
    Seconds,
    /// A part of one, shown in percent.
    Share,
}

impl Unit {
    /// A value with this unit.
    pub(super) fn shown(self, value: f64) -> String {
        let size = value.abs();
        match self {
            Self::Plain if size >= 1e7 || size > 0.0 && size < 1e-4 => short_exponent(value),
            Self::Plain => digits(value),
            Self::Share => format!("{} %", digits(100.0 * value)),
            Self::Bytes => scaled(value, &[(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")]),
            Self::Seconds => {
                let units =
                    [(86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs")];
                // 100 s, not 1.67 min.
                scaled(value, if size < 120.0 { &units[3..] } else { &units })
            }
        }
    }
}

/// The value in the largest unit that it reaches.
fn scaled(value: f64, units: &[(f64, &str)]) -> String {
    let unit = units.iter().find(|unit| value.abs() >= unit.0).or(units.last());
    unit.filter(|_| value != 0.0)
        .map_or_else(|| "0".to_owned(), |(size, name)| format!("{} {name}", digits(value / size)))
}

/// Three digits, without zeros at the end of the fraction.
fn digits(value: f64) -> String {
    let places = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        size if size >= 0.1 => 3,
        _ => 4,
    };
    let text = format!("{value:.places$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".to_owned() } else { text.replace('-', "−") }
}

fn short_exponent(value: f64) -> String {
    let text = format!("{value:.1e}");
    text.replace(".0e", "e").replace('-', "−")
}

/// A time, in seconds since 1970, as date and minute of UTC.
pub(super) fn time(seconds: f64) -> String {
    let time = Timestamp::from_second(seconds as i64);
    time.map_or_else(|_| "unknown time".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_unit() {
        let cases = [
            (Unit::Plain, 0.0, "0"),
            (Unit::Plain, -0.00001, "−1e−5"),
            (Unit::Plain, 0.00054, "0.0005"),
            (Unit::Plain, 0.03142, "0.0314"),
            (Unit::Plain, 0.9375, "0.938"),
            (Unit::Plain, 42.0, "42"),
            (Unit::Plain, 123_456.0, "123456"),
            (Unit::Plain, 2e9, "2e9"),
            (Unit::Share, 0.125, "12.5 %"),
            (Unit::Bytes, 0.0, "0"),
            (Unit::Bytes, 999.0, "999 B"),
            (Unit::Bytes, 1_250_000.0, "1.25 MB"),
            (Unit::Seconds, 0.0025, "2.5 ms"),
            (Unit::Seconds, 100.0, "100 s"),
            (Unit::Seconds, 300.0, "5 min"),
            (Unit::Seconds, 5400.0, "1.5 h"),
        ];
        for (unit, value, text) in cases {
            assert_eq!(unit.shown(value), text);
        }
    }

    #[test]
    fn times_are_in_utc() {
        assert_eq!(time(1_795_993_256.9), "2026-11-29 23:00 UTC");
        assert_eq!(time(1e300), "unknown time");
    }
}
