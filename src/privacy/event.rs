//! What was released, as events: the tree that dp_accounting's `DpEvent` is, in its names.
//!
//! Ledgers keep events and not epsilons, for a better accountant may come. As JSON an event is what the library's
//! `to_named_tuple` shows: `{"class_name": "GaussianDpEvent", "module_name": "dp_accounting.dp_event",
//! "noise_multiplier": 1.1}`. The module's name may be left out; an event or a field that is not known here is refused,
//! for what it costs would be guessed.

use serde::{Deserialize, Serialize};

/// Which two data sets a release must not tell apart.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Adjacency {
    /// One client is there or not.
    #[default]
    AddOrRemoveOne,
    /// One client sends something else: a sum of clipped updates moves by up to twice the clip bound.
    ReplaceOne,
    /// One client sends nothing, in its place in the order of clients.
    ReplaceSpecial,
}

impl Adjacency {
    /// How far the sum of clipped updates moves at most between neighbours, in clip bounds.
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

/// Why numbers do not make an event.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum EventError {
    /// A number is outside its range.
    #[error("{what}: found {found}, expected {expected}")]
    OutOfRange {
        /// Which number.
        what: &'static str,
        /// Its value.
        found: f64,
        /// Its range.
        expected: &'static str,
    },
    /// A sample that is larger than what it is drawn from.
    #[error("sample_size: found {found}, expected at most the source_dataset_size {of}")]
    SampleTooLarge {
        /// The size of the sample.
        found: u64,
        /// The size of what it is drawn from.
        of: u64,
    },
}

/// A standard deviation of noise, in clip bounds. Finite and not negative; zero is no noise.
#[derive(Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize, Debug)]
#[serde(try_from = "f64", into = "f64")]
pub struct NoiseMultiplier(f64);

/// A probability: from zero to one.
#[derive(Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize, Debug)]
#[serde(try_from = "f64", into = "f64")]
pub struct Probability(f64);

/// What zero-concentrated differential privacy is counted in: finite and not negative.
#[derive(Clone, Copy, PartialEq, PartialOrd, Default, Serialize, Deserialize, Debug)]
#[serde(try_from = "f64", into = "f64")]
pub struct Concentration(f64);

/// A number type that holds only what a range allows.
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
                    // Adding zero makes -0.0 an ordinary zero.
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

/// Where the classes of events are defined; said in JSON so that dp_accounting finds them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub enum Module {
    /// The library's standard events.
    #[default]
    #[serde(rename = "dp_accounting.dp_event")]
    Standard,
}

/// The steps of a tree aggregation: of one tree, or of each of several.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(untagged)]
pub enum StepCounts {
    /// One tree.
    One(u64),
    /// A tree each; no client takes part in two.
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

/// A release, or several.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(tag = "class_name", deny_unknown_fields)]
pub enum Event {
    /// Nothing was released.
    #[serde(rename = "NoOpDpEvent")]
    NoOp {
        /// Where the class is defined.
        #[serde(default)]
        module_name: Module,
    },
    /// Something was released without protection: epsilon is infinite.
    #[serde(rename = "NonPrivateDpEvent")]
    NonPrivate {
        /// Where the class is defined.
        #[serde(default)]
        module_name: Module,
    },
    /// A sum with Gaussian noise.
    #[serde(rename = "GaussianDpEvent")]
    Gaussian {
        /// Where the class is defined.
        #[serde(default)]
        module_name: Module,
        /// The noise's standard deviation, in clip bounds.
        noise_multiplier: NoiseMultiplier,
    },
    /// A release from clients that were each drawn by themselves.
    #[serde(rename = "PoissonSampledDpEvent")]
    PoissonSampled {
        /// Where the class is defined.
        #[serde(default)]
        module_name: Module,
        /// How likely a client is to be drawn.
        sampling_probability: Probability,
        /// What is released of those drawn.
        event: Box<Event>,
    },
    /// A release from a fixed number of clients, drawn without replacement.
    #[serde(rename = "SampledWithoutReplacementDpEvent")]
    SampledWithoutReplacement {
        /// Where the class is defined.
        #[serde(default)]
        module_name: Module,
        /// Clients there are.
        source_dataset_size: u64,
        /// Clients drawn.
        sample_size: u64,
        /// What is released of those drawn.
        event: Box<Event>,
    },
    /// The same release several times.
    #[serde(rename = "SelfComposedDpEvent")]
    SelfComposed {
        /// Where the class is defined.
        #[serde(default)]
        module_name: Module,
        /// The release.
        event: Box<Event>,
        /// How often.
        count: u64,
    },
    /// Several releases.
    #[serde(rename = "ComposedDpEvent")]
    Composed {
        /// Where the class is defined.
        #[serde(default)]
        module_name: Module,
        /// The releases, in any order.
        events: Vec<Event>,
    },
    /// Running sums with the noise of a binary tree, of clients that take part once.
    #[serde(rename = "SingleEpochTreeAggregationDpEvent")]
    SingleEpochTreeAggregation {
        /// Where the class is defined.
        #[serde(default)]
        module_name: Module,
        /// The noise's standard deviation at each node, in clip bounds.
        noise_multiplier: NoiseMultiplier,
        /// Steps of the tree, or of each tree.
        step_counts: StepCounts,
    },
    /// A release that is known to satisfy zero-concentrated differential privacy.
    #[serde(rename = "ZCDpEvent")]
    ZeroConcentrated {
        /// Where the class is defined.
        #[serde(default)]
        module_name: Module,
        /// The slope of its Renyi divergences in the order.
        rho: Concentration,
        /// What they are at order zero.
        #[serde(default)]
        xi: Concentration,
    },
}

impl Event {
    /// A sum with Gaussian noise of this multiple of the clip bound.
    ///
    /// # Errors
    ///
    /// When the multiplier is negative or not finite.
    pub fn gaussian(noise_multiplier: f64) -> Result<Self, EventError> {
        let noise_multiplier = NoiseMultiplier::try_from(noise_multiplier)?;
        Ok(Self::Gaussian { module_name: Module::Standard, noise_multiplier })
    }

    /// This release from clients that are each drawn with this probability.
    ///
    /// # Errors
    ///
    /// When that is no probability.
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
    /// When there are fewer clients than are drawn.
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

    /// This release so many times.
    #[must_use]
    pub fn times(self, count: u64) -> Self {
        Self::SelfComposed { module_name: Module::Standard, event: Box::new(self), count }
    }

    /// All these releases.
    pub fn composed(events: Vec<Self>) -> Self {
        Self::Composed { module_name: Module::Standard, events }
    }

    /// Running sums of so many steps with the noise of a binary tree.
    ///
    /// # Errors
    ///
    /// When the multiplier is negative or not finite.
    pub fn tree_aggregation(noise_multiplier: f64, steps: u64) -> Result<Self, EventError> {
        Ok(Self::SingleEpochTreeAggregation {
            module_name: Module::Standard,
            noise_multiplier: NoiseMultiplier::try_from(noise_multiplier)?,
            step_counts: StepCounts::One(steps),
        })
    }

    /// A release that satisfies zero-concentrated differential privacy with this rho.
    ///
    /// # Errors
    ///
    /// When rho is negative or not finite.
    pub fn zero_concentrated(rho: f64) -> Result<Self, EventError> {
        let rho = Concentration::try_from(rho)?;
        Ok(Self::ZeroConcentrated { module_name: Module::Standard, rho, xi: Concentration::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            Event::tree_aggregation(8.83, 1600).unwrap(),
            Event::zero_concentrated(0.81).unwrap(),
        ]);
        let text = serde_json::to_string_pretty(&events).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), events);
    }

    #[test]
    fn the_module_may_be_left_out() {
        let text = r#"{"class_name":"ZCDpEvent","rho":0.5}"#;
        assert_eq!(serde_json::from_str::<Event>(text).unwrap(), Event::zero_concentrated(0.5).unwrap());
        let trees =
            r#"{"class_name":"SingleEpochTreeAggregationDpEvent","noise_multiplier":1,"step_counts":[3,7]}"#;
        let Event::SingleEpochTreeAggregation { step_counts, .. } = serde_json::from_str(trees).unwrap()
        else {
            panic!("not a tree")
        };
        assert_eq!(step_counts.longest(), 7);
    }

    #[test]
    fn what_is_not_known_or_out_of_range_is_refused() {
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
