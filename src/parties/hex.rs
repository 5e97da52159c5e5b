//! Bytes that JSON files write as lower-case hexadecimal digits.

use base16ct::lower;
use serde::{Deserialize, Serialize};
use std::fmt;

/// `N` bytes. Their text is lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hex<const N: usize>(pub [u8; N]);

/// A text that is not `N` bytes.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("found `{found}`, expected {expected} lower-case hexadecimal digits")]
pub struct HexError {
    found: String,
    expected: usize,
}

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&lower::encode_string(&self.0))
    }
}

impl<const N: usize> fmt::Debug for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl<const N: usize> std::str::FromStr for Hex<N> {
    type Err = HexError;

    fn from_str(text: &str) -> Result<Self, HexError> {
        let mut bytes = [0; N];
        match lower::decode(text, &mut bytes) {
            Ok(decoded) if decoded.len() == N && text.len() == 2 * N => Ok(Self(bytes)),
            _ => Err(HexError { found: text.chars().take(80).collect(), expected: 2 * N }),
        }
    }
}

impl<const N: usize> TryFrom<String> for Hex<N> {
    type Error = HexError;

    fn try_from(text: String) -> Result<Self, HexError> {
        text.parse()
    }
}

impl<const N: usize> From<Hex<N>> for String {
    fn from(hex: Hex<N>) -> Self {
        hex.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_the_right_digits_reads_back() {
        let hex = Hex([0, 1, 0xab, 0xff]);
        assert_eq!(hex.to_string(), "0001abff");
        assert_eq!("0001abff".parse(), Ok(hex));
        for wrong in
            ["", "0001abf", "0001abff0", "0001abff00", "0001ABFF", "0001abfg", " 0001abff", "+001abff"]
        {
            assert!(wrong.parse::<Hex<4>>().is_err(), "{wrong}");
        }
    }
}
