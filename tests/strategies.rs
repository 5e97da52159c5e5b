//! Server strategies over ten rounds against the oracle: their factors, weights, kernel and state.

mod files;

use crate::reference::strategies::{
    Adaptive, Client, POPULATION, Server, Strategy as Oracle, cases, simulate,
};
use fedmill::kernels::lanes::Isa;
use fedmill::kernels::server_step::server_step;
use fedmill::model::state::StateTensor;
use fedmill::rules::Needs;
use fedmill::rules::geometry::{Geometry, References};
use fedmill::rules::numeric::triangle::Triangle;
use fedmill::strategies::{self, ClientMetadata, Cohort, StepInput, Strategy};

const ROUNDS: usize = 10;
const COORDINATES: usize = 37;

/// Numbers from 0 to 1 (xorshift64).
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    fn row(&mut self) -> Vec<f64> {
        (0..COORDINATES).map(|_| 4.0 * self.unit() - 2.0).collect()
    }

    fn client(&mut self, round: usize) -> Client {
        let one_of = |unit: f64, of: &[f64]| of[(unit * of.len() as f64) as usize];
        Client {
            delta: self.row(),
            weight: (self.unit() * 50.0).ceil(),
            local_steps: 1 + (self.unit() * 40.0) as usize,
            momentum: one_of(self.unit(), &[0.0, 0.0, 0.5, 0.9]),
            mu: one_of(self.unit(), &[0.0, 0.0, 0.1, 3.0]),
            lr: 0.05,
            loss: one_of(self.unit(), &[0.0, 1e-3, 0.7, 2.5, 40.0]),
            round: round - (self.unit() * (round + 1) as f64) as usize,
            delta_c: self.row(),
        }
    }
}

/// The clients' updates in each round: seven, then three, then seven again.
fn rounds() -> Vec<Vec<Client>> {
    let mut random = Random(0x5eed_0fab);
    let number = |round: usize| if round.is_multiple_of(2) { 7 } else { 3 };
    (0..ROUNDS).map(|round| (0..number(round)).map(|_| random.client(round)).collect()).collect()
}

fn base() -> Vec<f64> {
    Random(77).row()
}

fn cohort(strategy: &dyn Strategy, round: usize, clients: &[Client]) -> Cohort {
    let reported = |(i, client): (usize, &Client)| ClientMetadata {
        id: format!("client-{i}"),
        local_steps: Some(client.local_steps as f64),
        momentum: (client.momentum != 0.0).then_some(client.momentum),
        proximal_mu: (client.mu != 0.0).then_some(client.mu),
        local_lr: Some(client.lr),
        loss: Some(client.loss),
        round: Some(client.round as u64),
    };
    let weight = |client: &Client| if strategy.weighs_alike().is_some() { 1.0 } else { client.weight };
    Cohort {
        clients: clients.iter().enumerate().map(reported).collect(),
        weights: clients.iter().map(weight).collect(),
        round: Some(round as u64),
        population: Some(POPULATION),
    }
}

/// The geometry of the deltas, about the first.
fn geometry(clients: &[Client]) -> Geometry {
    let first = &clients[0].delta;
    let zero = vec![0.0; COORDINATES];
    let points: Vec<&Vec<f64>> = clients.iter().map(|client| &client.delta).chain([&zero]).collect();
    let product = |i: usize, j: usize| {
        (0..COORDINATES).map(|k| (points[i][k] - first[k]) * (points[j][k] - first[k])).sum()
    };
    Geometry::new(clients.len(), References::default(), Triangle::new(points.len(), product), None, 1e-15)
}

/// The factor of each delta in the merged delta: that of the mean, with the strategy's weights and factors.
fn coefficients(strategy: &dyn Strategy, cohort: &Cohort, geometry: Option<&Geometry>) -> Vec<f64> {
    let ones = vec![1.0; cohort.clients.len()];
    let weigh = strategy.weigh(cohort).unwrap().unwrap_or_else(|| ones.clone());
    let scale = strategy.scale(cohort, geometry).unwrap().unwrap_or(ones);
    let weights: Vec<f64> =
        cohort.weights.iter().zip(&weigh).map(|(weight, factor)| weight * factor).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().zip(&scale).map(|(weight, factor)| weight / total * factor).collect()
}

fn merged(rows: impl Iterator<Item = Vec<f64>>, coefficients: &[f64]) -> Vec<f64> {
    let mut sum = vec![0.0; COORDINATES];
    for (row, coefficient) in rows.zip(coefficients) {
        sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += coefficient * x);
    }
    sum
}

/// The same rounds by fedmill.
fn run(strategy: &dyn Strategy, isa: Isa) -> Vec<Server> {
    let initial = |slot: StateTensor| {
        let kept = strategy.keeps().into_iter().find(|kept| kept.slot == slot);
        vec![kept.map_or(0.0, |kept| kept.initial); COORDINATES]
    };
    let (m, v, c) =
        (initial(StateTensor::Momentum), initial(StateTensor::SecondMoment), initial(StateTensor::Control));
    let mut server = Server { x: base(), m, v, c };
    let mut after = Vec::new();
    for (round, clients) in rounds().iter().enumerate() {
        let cohort = cohort(strategy, round, clients);
        for client in &cohort.clients {
            strategy.check(client, cohort.round).unwrap();
        }
        let measured = (strategy.needs() >= Needs::Geometry).then(|| geometry(clients));
        let coefficients = coefficients(strategy, &cohort, measured.as_ref());
        let decided = StepInput {
            steps: round as u64,
            coefficients: Some(&coefficients),
            weights: &cohort.weights,
            geometry: measured.as_ref(),
            rule: "mean",
        };
        let step = strategy.step(&decided).unwrap();
        let mut delta = merged(clients.iter().map(|client| client.delta.clone()), &coefficients);
        // Tile by tile.
        for tile in [0..20, 20..COORDINATES] {
            let (m, v) = (&mut server.m[tile.clone()], &mut server.v[tile.clone()]);
            server_step(isa, &step, &mut delta[tile], m, v);
        }
        server.x.iter_mut().zip(&delta).for_each(|(x, step)| *x += step);
        if let Some(share) = strategy.control(&cohort).unwrap() {
            let factors = vec![share / clients.len() as f64; clients.len()];
            let change = merged(clients.iter().map(|client| client.delta_c.clone()), &factors);
            server.c.iter_mut().zip(change).for_each(|(c, change)| *c += change);
        }
        after.push(server.clone());
    }
    after
}

/// The first round in which two runs differ by more than rounding, and the difference.
fn first_difference(got: &[Server], want: &[Server]) -> Option<(usize, &'static str)> {
    assert_eq!(got.len(), want.len());
    let differs = |got: &[f64], want: &[f64]| {
        assert_eq!(got.len(), want.len());
        let near = |(got, want): (&f64, &f64)| (got - want).abs() <= 1e-11 * want.abs().max(1.0);
        !got.iter().zip(want).all(near)
    };
    (0..got.len()).find_map(|round| {
        let (got, want) = (&got[round], &want[round]);
        let parts =
            [(&got.x, &want.x, "x"), (&got.m, &want.m, "m"), (&got.v, &want.v, "v"), (&got.c, &want.c, "c")];
        parts.into_iter().find(|(got, want, _)| differs(got, want)).map(|(_, _, what)| (round, what))
    })
}

/// Compares the state too, unless the library keeps tau in v.
fn simulated(oracle: &Oracle) -> Vec<Server> {
    let mut after = simulate(oracle, &base(), &rounds());
    if let Oracle::Adaptive(Adaptive { tau, tau_under_root: true, .. }) = oracle {
        after.iter_mut().flat_map(|server| &mut server.v).for_each(|v| *v += tau);
    }
    after
}

#[test]
fn ten_rounds_are_those_of_the_oracle() {
    for (text, definition, oracle) in cases() {
        let strategy = strategies::parse(text, definition).unwrap();
        for isa in ["portable", "avx2", "avx512"].into_iter().filter_map(Isa::named) {
            let difference = first_difference(&run(strategy.as_ref(), isa), &simulated(&oracle));
            assert_eq!(difference, None, "{text} by {definition} on {isa}");
        }
    }
}

/// The negative control: every other strategy or setting shows, unless both have the same definition.
#[test]
fn another_strategy_is_noticed() {
    let same = |a: &Oracle, b: &Oracle| format!("{a:?}") == format!("{b:?}");
    let all = cases();
    for (text, definition, oracle) in &all {
        let strategy = strategies::parse(text, *definition).unwrap();
        let got = run(strategy.as_ref(), Isa::named("portable").unwrap());
        for (other, by, of_other) in all.iter().filter(|(_, _, of_other)| !same(oracle, of_other)) {
            let constant = [text, other].contains(&&"fedbuff:staleness=constant");
            if constant && [oracle, of_other].iter().any(|oracle| same(oracle, &Oracle::Average { lr: 1.0 }))
            {
                continue;
            }
            let difference = first_difference(&got, &simulated(of_other));
            assert!(difference.is_some(), "{text} by {definition} is {other} by {by}");
        }
    }
}

/// Every strategy has a case.
#[test]
fn no_strategy_is_left_out() {
    for entry in strategies::STRATEGIES {
        let has_case = cases().iter().any(|(text, _, _)| text.split(':').next() == Some(entry.name));
        assert!(has_case, "{} has no case in tests/reference/strategies.rs", entry.name);
    }
}
