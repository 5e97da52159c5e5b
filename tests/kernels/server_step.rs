//! The server's step against the formulas of its paper, coordinate by coordinate.

use super::{COLUMNS, Random, VALUES, Values, sample};
use fedmill::kernels::lanes::Isa;
use fedmill::kernels::server_step::{SecondMoment, ServerStep, server_step};

const STEPS: [ServerStep; 6] = [
    ServerStep::Average { lr: 0.3 },
    ServerStep::Momentum { lr: 0.7, momentum: 0.9 },
    adaptive(SecondMoment::Adam, 0.9),
    adaptive(SecondMoment::Yogi, 0.9),
    adaptive(SecondMoment::Adagrad, 0.9),
    adaptive(SecondMoment::Adagrad, 0.0),
];

const fn adaptive(second: SecondMoment, beta1: f64) -> ServerStep {
    ServerStep::Adaptive { lr: 0.1, beta1, beta2: 0.99, tau: 1e-3, second }
}

/// Merged deltas, and the state.
#[derive(Clone, PartialEq, Debug)]
struct Server {
    delta: Vec<f64>,
    m: Vec<f64>,
    v: Vec<f64>,
}

impl Server {
    fn new(columns: usize, kind: Values) -> Self {
        let mut random = Random(0x0dd_ba11 ^ (columns as u64) << 9);
        // In the range of f32, so that squares are finite.
        let mut row = || (0..columns).map(|_| f64::from(sample::<f32>(kind, &mut random))).collect();
        let (delta, m, roots): (Vec<f64>, Vec<f64>, Vec<f64>) = (row(), row(), row());
        // Every third v equals the square of the delta, which Yogi leaves unchanged.
        let square = |j: usize| if j.is_multiple_of(3) { delta[j] * delta[j] } else { roots[j] * roots[j] };
        Self { v: (0..columns).map(square).collect(), delta, m }
    }

    /// `m` and `v`, if the step keeps them.
    fn step(&mut self, isa: Isa, step: &ServerStep) {
        let (mut none, mut nor) = ([], []);
        match step {
            ServerStep::Average { .. } => server_step(isa, step, &mut self.delta, &mut none, &mut nor),
            ServerStep::Momentum { .. } => server_step(isa, step, &mut self.delta, &mut self.m, &mut none),
            ServerStep::Adaptive { .. } => {
                server_step(isa, step, &mut self.delta, &mut self.m, &mut self.v);
            }
        }
    }

    /// A coordinate after a step, as the papers define it.
    fn expected(&self, step: &ServerStep, j: usize) -> [f64; 3] {
        let (delta, m, v) = (self.delta[j], self.m[j], self.v[j]);
        match *step {
            ServerStep::Average { lr } => [lr * delta, m, v],
            ServerStep::Momentum { lr, momentum } => {
                let m = momentum * m + delta;
                [lr * m, m, v]
            }
            ServerStep::Adaptive { lr, beta1, beta2, tau, second } => {
                let m = beta1 * m + (1.0 - beta1) * delta;
                let square = delta.powi(2);
                let v = match second {
                    SecondMoment::Adam => beta2 * v + (1.0 - beta2) * square,
                    SecondMoment::Yogi if v > square => v - (1.0 - beta2) * square,
                    SecondMoment::Yogi if v < square => v + (1.0 - beta2) * square,
                    SecondMoment::Yogi => v,
                    SecondMoment::Adagrad => v + square,
                };
                [lr * m / (v.sqrt() + tau), m, v]
            }
        }
    }

    /// The first coordinate that differs from the papers' after a step from `before`, by more than rounding.
    fn first_wrong(&self, before: &Self, step: &ServerStep) -> Option<usize> {
        let near = |got: f64, want: f64| (got - want).abs() <= 8.0 * f64::EPSILON * want.abs() + 5e-324;
        (0..before.delta.len()).find(|j| {
            let [x, m, v] = before.expected(step, *j);
            !near(self.delta[*j], x) || !near(self.m[*j], m) || !near(self.v[*j], v)
        })
    }

    fn bits(&self) -> Vec<u64> {
        self.delta.iter().chain(&self.m).chain(&self.v).map(|x| x.to_bits()).collect()
    }
}

/// The result is that of the papers, with the same bits on every instruction set.
pub(super) fn matches(isa: Isa) {
    for columns in COLUMNS.into_iter().chain([0, 3, 4, 5, 63, 64, 65, 1001]) {
        for kind in VALUES {
            for step in STEPS {
                let before = Server::new(columns, kind);
                let (mut after, mut portable) = (before.clone(), before.clone());
                after.step(isa, &step);
                portable.step(Isa::named("portable").unwrap(), &step);
                let what = format!("{columns} columns of {kind:?}, {step}");
                assert_eq!(after.first_wrong(&before, &step), None, "{what}");
                assert_eq!(after.bits(), portable.bits(), "not the portable bits: {what}");
            }
        }
    }
}

/// The negative control: the check notices every other step, and the smallest error in the state.
pub(super) fn wrong_is_noticed(isa: Isa) {
    let before = Server::new(33, Values::Smooth);
    for (i, step) in STEPS.iter().enumerate() {
        let mut after = before.clone();
        after.step(isa, step);
        for (k, other) in STEPS.iter().enumerate() {
            assert_eq!(after.first_wrong(&before, other).is_none(), i == k, "{step}: {other}");
        }
        after.v[32] *= 1.0 + 1e-14;
        assert_eq!(after.first_wrong(&before, step), Some(32), "{step}");
    }
}
