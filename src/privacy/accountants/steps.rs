//! A tree of events as steps: mechanisms with counts, which accountants add up.
//!
//! Several Gaussians on the same clients equal one Gaussian: their inverse variances add up (McMahan et al. 2018, arXiv
//! 1812.06210, section 3). So all Gaussians of a tree are one step, and so are the Gaussians inside a sampled event.

use crate::privacy::event::{Adjacency, Event};

/// A mechanism with known cost. Its noise is in units of the sensitivity.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum StepMechanism {
    /// Gaussian noise on a sum of all clients.
    Gaussian {
        /// Standard deviation, divided by the sensitivity.
        noise: f64,
    },
    /// Gaussian noise on a sum of clients that were drawn independently.
    Poisson {
        /// Probability that a client is drawn; above 0 and below 1.
        rate: f64,
        /// Standard deviation, divided by the sensitivity.
        noise: f64,
    },
    /// Gaussian noise on a sum of a fixed number of clients.
    WithoutReplacement {
        /// Share of clients that is drawn; above 0 and below 1.
        rate: f64,
        /// Standard deviation, divided by the sensitivity.
        noise: f64,
    },
    /// A release with the Renyi divergences `xi + rho * order`.
    ZeroConcentrated {
        /// The slope.
        rho: f64,
        /// The intercept.
        xi: f64,
    },
}

/// A mechanism that is repeated `count` times.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Step {
    /// The mechanism.
    pub mechanism: StepMechanism,
    /// Number of repetitions; at least 1.
    pub count: u64,
}

/// The steps of events. Each mechanism is in the list once.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Steps {
    /// The steps, in an order that does not depend on the order of events.
    pub list: Vec<Step>,
    /// Whether a release had no noise.
    pub non_private: bool,
    /// Number of releases, free ones included; a tree counts as one.
    pub releases: u64,
}

/// Why events have no known cost.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum UnsupportedEvent {
    /// The cost of this sampling is not known for this adjacency.
    #[error("{event}: found adjacency {found}, expected {expected}")]
    Adjacency {
        /// The event.
        event: &'static str,
        /// The adjacency.
        found: Adjacency,
        /// The adjacencies with known cost.
        expected: &'static str,
    },
    /// A sampled event that holds other events than Gaussian ones.
    #[error("{event}: found another kind of event inside, expected Gaussian events, alone or composed")]
    Nested {
        /// The event.
        event: &'static str,
    },
    /// A sample that is larger than its population, or of an empty population.
    #[error("SampledWithoutReplacementDpEvent: found a sample of {sample} of {of} clients")]
    Sample {
        /// Number of drawn clients.
        sample: u64,
        /// Number of clients in the population.
        of: u64,
    },
    /// More releases than f64 counts exactly.
    #[error("the events are more than 2^53 releases")]
    TooMany,
}

/// Largest count that f64 holds exactly.
const MOST: u64 = 1 << 53;

impl Steps {
    /// The steps of these events for this adjacency.
    ///
    /// # Errors
    ///
    /// When the cost of an event is not known.
    pub fn of(events: &[Event], adjacency: Adjacency) -> Result<Self, UnsupportedEvent> {
        let mut found = StepCollector { adjacency, steps: Self::default(), inverse_variance: 0.0 };
        events.iter().try_for_each(|event| found.add(event, 1))?;
        Ok(found.finish())
    }
}

struct StepCollector {
    adjacency: Adjacency,
    steps: Steps,
    /// The summed inverse variance of all Gaussians.
    inverse_variance: f64,
}

impl StepCollector {
    fn add(&mut self, event: &Event, count: u64) -> Result<(), UnsupportedEvent> {
        match event {
            Event::NoOp { .. } => Ok(()),
            Event::Composed { events, .. } => events.iter().try_for_each(|event| self.add(event, count)),
            Event::SelfComposed { event, count: times, .. } => {
                let count = count.checked_mul(*times).filter(|count| *count <= MOST);
                self.add(event, count.ok_or(UnsupportedEvent::TooMany)?)
            }
            _ => self.release(event, count),
        }
    }

    fn release(&mut self, event: &Event, count: u64) -> Result<(), UnsupportedEvent> {
        let releases = self.steps.releases.checked_add(count).filter(|releases| *releases <= MOST);
        self.steps.releases = releases.ok_or(UnsupportedEvent::TooMany)?;
        match event {
            Event::Gaussian { noise_multiplier, .. } => self.gaussian(noise_multiplier.get(), count),
            Event::PoissonSampled { sampling_probability, event, .. } => {
                self.poisson(sampling_probability.get(), event, count)?;
            }
            Event::SampledWithoutReplacement { source_dataset_size, sample_size, event, .. } => {
                self.without_replacement(*sample_size, *source_dataset_size, event, count)?;
            }
            Event::SingleEpochTreeAggregation { noise_multiplier, step_counts, .. } => {
                self.tree(noise_multiplier.get(), step_counts.longest(), count)?;
            }
            Event::ZeroConcentrated { rho, xi, .. } => {
                self.push(StepMechanism::ZeroConcentrated { rho: rho.get(), xi: xi.get() }, count);
            }
            _ => self.steps.non_private |= count > 0,
        }
        Ok(())
    }

    fn gaussian(&mut self, multiplier: f64, count: u64) {
        if count > 0 {
            let noise = multiplier / self.adjacency.sensitivity();
            self.inverse_variance += count as f64 / (noise * noise);
        }
    }

    fn poisson(&mut self, rate: f64, event: &Event, count: u64) -> Result<(), UnsupportedEvent> {
        const NAME: &str = "PoissonSampledDpEvent";
        // A rate of 0 or 1 is not sampling.
        if self.adjacency == Adjacency::ReplaceOne && rate > 0.0 && rate < 1.0 {
            let expected = "add-or-remove-one or replace-special";
            return Err(UnsupportedEvent::Adjacency { event: NAME, found: self.adjacency, expected });
        }
        self.sampled(rate, effective_noise(event, NAME)?, count, |rate, noise| StepMechanism::Poisson {
            rate,
            noise,
        });
        Ok(())
    }

    fn without_replacement(
        &mut self,
        sample: u64,
        of: u64,
        event: &Event,
        count: u64,
    ) -> Result<(), UnsupportedEvent> {
        const NAME: &str = "SampledWithoutReplacementDpEvent";
        if sample > of || of == 0 {
            return Err(UnsupportedEvent::Sample { sample, of });
        }
        if self.adjacency != Adjacency::ReplaceOne && sample > 0 && sample < of {
            let expected = "replace-one";
            return Err(UnsupportedEvent::Adjacency { event: NAME, found: self.adjacency, expected });
        }
        let rate = sample as f64 / of as f64;
        let mechanism = |rate, noise| StepMechanism::WithoutReplacement { rate, noise };
        self.sampled(rate, effective_noise(event, NAME)?, count, mechanism);
        Ok(())
    }

    /// Adds a Gaussian on a sample. A rate of 0 or 1 is not sampling.
    fn sampled(&mut self, rate: f64, multiplier: f64, count: u64, of: impl Fn(f64, f64) -> StepMechanism) {
        let noise = multiplier / self.adjacency.sensitivity();
        match rate {
            0.0 => {}
            1.0 => self.gaussian(multiplier, count),
            _ if noise == 0.0 => self.steps.non_private |= count > 0,
            _ if noise.is_infinite() => {}
            _ => self.push(of(rate, noise), count),
        }
    }

    /// Adds a tree: every node from a leaf to the root is a Gaussian (Kairouz et al. 2021, arXiv 2103.00039, appendix
    /// D).
    fn tree(&mut self, multiplier: f64, steps: u64, count: u64) -> Result<(), UnsupportedEvent> {
        if self.adjacency != Adjacency::ReplaceSpecial {
            return Err(UnsupportedEvent::Adjacency {
                event: "SingleEpochTreeAggregationDpEvent",
                found: self.adjacency,
                expected: "replace-special",
            });
        }
        // ceil(log2(steps + 1)) equals the number of bits of `steps`.
        let depth = u64::from(u64::BITS - steps.leading_zeros());
        let count = count.checked_mul(depth).filter(|count| *count <= MOST);
        self.gaussian(multiplier, count.ok_or(UnsupportedEvent::TooMany)?);
        Ok(())
    }

    fn push(&mut self, mechanism: StepMechanism, count: u64) {
        match self.steps.list.iter_mut().find(|step| step.mechanism == mechanism) {
            Some(step) => step.count += count,
            None if count > 0 => self.steps.list.push(Step { mechanism, count }),
            None => {}
        }
    }

    fn finish(mut self) -> Steps {
        let noise = self.inverse_variance.sqrt().recip();
        if noise == 0.0 {
            self.steps.non_private = true;
        } else if noise.is_finite() {
            self.push(StepMechanism::Gaussian { noise }, 1);
        }
        self.steps.list.sort_by(|a, b| {
            a.mechanism.key().partial_cmp(&b.mechanism.key()).unwrap_or(std::cmp::Ordering::Equal)
        });
        self.steps
    }
}

impl StepMechanism {
    fn key(&self) -> (u8, f64, f64) {
        match *self {
            Self::Gaussian { noise } => (0, noise, 0.0),
            Self::Poisson { rate, noise } => (1, rate, noise),
            Self::WithoutReplacement { rate, noise } => (2, rate, noise),
            Self::ZeroConcentrated { rho, xi } => (3, rho, xi),
        }
    }
}

/// The noise multiplier of the one Gaussian that equals the nested ones; infinite if there are none.
fn effective_noise(event: &Event, within: &'static str) -> Result<f64, UnsupportedEvent> {
    Ok(inverse_variance(event, within)?.sqrt().recip())
}

fn inverse_variance(event: &Event, within: &'static str) -> Result<f64, UnsupportedEvent> {
    match event {
        Event::NoOp { .. } => Ok(0.0),
        Event::Gaussian { noise_multiplier, .. } => Ok(noise_multiplier.get().powi(-2)),
        Event::SelfComposed { count: 0, .. } => Ok(0.0),
        Event::SelfComposed { event, count, .. } => Ok(inverse_variance(event, within)? * *count as f64),
        Event::Composed { events, .. } => events.iter().map(|event| inverse_variance(event, within)).sum(),
        _ => Err(UnsupportedEvent::Nested { event: within }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaussian() -> Event {
        Event::gaussian(2.0).unwrap()
    }

    #[test]
    fn counts_that_f64_holds_are_taken_and_larger_ones_refused() {
        let of = |event: Event| Steps::of(&[event], Adjacency::ReplaceSpecial);
        assert_eq!(of(gaussian().times(MOST)).unwrap().releases, MOST);
        assert_eq!(of(gaussian().times(MOST + 1)), Err(UnsupportedEvent::TooMany));
        let tree = |steps: u32| {
            let text =
                r#"{"class_name":"SingleEpochTreeAggregationDpEvent","noise_multiplier":1,"step_counts":"#;
            serde_json::from_str::<Event>(&format!("{text}{steps}}}")).unwrap()
        };
        assert_eq!(of(tree(1).times(MOST)).unwrap().releases, MOST);
        assert_eq!(of(tree(2).times(MOST)), Err(UnsupportedEvent::TooMany));
        let twice = Event::composed(vec![gaussian().times(MOST / 2), gaussian().times(MOST / 2)]);
        assert_eq!(of(twice).unwrap().releases, MOST);
    }

    #[test]
    fn events_without_repetition_are_no_steps() {
        let sampled = gaussian().poisson_sampled(0.1).unwrap();
        let steps = Steps::of(&[sampled.times(0)], Adjacency::default()).unwrap();
        assert_eq!((steps.list.len(), steps.releases), (0, 0));
    }

    /// A sample of all clients is no sampling, so every adjacency has its cost.
    #[test]
    fn a_sample_of_all_clients_is_taken_for_every_adjacency() {
        for adjacency in [Adjacency::AddOrRemoveOne, Adjacency::ReplaceSpecial, Adjacency::ReplaceOne] {
            let all = gaussian().sampled_without_replacement(10, 10).unwrap();
            let plain = Steps::of(&[gaussian()], adjacency).unwrap();
            assert_eq!(Steps::of(&[all], adjacency).unwrap().list, plain.list);
            let some = gaussian().sampled_without_replacement(10, 9).unwrap();
            assert_eq!(Steps::of(&[some], adjacency).is_ok(), adjacency == Adjacency::ReplaceOne);
        }
        assert!(gaussian().sampled_without_replacement(10, 11).is_err());
    }

    #[test]
    fn delta_is_known_from_an_epsilon_of_zero_on() {
        use super::super::{CostError, delta};
        let at = |epsilon| delta(&[gaussian()], epsilon, Adjacency::default());
        assert!(at(0.0).unwrap().delta_pld > at(0.1).unwrap().delta_pld);
        assert!(matches!(at(-0.1), Err(CostError::Epsilon(_))));
    }
}
