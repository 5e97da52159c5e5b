//! The header Retry-After: how long a server wants to be left alone.

use jiff::Timestamp;
use jiff::fmt::rfc2822;

/// Seconds from `now` until the time that the header names, as seconds or as a date; `None` if it is neither.
pub fn seconds(header: &str, now: Timestamp) -> Option<f64> {
    let header = header.trim();
    if !header.is_empty() && header.bytes().all(|byte| byte.is_ascii_digit()) {
        return header.parse().ok();
    }
    let until = rfc2822::parse(header).ok()?.timestamp();
    Some((until.as_duration().as_secs_f64() - now.as_duration().as_secs_f64()).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read() {
        let now: Timestamp = "2026-08-01T12:00:00Z".parse().unwrap();
        for (header, expected) in [
            ("3", Some(3.0)),
            (" 120 ", Some(120.0)),
            ("Sat, 01 Aug 2026 12:00:30 GMT", Some(30.0)),
            ("Sat, 01 Aug 2026 11:00:00 GMT", Some(0.0)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(seconds(header, now), expected, "{header}");
        }
    }
}
