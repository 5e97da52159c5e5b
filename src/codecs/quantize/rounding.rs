//! How codecs on grids round a value between two codes: `rounding=nearest` or `rounding=stochastic`.

use crate::kernels::block_quantize::{Draw, Rounding};
use crate::kernels::lanes::Isa;
use crate::kernels::philox::random_words;
use crate::settings::{Settings, SpecError};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// What rounding draws its random words for, so that nothing else draws the same.
const PURPOSE: u32 = 1;

/// What becomes of values between two codes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Round {
    /// The nearest, half to even.
    Nearest,
    /// The upper one as often as the value is near to it: right on average.
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
    /// As it stands behind the other settings of a codec.
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

    /// What a device draws for values from `start` on, the same words.
    pub(crate) fn draw(self, seed: u64, start: usize) -> Draw {
        match self {
            Self::Nearest => Draw::Nearest,
            Self::Stochastic => Draw::Stochastic { seed, purpose: PURPOSE, first: start as u64 },
        }
    }

    /// Random words for `len` values from `start` on, if it takes any.
    pub(crate) fn words(self, isa: Isa, seed: u64, start: usize, len: usize) -> Option<Vec<u32>> {
        (self == Self::Stochastic).then(|| {
            let mut words = vec![0; len];
            random_words(isa, seed, PURPOSE, start as u64, &mut words);
            words
        })
    }
}

/// How the kernels are to round a piece of a run that has these random words.
pub(crate) fn rounding(words: Option<&Vec<u32>>, piece: Range<usize>) -> Rounding<'_> {
    words.map_or(Rounding::Nearest, |words| Rounding::Stochastic(&words[piece]))
}
