//! A centre that moves by the mean of the updates' differences from it, each clipped to a length.
//!
//! - Paper: Karimireddy, He and Jaggi, Learning from history for Byzantine robust optimization, 2021, algorithm 2.
//! - Cost: the inner products of all updates, for any number of iterations; then a weighted sum.
//! - Tolerates: fewer than half; each moves it by at most `tau` / n in an iteration.
//! - Details: it starts at the zero delta, or at the centre that `--state` keeps between rounds. `tau=auto` takes the
//!   median of the differences' lengths, anew in each iteration.
//! - Elsewhere: ByzFL's default for `tau` is 100.

use crate::rules::geometry::Geometry;
use crate::rules::ranking::median;
use crate::rules::{Decision, Needs, Reduction, Rule, RuleError, Statistics, Verdict};
use crate::settings::{Definition, Positive, RegistryEntry, Setting, Settings, SpecError, spec_text, value};
use std::fmt;
use std::str::FromStr;

pub(super) const ENTRY: RegistryEntry<Box<dyn Rule>> = RegistryEntry {
    name: "centered-clipping",
    summary: "A centre, at first zero or the one that `--state` kept, moves by the mean of the updates' \
              differences from it, each clipped to the length `tau`.",
    settings: &[
        Setting::new("tau", "auto", "a length, or the median of the differences' lengths"),
        Setting::new("iterations", "1", "how often it moves"),
    ],
    parse: CenteredClipping::parse,
};

/// Centered clipping.
#[derive(Clone, Copy, Debug)]
pub struct CenteredClipping {
    tau: Option<Tau>,
    iterations: Option<usize>,
    definition: Definition,
}

/// The length to which differences are clipped.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Tau {
    /// The median of all lengths.
    Auto,
    Length(Positive),
}

impl FromStr for Tau {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => {
                let length = text.parse().map(Self::Length);
                length.map_err(|_: String| format!("found `{text}`, expected auto or a number above zero"))
            }
        }
    }
}

impl fmt::Display for Tau {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Length(length) => length.fmt(f),
        }
    }
}

impl CenteredClipping {
    fn parse(settings: &mut Settings) -> Result<Box<dyn Rule>, SpecError> {
        let definition = match settings.definition() {
            Definition::Byzfl => Definition::Byzfl,
            Definition::Paper | Definition::Flower | Definition::FlowerLegacy | Definition::Tff => {
                Definition::Paper
            }
        };
        Ok(Box::new(Self {
            tau: settings.take("tau")?,
            iterations: settings.take("iterations")?,
            definition,
        }))
    }

    fn tau(&self) -> Tau {
        let default = match self.definition {
            Definition::Byzfl => Tau::Length(Positive(100.0)),
            Definition::Paper | Definition::Flower | Definition::FlowerLegacy | Definition::Tff => Tau::Auto,
        };
        self.tau.unwrap_or(default)
    }

    /// The last centre, as a combination of all points.
    fn centre(&self, geometry: &Geometry) -> Vec<f64> {
        let n = geometry.clients();
        let mut centre = vec![0.0; geometry.points()];
        centre[geometry.centre().unwrap_or(geometry.origin())] = 1.0;
        for _ in 0..self.iterations.unwrap_or(1) {
            let factors = clip_factors(&geometry.squared_distances_to(&centre)[..n], self.tau());
            let stays = 1.0 - factors.iter().sum::<f64>() / n as f64;
            for coefficient in &mut centre {
                *coefficient *= stays;
            }
            for (coefficient, factor) in centre.iter_mut().zip(&factors) {
                *coefficient += factor / n as f64;
            }
        }
        centre
    }
}

/// The factor that clips each difference.
fn clip_factors(squared_lengths: &[f64], tau: Tau) -> Vec<f64> {
    let lengths: Vec<f64> = squared_lengths.iter().map(|length| length.sqrt()).collect();
    let tau = match tau {
        Tau::Auto => median(lengths.clone()),
        Tau::Length(length) => length.0,
    };
    lengths.iter().map(|length| if *length > tau { tau / length } else { 1.0 }).collect()
}

impl fmt::Display for CenteredClipping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = [("tau", value(&self.tau)), ("iterations", value(&self.iterations))];
        f.write_str(&spec_text("centered-clipping", &settings))
    }
}

impl Rule for CenteredClipping {
    fn needs(&self) -> Needs {
        Needs::Geometry
    }

    fn definition(&self) -> Definition {
        self.definition
    }

    fn keeps_centre(&self) -> bool {
        true
    }

    fn decide(&self, statistics: &Statistics) -> Result<Decision, RuleError> {
        let geometry = statistics.geometry()?;
        let n = statistics.clients();
        let centre = self.centre(geometry);
        let distances = geometry.squared_distances_to(&centre);
        let verdict = |(weight, distance): (&f64, &f64)| Verdict {
            kept: *weight > 0.0,
            weight: Some(*weight),
            score: Some(distance.sqrt()),
            reason: "its difference from the centre is clipped".to_owned(),
        };
        let verdicts = centre[..n].iter().zip(&distances).map(verdict).collect();
        let recipe = Reduction::WeightedSum {
            coefficients: centre[..n].to_vec(),
            centre: geometry.centre().map_or(0.0, |point| centre[point]),
        };
        Ok(Decision { recipe: recipe.into(), verdicts, warnings: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_longer_differences_are_clipped() {
        let two = Tau::Length(Positive(2.0));
        assert_eq!(clip_factors(&[1.0, 4.0, 16.0], two), [1.0, 1.0, 0.5]);
        // Most clients agree with the centre: the median length is zero.
        assert_eq!(clip_factors(&[0.0, 0.0, 4.0], Tau::Auto), [1.0, 1.0, 0.0]);
    }
}
