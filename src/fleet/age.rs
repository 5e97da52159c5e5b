//! A length of time as an operator writes it: `3d`, `12h`, `90m`.

use jiff::{Span, SpanRelativeTo};
use std::fmt;
use std::str::FromStr;

/// A length of time above zero. A day has 24 hours.
#[derive(Clone, PartialEq, Debug)]
pub struct Age {
    seconds: i64,
    text: String,
}

impl Age {
    /// Its seconds.
    pub fn seconds(&self) -> i64 {
        self.seconds
    }
}

impl FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let span = text.parse::<Span>().ok();
        let duration = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
        let seconds = duration.map(|duration| duration.as_secs()).filter(|seconds| *seconds > 0);
        let bad = || format!("found `{text}`, expected a length of time such as 3d, 12h or 90m");
        Ok(Self { seconds: seconds.ok_or_else(bad)?, text: text.to_owned() })
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_24_hours() {
        let seconds = |text: &str| text.parse::<Age>().map(|age| age.seconds());
        assert_eq!(seconds("3d"), Ok(259_200));
        assert_eq!(seconds("1d12h"), Ok(129_600));
        assert_eq!(seconds("90m"), Ok(5400));
        for bad in ["", "0s", "-3d", "3", "three days"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
