//! FedAdam, FedYogi and FedAdagrad: large past deltas of a coordinate shorten its steps.
//!
//! Reddi et al., Adaptive federated optimization, 2021, algorithm 2: `m = beta1 * m + (1 - beta1) * delta`, `v` follows
//! the squares of the deltas, `x += lr * m / (sqrt(v) + tau)`. Each strategy's file has its defaults for each definition.

use crate::kernels::server_step::{SecondMoment, ServerStep};
use crate::model::state::{KeptTensor, StateTensor};
use crate::settings::numbers::{Decay, NotNegative};
use crate::settings::{Definition, Positive, Setting, Settings, SpecError, spec_text, value};
use crate::strategies::{StepInput, Strategy, StrategyError};
use std::fmt;
use std::str::FromStr;

/// The `tau` that all three declare.
pub(super) const TAU: Setting = Setting::new("tau", "0.001", "the least divisor of a step");

/// The `v0` that all three declare.
pub(super) const V0: Setting =
    Setting::new("v0", "1e-6", "v before the first round; the square of tau if missing");

/// FedAdam, FedYogi or FedAdagrad.
#[derive(Clone, Copy, Debug)]
pub struct Adaptive {
    name: &'static str,
    second: SecondMoment,
    defaults: Defaults,
    lr: Option<Positive>,
    beta1: Option<Decay>,
    beta2: Option<Decay>,
    tau: Option<Positive>,
    v0: Option<NotNegative>,
    correction: Option<Correction>,
}

/// The defaults of one strategy by one definition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Defaults {
    pub(super) definition: Definition,
    pub(super) lr: f64,
    pub(super) beta1: f64,
    pub(super) beta2: f64,
    pub(super) tau: f64,
    /// `v` before the first round; `None` means the square of tau.
    pub(super) v0: Option<f64>,
    pub(super) correction: Correction,
    /// The exponent of the correction is the number of the round, counted from one, plus this.
    pub(super) ahead: u64,
    /// Whether tau is under the root: `x += lr * m / sqrt(v + tau)`.
    pub(super) tau_under_root: bool,
}

impl Defaults {
    /// The defaults of the paper's FedAdam.
    pub(super) const PAPER: Self = Self {
        definition: Definition::Paper,
        lr: 0.1,
        beta1: 0.9,
        beta2: 0.99,
        tau: 1e-3,
        v0: None,
        correction: Correction::None,
        ahead: 0,
        tau_under_root: false,
    };
}

/// The correction of the learning rate for averages that start at zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Correction {
    None,
    /// Kingma and Ba, Adam: a method for stochastic optimization, 2015, section 2: `lr * sqrt(1 - beta2^t) /
    /// (1 - beta1^t)` in round t, counted from one.
    Adam,
}

impl FromStr for Correction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "adam" => Ok(Self::Adam),
            _ => Err(format!("found `{text}`, expected none or adam")),
        }
    }
}

impl fmt::Display for Correction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Adam => "adam",
        })
    }
}

impl Adaptive {
    pub(super) fn parse(
        name: &'static str,
        second: SecondMoment,
        defaults: Defaults,
        settings: &mut Settings,
    ) -> Result<Self, SpecError> {
        let adagrad = second == SecondMoment::Adagrad;
        Ok(Self {
            name,
            second,
            defaults,
            lr: settings.take("lr")?,
            beta1: settings.take("beta1")?,
            // Adagrad adds up all squares: nothing decays.
            beta2: if adagrad { None } else { settings.take("beta2")? },
            tau: settings.take("tau")?,
            v0: settings.take("v0")?,
            correction: if adagrad { uncorrected(settings)? } else { settings.take("bias-correction")? },
        })
    }

    fn beta1(&self) -> f64 {
        self.beta1.map_or(self.defaults.beta1, |beta| beta.0)
    }

    fn beta2(&self) -> f64 {
        self.beta2.map_or(self.defaults.beta2, |beta| beta.0)
    }

    fn tau(&self) -> f64 {
        self.tau.map_or(self.defaults.tau, |tau| tau.0)
    }

    /// `v` before the first round. Adagrad only adds to `v`. So a `tau` beside `v` under the root can be a part of `v`
    /// from the start.
    fn v0(&self) -> f64 {
        let under_root = if self.defaults.tau_under_root { self.tau() } else { 0.0 };
        self.v0.map_or(self.defaults.v0.unwrap_or(self.tau() * self.tau()), |v0| v0.0) + under_root
    }

    /// The learning rate of the round after `steps` earlier rounds.
    fn lr(&self, steps: u64) -> f64 {
        let lr = self.lr.map_or(self.defaults.lr, |lr| lr.0);
        match self.correction.unwrap_or(self.defaults.correction) {
            Correction::None => lr,
            Correction::Adam => {
                let t = (steps + 1 + self.defaults.ahead) as f64;
                lr * (1.0 - self.beta2().powf(t)).sqrt() / (1.0 - self.beta1().powf(t))
            }
        }
    }
}

/// Takes the correction of a strategy that allows `none` only.
fn uncorrected(settings: &mut Settings) -> Result<Option<Correction>, SpecError> {
    settings.take("bias-correction").map(|none: Option<Uncorrected>| none.map(|_| Correction::None))
}

/// The value `none` of `bias-correction`.
struct Uncorrected;

impl FromStr for Uncorrected {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse()? {
            Correction::None => Ok(Self),
            Correction::Adam => {
                Err("found `adam`, expected none: the correction is for averages that start at \
                                     zero, and v is a sum here"
                    .to_owned())
            }
        }
    }
}

impl fmt::Display for Adaptive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = [
            ("lr", value(&self.lr)),
            ("beta1", value(&self.beta1)),
            ("beta2", value(&self.beta2)),
            ("tau", value(&self.tau)),
            ("v0", value(&self.v0)),
            ("bias-correction", value(&self.correction)),
        ];
        f.write_str(&spec_text(self.name, &settings))
    }
}

impl Strategy for Adaptive {
    fn name(&self) -> &'static str {
        self.name
    }

    fn definition(&self) -> Definition {
        self.defaults.definition
    }

    fn keeps(&self) -> Vec<KeptTensor> {
        let momentum = KeptTensor { slot: StateTensor::Momentum, initial: 0.0 };
        vec![momentum, KeptTensor { slot: StateTensor::SecondMoment, initial: self.v0() }]
    }

    fn step(&self, input: &StepInput) -> Result<ServerStep, StrategyError> {
        Ok(ServerStep::Adaptive {
            lr: self.lr(input.steps),
            beta1: self.beta1(),
            beta2: self.beta2(),
            tau: if self.defaults.tau_under_root { 0.0 } else { self.tau() },
            second: self.second,
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::kernels::lanes::Isa;
    use crate::kernels::server_step::server_step;
    use crate::settings::Definition;
    use crate::strategies::{StepInput, parse};

    /// The model in one coordinate, from zero, after steps by `deltas`.
    fn walk(strategy: &str, definition: Definition, deltas: &[f64]) -> f64 {
        let strategy = parse(strategy, definition).unwrap();
        let mut kept = strategy.keeps().into_iter().map(|kept| vec![kept.initial]);
        let (mut m, mut v) = (kept.next().unwrap(), kept.next().unwrap());
        let mut x = 0.0;
        for (steps, delta) in deltas.iter().enumerate() {
            let input = StepInput {
                steps: steps as u64,
                coefficients: None,
                weights: &[],
                geometry: None,
                rule: "mean",
            };
            let mut moved = [*delta];
            server_step(
                Isa::named("portable").unwrap(),
                &strategy.step(&input).unwrap(),
                &mut moved,
                &mut m,
                &mut v,
            );
            x += moved[0];
        }
        x
    }

    #[track_caller]
    fn near(got: f64, want: f64) {
        assert!((got / want - 1.0).abs() < 1e-6, "got {got}, expected {want}");
    }

    /// Updates 1 of weight 1 and 3 of weight 2, from zero. Flower gives these values.
    #[test]
    fn worked_values() {
        let delta = [7.0 / 3.0];
        near(walk("fedadam", Definition::Flower, &delta), 0.073_929_1);
        near(walk("fedadam:v0=0", Definition::Paper, &delta), 0.099_573_3);
        near(walk("fedyogi", Definition::Flower, &delta), 0.009_957_33);
        near(walk("fedadagrad", Definition::Flower, &delta), 0.099_957_2);
    }

    /// Kingma and Ba: for any betas the first corrected step is the learning rate. With Flower's exponent it is not.
    #[test]
    fn the_first_corrected_step_is_the_learning_rate() {
        for beta in ["0", "0.5", "0.9"] {
            let text =
                format!("fedadam:lr=0.25,beta1={beta},beta2={beta},tau=1e-12,v0=0,bias-correction=adam");
            near(walk(&text, Definition::Paper, &[-4.0]), -0.25);
        }
        near(walk("fedadam:lr=0.25", Definition::Tff, &[-4.0]), -0.25);
        assert!(walk("fedadam:lr=0.25", Definition::Flower, &[-4.0]).abs() < 0.2);
    }

    /// By hand: v is 0.1 + 4 + 9 with epsilon beside it under the root.
    #[test]
    fn adagrad_of_tensorflow_federated_has_epsilon_under_the_root() {
        let want = 0.5 * 2.0 / (0.1f64 + 4.0 + 0.5).sqrt() + 0.5 * 3.0 / (0.1f64 + 13.0 + 0.5).sqrt();
        near(walk("fedadagrad:lr=0.5,tau=0.5", Definition::Tff, &[2.0, 3.0]), want);
    }

    #[test]
    fn settings_win_over_a_definition() {
        let keeps = |text, definition| parse(text, definition).unwrap().keeps()[1].initial;
        assert_eq!(keeps("fedyogi", Definition::Paper), 1e-3 * 1e-3);
        assert_eq!(keeps("fedyogi:tau=0.5", Definition::Paper), 0.25);
        assert_eq!(keeps("fedyogi", Definition::Tff), 1e-6);
        assert_eq!(keeps("fedyogi:v0=3", Definition::Tff), 3.0);
        assert_eq!(keeps("fedadam", Definition::Flower), 0.0);
        let plain = walk("fedadam:bias-correction=none", Definition::Flower, &[1.0]);
        near(plain, walk("fedadam:v0=0", Definition::Paper, &[1.0]));
    }
}
