//! The rounding of a value between two codes of a grid: the setting `rounding`.

use crate::kernels::block_quantize::{Draw, Rounding};
use crate::kernels::lanes::Isa;
use crate::kernels::philox::random_words;
use crate::settings::{Settings, SpecError};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// The purpose of the random words of rounding; every purpose draws other words.
const PURPOSE: u32 = 1;

/// The rounding of a value between two codes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Round {
    /// To the nearest code, ties to even.
    Nearest,
    /// To the upper code with a probability that makes the mean right.
    Stochastic,
}

impl FromStr for Round {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "nearest" => Ok(Self::Nearest),
            "stochastic" => Ok(Self::Stochastic),
            _ => Err(format!("found `{text}`, expected nearest or stochastic")),
        }
    }
}

impl fmt::Display for Round {
    /// The text after the other settings of a codec.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nearest => "",
            Self::Stochastic => ",rounding=stochastic",
        })
    }
}

impl Round {
    pub(crate) fn parse(settings: &mut Settings) -> Result<Self, SpecError> {
        Ok(settings.take("rounding")?.unwrap_or(Self::Nearest))
    }

    /// The draw of a GPU for values from `start` on: the same random words as on the CPU.
    pub(crate) fn draw(self, seed: u64, start: usize) -> Draw {
        match self {
            Self::Nearest => Draw::Nearest,
            Self::Stochastic => Draw::Stochastic { seed, purpose: PURPOSE, first: start as u64 },
        }
    }

    /// The random words for `len` values from `start` on; `None` for the nearest code.
    pub(crate) fn words(self, isa: Isa, seed: u64, start: usize, len: usize) -> Option<Vec<u32>> {
        (self == Self::Stochastic).then(|| {
            let mut words = vec![0; len];
            random_words(isa, seed, PURPOSE, start as u64, &mut words);
            words
        })
    }
}

/// The rounding of a piece of a run that has these random words.
pub(crate) fn rounding(words: Option<&Vec<u32>>, piece: Range<usize>) -> Rounding<'_> {
    words.map_or(Rounding::Nearest, |words| Rounding::Stochastic(&words[piece]))
}
