//! A lower bound of epsilon, from an attack that tells releases with and without one client apart.
//!
//! The method is that of Jagielski, Ullman and Oprea, "Auditing differentially private machine learning", 2020, section
//! 3. The bound must not be above the accountant's epsilon. It must not be far below it either, or the attack is too
//!    weak to show a fault.

use fedmill::kernels::chacha20::Stream;
use fedmill::kernels::clip_integers::{Squares, quantize};
use fedmill::kernels::discrete_gaussian::{Level, noise};
use fedmill::kernels::integer_sum::add_integers;
use fedmill::kernels::lanes::Isa;
use fedmill::privacy::accountants::{CostTerms, cost};
use fedmill::privacy::clipping::Grid;
use fedmill::privacy::event::Event;
use fedmill::privacy::key::Key;

/// Number of releases with the canary, and of releases without.
const TRIALS: u64 = 20_000;
const DELTA: f64 = 1e-5;
const BOUND: f64 = 1.0;

/// A client as far from the others as possible: longer than the bound, so that it is clipped to the bound.
const CANARY: [f32; 4] = [3.0, -3.0, 3.0, 3.0];

/// An honest client, in every release.
const HONEST: [f32; 4] = [0.1, 0.3, -0.2, 0.1];

/// The integers of a client.
fn integers(grid: &Grid, update: &[f32]) -> Vec<i64> {
    let mut squares = Squares::default();
    squares.add(update, &[]);
    let mut integers = vec![0; update.len()];
    let scale = grid.clip(&squares, 1.0).scale;
    assert!(grid.admits(quantize(Isa::detect(), update, &[], scale, &mut integers)));
    integers
}

/// An attacker's view of a release: its length in the canary's direction, in standard deviations of the noise.
fn seen(grid: &Grid, clients: &[&[i64]], seed: u64, direction: &[i64]) -> f64 {
    let key = Key::of_test_seed(seed);
    let mut sums = vec![0; direction.len()];
    noise(Isa::detect(), Stream { key: key.bytes(), domain: 1, segment: 0 }, grid.level(), 0, &mut sums);
    clients.iter().for_each(|client| add_integers(Isa::detect(), client, &mut sums));
    let norm = direction.iter().map(|x| (*x as f64).powi(2)).sum::<f64>().sqrt();
    let product: f64 = sums.iter().zip(direction).map(|(sum, x)| *sum as f64 * *x as f64).sum();
    product / norm / grid.level().sigma()
}

/// A lower bound of epsilon from right and wrong guesses, with 95 % confidence. `threshold` was chosen in advance.
fn audited(grid: &Grid, threshold: f64) -> f64 {
    let (canary, honest) = (integers(grid, &CANARY), integers(grid, &HONEST));
    let offset: f64 = {
        let norm = canary.iter().map(|x| (*x as f64).powi(2)).sum::<f64>().sqrt();
        let product: f64 = canary.iter().zip(&honest).map(|(x, y)| *x as f64 * *y as f64).sum();
        product / norm / grid.level().sigma()
    };
    let guesses = |clients: &[&[i64]], seeds: std::ops::Range<u64>| {
        seeds.filter(|seed| seen(grid, clients, *seed, &canary) - offset > threshold).count() as u64
    };
    let right = guesses(&[&honest, &canary], 0..TRIALS);
    let wrong = guesses(&[&honest], TRIALS..2 * TRIALS);
    let (least_right, most_wrong) = (least(right, TRIALS, 0.025), 1.0 - least(TRIALS - wrong, TRIALS, 0.025));
    ((least_right - DELTA) / most_wrong).ln()
}

/// The least probability at which `successes` or more of `trials` are as likely as `error` (Clopper and Pearson, 1934).
fn least(successes: u64, trials: u64, error: f64) -> f64 {
    if successes == 0 {
        return 0.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if at_least(successes, trials, middle) < error { low = middle } else { high = middle }
    }
    low
}

/// The probability of at least `successes` successes.
fn at_least(successes: u64, trials: u64, p: f64) -> f64 {
    let (n, odds) = (trials as f64, (p / (1.0 - p)).ln());
    // ln of the binomial term at 0, then each from the one before.
    let mut term = n * (-p).ln_1p();
    let mut sum = 0.0;
    for k in 0..=trials {
        if k >= successes {
            sum += f64::exp(term);
        }
        term += ((n - k as f64) / (k as f64 + 1.0)).ln() + odds;
    }
    sum
}

/// The epsilon of a round by the accountant.
fn accounted(multiplier: f64) -> f64 {
    let cost = cost(&[Event::gaussian(multiplier).unwrap()], &CostTerms::at(DELTA)).unwrap();
    cost.epsilon_pld.unwrap()
}

#[test]
fn what_canaries_show_is_below_the_accountant_and_near_it() {
    for (multiplier, threshold) in [(1.0, 3.0), (2.0, 2.8), (0.7, 3.2)] {
        let grid = Grid::at(Level::L2, BOUND, multiplier).unwrap();
        let (shown, epsilon) = (audited(&grid, threshold), accounted(multiplier));
        assert!(
            shown < epsilon,
            "noise {multiplier}: canaries show epsilon {shown}, the accountant says {epsilon}"
        );
        assert!(shown > epsilon / 3.0, "noise {multiplier}: canaries show only {shown} of {epsilon}");
    }
}

/// The negative control: the attack shows noise that is smaller than the accountant assumes.
#[test]
fn canaries_show_noise_that_is_too_small() {
    let grid = Grid::at(Level::L2, BOUND, 0.25).unwrap();
    let (shown, epsilon) = (audited(&grid, 4.0), accounted(1.0));
    assert!(shown > epsilon, "canaries show {shown} only, and noise of a quarter costs more than {epsilon}");
}

#[test]
fn bounds_of_probabilities_by_hand() {
    // All of n right: p^n = error. None: nothing is known.
    assert!((least(10, 10, 0.025) - 0.025f64.powf(0.1)).abs() < 1e-12);
    assert_eq!(least(0, 10, 0.025), 0.0);
    // One of n: 1 - (1 - p)^n = error.
    assert!((least(1, 20, 0.05) - (1.0 - 0.95f64.powf(0.05))).abs() < 1e-12);
    // As published for 5 of 10 at 95 %: 0.1871.
    assert!((least(5, 10, 0.025) - 0.1871).abs() < 1e-4);
}
