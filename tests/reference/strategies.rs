//! The oracle of the server strategies: rounds in sequence, by coordinate, in f64, as in papers.
//!
//! It merges by plain or weighted means, never by a robust rule.

use crate::reference::vectors::dot;
use fedmill::settings::Definition;

/// The update of a client.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// Its model minus the model that it started from.
    pub(crate) delta: Vec<f64>,
    /// Its number of examples.
    pub(crate) weight: f64,
    /// Number of its local steps.
    pub(crate) local_steps: usize,
    /// Momentum of its optimiser.
    pub(crate) momentum: f64,
    /// Weight of its proximal term.
    pub(crate) mu: f64,
    /// Its learning rate.
    pub(crate) lr: f64,
    /// Loss of the model it started from.
    pub(crate) loss: f64,
    /// The round of the model it started from; rounds count from zero.
    pub(crate) round: usize,
    /// The change of its control variate.
    pub(crate) delta_c: Vec<f64>,
}

/// A strategy and its settings.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Strategy {
    /// McMahan et al. 2017; Reddi et al. 2021, algorithm 1, for the learning rate. FedProx is this with 1.
    Average { lr: f64 },
    /// Hsu et al. 2019, section 4.3.
    Momentum { lr: f64, momentum: f64 },
    /// Reddi et al. 2021, algorithm 2, and the libraries' variants.
    Adaptive(Adaptive),
    /// Wang et al. 2020, equation 10, and the reference code.
    FedNova { lr: f64, gmf: f64, steps: Option<f64> },
    /// Karimireddy et al. 2020, algorithm 1.
    Scaffold { lr: f64, population: usize },
    /// Li et al. 2020, algorithm 2.
    QFedAvg { q: f64, local_lr: f64 },
    /// Nguyen et al. 2022, algorithm 1.
    FedBuff { lr: f64, staleness: fn(f64) -> f64, in_weights: bool },
    /// Jhunjhunwala et al. 2023, equation 5.
    FedExp { eps: f64 },
}

/// An adaptive optimiser.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Adaptive {
    pub(crate) second: Second,
    pub(crate) lr: f64,
    pub(crate) beta1: f64,
    pub(crate) beta2: f64,
    pub(crate) tau: f64,
    pub(crate) v0: f64,
    /// The exponent of the bias correction in a round counted from zero; `None` without correction.
    pub(crate) exponent: Option<fn(usize) -> usize>,
    /// Whether tau is under the root.
    pub(crate) tau_under_root: bool,
}

/// Its second moment.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Second {
    Adam,
    Yogi,
    Adagrad,
}

const ADAM: Adaptive = Adaptive {
    second: Second::Adam,
    lr: 0.1,
    beta1: 0.9,
    beta2: 0.99,
    tau: 1e-3,
    v0: 1e-6,
    exponent: None,
    tau_under_root: false,
};
const YOGI: Adaptive = Adaptive { second: Second::Yogi, lr: 0.01, ..ADAM };
const ADAGRAD: Adaptive = Adaptive { second: Second::Adagrad, beta1: 0.0, ..ADAM };

/// The number of all clients in the cases, whether or not they take part in a round.
pub(crate) const POPULATION: usize = 11;

/// Every strategy by settings and definition, and its oracle.
pub(crate) fn cases() -> Vec<(&'static str, Definition, Strategy)> {
    let (paper, flower, tff) = (Definition::Paper, Definition::Flower, Definition::Tff);
    let adaptive = Strategy::Adaptive;
    let tff_adam = Adaptive { beta2: 0.999, tau: 1e-7, v0: 0.0, exponent: Some(|round| round + 1), ..ADAM };
    let tff_yogi = Adaptive { beta2: 0.999, exponent: Some(|round| round + 1), ..YOGI };
    let tff_adagrad = Adaptive { tau: 1e-7, v0: 0.1, tau_under_root: true, ..ADAGRAD };
    let flower_adam = Adaptive { v0: 0.0, exponent: Some(|round| round + 2), ..ADAM };
    let settings = Adaptive { lr: 0.5, beta1: 0.5, beta2: 0.75, tau: 0.25, v0: 0.0625, ..ADAM };
    let polynomial = |tau: f64| 1.0 / (1.0 + tau).sqrt();
    let hinge = |tau: f64| if tau <= 2.0 { 1.0 } else { 1.0 / (0.5 * (tau - 2.0) + 1.0) };
    let buffered = |lr, staleness, in_weights| Strategy::FedBuff { lr, staleness, in_weights };
    vec![
        ("fedavg", paper, Strategy::Average { lr: 1.0 }),
        ("fedavg:lr=0.3", paper, Strategy::Average { lr: 0.3 }),
        ("fedprox:mu=0.1", paper, Strategy::Average { lr: 1.0 }),
        ("fedavgm", flower, Strategy::Momentum { lr: 1.0, momentum: 0.9 }),
        ("fedavgm:lr=0.2,momentum=0.5", paper, Strategy::Momentum { lr: 0.2, momentum: 0.5 }),
        ("fedadam", paper, adaptive(ADAM)),
        ("fedadam:lr=0.5,beta1=0.5,beta2=0.75,tau=0.25", paper, adaptive(settings)),
        ("fedadam:bias-correction=adam", paper, adaptive(Adaptive { exponent: tff_adam.exponent, ..ADAM })),
        ("fedadam", flower, adaptive(flower_adam)),
        ("fedadam", tff, adaptive(tff_adam)),
        ("fedyogi", paper, adaptive(YOGI)),
        ("fedyogi", flower, adaptive(Adaptive { v0: 0.0, ..YOGI })),
        ("fedyogi", tff, adaptive(tff_yogi)),
        ("fedadagrad", paper, adaptive(ADAGRAD)),
        ("fedadagrad:beta1=0.9,v0=2", paper, adaptive(Adaptive { beta1: 0.9, v0: 2.0, ..ADAGRAD })),
        ("fedadagrad", flower, adaptive(Adaptive { v0: 0.0, ..ADAGRAD })),
        ("fednova", paper, Strategy::FedNova { lr: 1.0, gmf: 0.0, steps: None }),
        ("fednova:steps=9,lr=0.5", paper, Strategy::FedNova { lr: 0.5, gmf: 0.0, steps: Some(9.0) }),
        ("fednova:gmf=0.7", paper, Strategy::FedNova { lr: 1.0, gmf: 0.7, steps: None }),
        ("scaffold", paper, Strategy::Scaffold { lr: 1.0, population: POPULATION }),
        ("scaffold:lr=0.4", paper, Strategy::Scaffold { lr: 0.4, population: POPULATION }),
        ("qfedavg:local-lr=0.1", paper, Strategy::QFedAvg { q: 0.1, local_lr: 0.1 }),
        ("qfedavg:local-lr=0.02,q=2.5", paper, Strategy::QFedAvg { q: 2.5, local_lr: 0.02 }),
        ("fedbuff", paper, buffered(1.0, polynomial, false)),
        ("fedbuff:normalize=weights,lr=0.5", paper, buffered(0.5, polynomial, true)),
        ("fedbuff:staleness=hinge,a=0.5,b=2", paper, buffered(1.0, hinge, false)),
        ("fedbuff:staleness=constant", paper, buffered(1.0, |_| 1.0, false)),
        ("fedexp", paper, Strategy::FedExp { eps: 1e-3 }),
        ("fedexp:eps=0.01", paper, Strategy::FedExp { eps: 0.01 }),
        ("fedadagrad", tff, adaptive(tff_adagrad)),
    ]
}

/// The server's model and state.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Server {
    /// The model.
    pub(crate) x: Vec<f64>,
    /// Momentum; zero if the strategy has none.
    pub(crate) m: Vec<f64>,
    /// Second moment; zero if the strategy has none.
    pub(crate) v: Vec<f64>,
    /// Control variate; zero if the strategy has none.
    pub(crate) c: Vec<f64>,
}

impl Server {
    fn new(strategy: &Strategy, base: &[f64]) -> Self {
        let v0 = if let Strategy::Adaptive(adaptive) = strategy { adaptive.v0 } else { 0.0 };
        let zeros = vec![0.0; base.len()];
        Self { x: base.to_vec(), m: zeros.clone(), v: vec![v0; base.len()], c: zeros }
    }

    /// `x += lr * step`.
    fn moves(&mut self, lr: f64, step: &[f64]) {
        self.x.iter_mut().zip(step).for_each(|(x, step)| *x += lr * step);
    }

    /// `m = momentum * m + step; x += lr * m`.
    fn moves_on(&mut self, lr: f64, momentum: f64, step: &[f64]) {
        self.m.iter_mut().zip(step).for_each(|(m, step)| *m = momentum * *m + step);
        let m = self.m.clone();
        self.moves(lr, &m);
    }

    fn adapts(&mut self, by: &Adaptive, round: usize, delta: &[f64]) {
        let corrected = by.exponent.map_or(1.0, |exponent| {
            let t = i32::try_from(exponent(round)).unwrap();
            (1.0 - by.beta2.powi(t)).sqrt() / (1.0 - by.beta1.powi(t))
        });
        for (j, g) in delta.iter().enumerate() {
            let (m, v, square) = (self.m[j], self.v[j], g * g);
            self.m[j] = by.beta1 * m + (1.0 - by.beta1) * g;
            self.v[j] = match by.second {
                Second::Adam => by.beta2 * v + (1.0 - by.beta2) * square,
                Second::Yogi if v == square => v,
                Second::Yogi => v - (1.0 - by.beta2) * square * (v - square).signum(),
                Second::Adagrad => v + square,
            };
            let divisor =
                if by.tau_under_root { (self.v[j] + by.tau).sqrt() } else { self.v[j].sqrt() + by.tau };
            self.x[j] += by.lr * corrected * self.m[j] / divisor;
        }
    }
}

/// `sum_i factors[i] * rows[i]`.
fn combination<'a>(rows: impl Iterator<Item = &'a Vec<f64>>, factors: &[f64]) -> Vec<f64> {
    let mut sum = Vec::new();
    for (row, factor) in rows.zip(factors) {
        sum.resize(row.len(), 0.0);
        sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += factor * x);
    }
    sum
}

fn squared_norm(row: &[f64]) -> f64 {
    dot(row, row)
}

fn deltas(clients: &[Client]) -> impl Iterator<Item = &Vec<f64>> {
    clients.iter().map(|client| &client.delta)
}

/// `p_i`: the share of each client's examples.
fn shares(clients: &[Client]) -> Vec<f64> {
    let total: f64 = clients.iter().map(|client| client.weight).sum();
    clients.iter().map(|client| client.weight / total).collect()
}

/// `a_i` of FedNova, added up step by step as in the reference's optimiser.
fn normaliser(client: &Client) -> f64 {
    let (mut counter, mut a) = (0.0, 0.0);
    let shrink = client.lr * client.mu;
    for _ in 0..client.local_steps {
        if client.momentum != 0.0 {
            counter = counter * client.momentum + 1.0;
            a += counter;
        }
        if shrink != 0.0 {
            a *= 1.0 - shrink;
            a += 1.0;
        }
        if client.momentum == 0.0 && shrink == 0.0 {
            a += 1.0;
        }
    }
    a
}

/// FedNova's step without learning rate: `tau_eff * sum_i p_i * delta_i / a_i`.
fn normalised(clients: &[Client], steps: Option<f64>) -> Vec<f64> {
    let p = shares(clients);
    let counted = |client: &Client| {
        if client.mu == 0.0 { normaliser(client) } else { client.local_steps as f64 }
    };
    let effective: f64 = clients.iter().zip(&p).map(|(client, p)| p * counted(client)).sum();
    let effective = steps.unwrap_or(effective);
    let factors: Vec<f64> =
        clients.iter().zip(&p).map(|(client, p)| effective * p / normaliser(client)).collect();
    combination(deltas(clients), &factors)
}

/// q-FedAvg's step: `sum_k F_k^q * L * delta_k / sum_k h_k`.
fn fair(clients: &[Client], q: f64, local_lr: f64) -> Vec<f64> {
    let l = 1.0 / local_lr;
    let mut h = 0.0;
    let mut factors = Vec::new();
    for client in clients {
        let loss = client.loss + 1e-10;
        let gradient: Vec<f64> = client.delta.iter().map(|x| l * x).collect();
        h += q * loss.powf(q - 1.0) * squared_norm(&gradient) + l * loss.powf(q);
        factors.push(loss.powf(q) * l);
    }
    let factors: Vec<f64> = factors.iter().map(|factor| factor / h).collect();
    combination(deltas(clients), &factors)
}

/// FedBuff's step without learning rate.
fn buffered(clients: &[Client], round: usize, staleness: fn(f64) -> f64, in_weights: bool) -> Vec<f64> {
    let discount = |client: &Client| staleness((round - client.round) as f64);
    let mut factors: Vec<f64> =
        clients.iter().zip(shares(clients)).map(|(client, p)| p * discount(client)).collect();
    if in_weights {
        let total: f64 = factors.iter().sum();
        factors.iter_mut().for_each(|factor| *factor /= total);
    }
    combination(deltas(clients), &factors)
}

fn round(server: &mut Server, strategy: &Strategy, number: usize, clients: &[Client]) {
    let mean = combination(deltas(clients), &shares(clients));
    match *strategy {
        Strategy::Average { lr } => server.moves(lr, &mean),
        Strategy::Momentum { lr, momentum } => server.moves_on(lr, momentum, &mean),
        Strategy::Adaptive(by) => server.adapts(&by, number, &mean),
        Strategy::FedNova { lr, gmf: 0.0, steps } => server.moves(lr, &normalised(clients, steps)),
        Strategy::FedNova { lr, gmf, steps } => server.moves_on(lr, gmf, &normalised(clients, steps)),
        Strategy::Scaffold { lr, population } => {
            let alike = vec![1.0 / clients.len() as f64; clients.len()];
            server.moves(lr, &combination(deltas(clients), &alike));
            let controls = combination(clients.iter().map(|client| &client.delta_c), &alike);
            let share = clients.len() as f64 / population as f64;
            server.c.iter_mut().zip(controls).for_each(|(c, change)| *c += share * change);
        }
        Strategy::QFedAvg { q, local_lr } => server.moves(1.0, &fair(clients, q, local_lr)),
        Strategy::FedBuff { lr, staleness, in_weights } => {
            server.moves(lr, &buffered(clients, number, staleness, in_weights));
        }
        Strategy::FedExp { eps } => {
            let lengths =
                clients.iter().zip(shares(clients)).map(|(client, p)| p * squared_norm(&client.delta));
            let below = 2.0 * (squared_norm(&mean) + eps * clients.len() as f64);
            server.moves((lengths.sum::<f64>() / below).max(1.0), &mean);
        }
    }
}

/// The server after each round, for a base and the clients' updates of each round.
pub(crate) fn simulate(strategy: &Strategy, base: &[f64], rounds: &[Vec<Client>]) -> Vec<Server> {
    let mut server = Server::new(strategy, base);
    let mut after = Vec::new();
    for (number, clients) in rounds.iter().enumerate() {
        round(&mut server, strategy, number, clients);
        after.push(server.clone());
    }
    after
}

mod tests {
    use super::*;

    fn client(delta: f64, weight: f64) -> Client {
        Client {
            delta: vec![delta],
            weight,
            local_steps: 1,
            momentum: 0.0,
            mu: 0.0,
            lr: 0.1,
            loss: 1.0,
            round: 0,
            delta_c: vec![delta],
        }
    }

    #[track_caller]
    fn near(got: f64, want: f64) {
        assert!((got / want - 1.0).abs() < 1e-6, "got {got}, expected {want}");
    }

    /// Values computed with Flower itself: updates 1 of weight 1 and 3 of weight 2, from zero.
    #[test]
    fn oracle_of_adaptive_steps_by_hand() {
        let flower = Adaptive {
            second: Second::Adam,
            lr: 0.1,
            beta1: 0.9,
            beta2: 0.99,
            tau: 1e-3,
            v0: 0.0,
            exponent: Some(|round| round + 2),
            tau_under_root: false,
        };
        let step = |by: Adaptive| {
            let clients = vec![client(1.0, 1.0), client(3.0, 2.0)];
            simulate(&Strategy::Adaptive(by), &[0.0], &[clients])[0].x[0]
        };
        near(step(flower), 0.073_929_1);
        near(step(Adaptive { exponent: None, ..flower }), 0.099_573_3);
        near(step(Adaptive { second: Second::Yogi, lr: 0.01, exponent: None, ..flower }), 0.009_957_33);
        let adagrad = Adaptive { second: Second::Adagrad, beta1: 0.0, exponent: None, ..flower };
        near(step(adagrad), 0.099_957_2);
    }

    #[test]
    fn oracle_of_rounds_by_hand() {
        let rounds = [vec![client(1.0, 1.0), client(3.0, 2.0)], vec![client(-2.0, 5.0)]];
        let run = |strategy| simulate(&strategy, &[10.0], &rounds);
        let momentum = run(Strategy::Momentum { lr: 0.5, momentum: 0.9 });
        near(momentum[0].x[0], 10.0 + 0.5 * 7.0 / 3.0);
        near(momentum[1].m[0], 0.9 * 7.0 / 3.0 - 2.0);
        let scaffold = run(Strategy::Scaffold { lr: 1.0, population: 4 });
        near(scaffold[0].x[0], 12.0);
        near(scaffold[0].c[0], 1.0);
        near(scaffold[1].c[0], 0.5);
        let stale = Strategy::FedBuff { lr: 1.0, staleness: |tau| 1.0 / (1.0 + tau), in_weights: false };
        near(run(stale)[1].x[0], 10.0 + 7.0 / 3.0 - 1.0);
        // Opposite directions: 3 + 6 over 2 * (1 + 2 * 0.25).
        let apart = vec![client(3.0, 1.0), client(-3.0, 1.0), client(3.0, 1.0)];
        let step = simulate(&Strategy::FedExp { eps: 0.25 }, &[0.0], &[apart])[0].x[0];
        near(step, 9.0 / (2.0 * (1.0 + 0.75)));
    }

    /// Two steps with momentum a half: 1, then 1.5. A proximal term of 5 at rate 0.1: 1, then 0.5 + 1.
    #[test]
    fn oracle_of_local_steps_by_hand() {
        let two = Client { local_steps: 2, ..client(1.0, 1.0) };
        near(normaliser(&two), 2.0);
        near(normaliser(&Client { momentum: 0.5, ..two.clone() }), 2.5);
        near(normaliser(&Client { mu: 5.0, ..two.clone() }), 1.5);
        // Deltas 1 of one step and 1 of two: 1.5 effective steps times (1/2 + 1/4).
        let nova = Strategy::FedNova { lr: 1.0, gmf: 0.0, steps: None };
        near(simulate(&nova, &[0.0], &[vec![client(1.0, 1.0), two]])[0].x[0], 1.125);
    }
}
