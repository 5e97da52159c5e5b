//! Releases as events: the tree of dp_accounting's `DpEvent`, under the same names.
//!
//! Ledgers keep events rather than epsilons, so that a better accountant can be used later. The JSON of an event is
//! that of the library's `to_named_tuple`: `{"class_name": "GaussianDpEvent", "module_name": "dp_accounting.dp_event",
//! "noise_multiplier": 1.1}`. The module's name may be left out. Unknown events and fields are refused, because their
//! cost is not known.

use serde::{Deserialize, Serialize};

/// The neighbouring data sets: two data sets that a release must not tell apart.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Adjacency {
    /// With and without one client.
    #[default]
    AddOrRemoveOne,
    /// One client sends another update: a sum of clipped updates moves by up to twice the clip bound.
    ReplaceOne,
    /// One client sends zeros.
    ReplaceSpecial,
}

impl Adjacency {
    /// Largest distance between the sums of clipped updates of two neighbours, in clip bounds.
    pub fn sensitivity(self) -> f64 {
        match self {
            Self::AddOrRemoveOne | Self::ReplaceSpecial => 1.0,
            Self::ReplaceOne => 2.0,
        }
    }
}

impl std::fmt::Display for Adjacency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::AddOrRemoveOne => "add-or-remove-one",
            Self::ReplaceOne => "replace-one",
            Self::ReplaceSpecial => "replace-special",
        })
    }
}

/// Why numbers are not an event.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum EventError {
    /// A number is outside its range.
    #[error("{what}: found {found}, expected {expected}")]
    OutOfRange {
        /// Name of the number.
        what: &'static str,
        /// Its value.
        found: f64,
        /// Its range.
        expected: &'static str,
    },
    /// A sample that is larger than its population.
    #[error("sample_size: found {found}, expected at most the source_dataset_size {of}")]
    SampleTooLarge {
        /// The size of the sample.
        found: u64,
        /// The size of the population.
        of: u64,
    },
}

/// A standard deviation of noise, in clip bounds. Finite and not negative; 0 means no noise.
#[derive(Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize, Debug)]
#[serde(try_from = "f64", into = "f64")]
pub struct NoiseMultiplier(f64);

/// A probability, from 0 to 1.
#[derive(Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize, Debug)]
#[serde(try_from = "f64", into = "f64")]
pub struct Probability(f64);

/// A parameter of zero-concentrated differential privacy, finite and not negative.
#[derive(Clone, Copy, PartialEq, PartialOrd, Default, Serialize, Deserialize, Debug)]
#[serde(try_from = "f64", into = "f64")]
pub struct Concentration(f64);

/// Defines a number type that holds only numbers in a range.
macro_rules! ranged {
    ($name:ident, $what:literal, $expected:literal, $range:expr) => {
        impl $name {
            /// The number.
            pub fn get(self) -> f64 {
                self.0
            }
        }

        impl TryFrom<f64> for $name {
            type Error = EventError;

            fn try_from(found: f64) -> Result<Self, EventError> {
                match found.is_finite() && $range.contains(&found) {
                    // Adding zero turns -0.0 into 0.0.
                    true => Ok(Self(found + 0.0)),
                    false => Err(EventError::OutOfRange { what: $what, found, expected: $expected }),
                }
            }
        }

        impl From<$name> for f64 {
            fn from(number: $name) -> f64 {
                number.0
            }
        }
    };
}

ranged!(NoiseMultiplier, "noise_multiplier", "a finite number that is not negative", (0.0..));
ranged!(Probability, "sampling_probability", "a number from 0 to 1", (0.0..=1.0));
ranged!(Concentration, "rho or xi", "a finite number that is not negative", (0.0..));

/// The module that defines an event's class; dp_accounting reads it from the JSON.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub enum Module {
    /// The library's standard events.
    #[default]
    #[serde(rename = "dp_accounting.dp_event")]
    Standard,
}

/// The steps of a tree aggregation, with one tree or several.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(untagged)]
pub enum StepCounts {
    /// The steps of one tree.
    One(u64),
    /// The steps of each tree. No client takes part in two trees.
    Each(Vec<u64>),
}

impl StepCounts {
    /// The steps of the longest tree.
    pub fn longest(&self) -> u64 {
        match self {
            Self::One(steps) => *steps,
            Self::Each(steps) => steps.iter().copied().max().unwrap_or(0),
        }
    }
}

/// One release or several.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(tag = "class_name", deny_unknown_fields)]
pub enum Event {
    /// Nothing was released.
    #[serde(rename = "NoOpDpEvent")]
    NoOp {
        /// The module that defines the class.
        #[serde(default)]
        module_name: Module,
    },
    /// A release without protection: epsilon is infinite.
    #[serde(rename = "NonPrivateDpEvent")]
    NonPrivate {
        /// The module that defines the class.
        #[serde(default)]
        module_name: Module,
    },
    /// A sum with Gaussian noise.
    #[serde(rename = "GaussianDpEvent")]
    Gaussian {
        /// The module that defines the class.
        #[serde(default)]
        module_name: Module,
        /// The noise's standard deviation, in clip bounds.
        noise_multiplier: NoiseMultiplier,
    },
    /// A release from clients that were drawn independently.
    #[serde(rename = "PoissonSampledDpEvent")]
    PoissonSampled {
        /// The module that defines the class.
        #[serde(default)]
        module_name: Module,
        /// Probability that a client is drawn.
        sampling_probability: Probability,
        /// The release from the drawn clients.
        event: Box<Event>,
    },
    /// A release from a fixed number of clients, drawn without replacement.
    #[serde(rename = "SampledWithoutReplacementDpEvent")]
    SampledWithoutReplacement {
        /// The module that defines the class.
        #[serde(default)]
        module_name: Module,
        /// Number of clients in the population.
        source_dataset_size: u64,
        /// Number of drawn clients.
        sample_size: u64,
        /// The release from the drawn clients.
        event: Box<Event>,
    },
    /// The same release, repeated.
    #[serde(rename = "SelfComposedDpEvent")]
    SelfComposed {
        /// The module that defines the class.
        #[serde(default)]
        module_name: Module,
        /// The release.
        event: Box<Event>,
        /// Number of repetitions.
        count: u64,
    },
    /// Several releases.
    #[serde(rename = "ComposedDpEvent")]
    Composed {
        /// The module that defines the class.
        #[serde(default)]
        module_name: Module,
        /// The releases, in any order.
        events: Vec<Event>,
    },
    /// Running sums with the noise of a binary tree. Each client takes part once.
    #[serde(rename = "SingleEpochTreeAggregationDpEvent")]
    SingleEpochTreeAggregation {
        /// The module that defines the class.
        #[serde(default)]
        module_name: Module,
        /// The noise's standard deviation at each node, in clip bounds.
        noise_multiplier: NoiseMultiplier,
        /// Steps of the tree, or of each tree.
        step_counts: StepCounts,
    },
    /// A release that satisfies zero-concentrated differential privacy.
    #[serde(rename = "ZCDpEvent")]
    ZeroConcentrated {
        /// The module that defines the class.
        #[serde(default)]
        module_name: Module,
        /// Slope of its Renyi divergences over the order.
        rho: Concentration,
        /// Their value at order 0.
        #[serde(default)]
        xi: Concentration,
    },
}

impl Event {
    /// A sum with Gaussian noise, `noise_multiplier` times as wide as the clip bound.
    ///
    /// # Errors
    ///
    /// When the multiplier is negative or not finite.
    pub fn gaussian(noise_multiplier: f64) -> Result<Self, EventError> {
        let noise_multiplier = NoiseMultiplier::try_from(noise_multiplier)?;
        Ok(Self::Gaussian { module_name: Module::Standard, noise_multiplier })
    }

    /// This release from clients that are drawn independently, with this probability.
    ///
    /// # Errors
    ///
    /// When the number is not a probability.
    pub fn poisson_sampled(self, sampling_probability: f64) -> Result<Self, EventError> {
        let sampling_probability = Probability::try_from(sampling_probability)?;
        Ok(Self::PoissonSampled {
            module_name: Module::Standard,
            sampling_probability,
            event: Box::new(self),
        })
    }

    /// This release from `sample_size` of `source_dataset_size` clients.
    ///
    /// # Errors
    ///
    /// When the sample is larger than the population.
    pub fn sampled_without_replacement(
        self,
        source_dataset_size: u64,
        sample_size: u64,
    ) -> Result<Self, EventError> {
        match sample_size <= source_dataset_size {
            true => Ok(Self::SampledWithoutReplacement {
                module_name: Module::Standard,
                source_dataset_size,
                sample_size,
                event: Box::new(self),
            }),
            false => Err(EventError::SampleTooLarge { found: sample_size, of: source_dataset_size }),
        }
    }

    /// This release, `count` times.
    #[must_use]
    pub fn times(self, count: u64) -> Self {
        Self::SelfComposed { module_name: Module::Standard, event: Box::new(self), count }
    }

    /// All these releases together.
    pub fn composed(events: Vec<Self>) -> Self {
        Self::Composed { module_name: Module::Standard, events }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zero_concentrated(rho: f64) -> Event {
        let (rho, xi) = (Concentration::try_from(rho).unwrap(), Concentration::default());
        Event::ZeroConcentrated { module_name: Module::Standard, rho, xi }
    }

    #[test]
    fn an_event_is_written_as_the_library_shows_it() {
        let event = Event::gaussian(1.1).unwrap().poisson_sampled(0.01).unwrap().times(1000);
        let text = serde_json::to_string(&event).unwrap();
        let module = r#""module_name":"dp_accounting.dp_event""#;
        let gaussian = format!(r#"{{"class_name":"GaussianDpEvent",{module},"noise_multiplier":1.1}}"#);
        let sampled = format!(
            r#"{{"class_name":"PoissonSampledDpEvent",{module},"sampling_probability":0.01,"event":{gaussian}}}"#
        );
        let composed =
            format!(r#"{{"class_name":"SelfComposedDpEvent",{module},"event":{sampled},"count":1000}}"#);
        assert_eq!(text, composed);
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }

    #[test]
    fn every_kind_is_read_back() {
        let gaussian = || Event::gaussian(2.0).unwrap();
        let events = Event::composed(vec![
            Event::NoOp { module_name: Module::Standard },
            Event::NonPrivate { module_name: Module::Standard },
            gaussian().sampled_without_replacement(100, 10).unwrap(),
            Event::SingleEpochTreeAggregation {
                module_name: Module::Standard,
                noise_multiplier: NoiseMultiplier::try_from(8.83).unwrap(),
                step_counts: StepCounts::One(1600),
            },
            zero_concentrated(0.81),
        ]);
        let text = serde_json::to_string_pretty(&events).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), events);
    }

    #[test]
    fn the_module_may_be_left_out() {
        let text = r#"{"class_name":"ZCDpEvent","rho":0.5}"#;
        assert_eq!(serde_json::from_str::<Event>(text).unwrap(), zero_concentrated(0.5));
        let trees =
            r#"{"class_name":"SingleEpochTreeAggregationDpEvent","noise_multiplier":1,"step_counts":[3,7]}"#;
        let Event::SingleEpochTreeAggregation { step_counts, .. } = serde_json::from_str(trees).unwrap()
        else {
            panic!("not a tree")
        };
        assert_eq!(step_counts.longest(), 7);
    }

    #[test]
    fn unknown_events_and_numbers_out_of_range_are_refused() {
        for text in [
            r#"{"class_name":"LaplaceDpEvent","noise_multiplier":1.0}"#,
            r#"{"class_name":"GaussianDpEvent","noise_multiplier":-1.0}"#,
            r#"{"class_name":"GaussianDpEvent","noise_multiplier":1e999}"#,
            r#"{"class_name":"GaussianDpEvent","noise_multiplier":null}"#,
            r#"{"class_name":"GaussianDpEvent"}"#,
            r#"{"class_name":"GaussianDpEvent","noise_multiplier":1.0,"clip":2.0}"#,
            r#"{"class_name":"GaussianDpEvent","module_name":"mine","noise_multiplier":1.0}"#,
            r#"{"class_name":"ZCDpEvent","rho":-0.5}"#,
            r#"{"class_name":"SelfComposedDpEvent","event":{"class_name":"NoOpDpEvent"},"count":-1}"#,
            r#"{"class_name":"PoissonSampledDpEvent","sampling_probability":1.1,"event":{"class_name":"NoOpDpEvent"}}"#,
        ] {
            assert!(serde_json::from_str::<Event>(text).is_err(), "{text}");
        }
        assert!(Event::gaussian(f64::NAN).is_err());
        assert!(Event::gaussian(f64::INFINITY).is_err());
        assert!(Event::gaussian(1.0).unwrap().poisson_sampled(-1e-9).is_err());
        assert!(Event::gaussian(1.0).unwrap().sampled_without_replacement(3, 4).is_err());
    }
}
