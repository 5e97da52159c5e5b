//! Hockey-stick curves: delta at each epsilon for one release.
//!
//! The curve at the loss l is the largest amount by which the probability of an outcome under one neighbour exceeds e^l
//! times that under the other. This is delta at epsilon = l.
//!
//! For Gaussian noise of s sensitivities, and u = 1 / s, the curve is D(b) = phi(b) (m(b) - m(b + u)), with Mills'
//! ratio m and b = s l - u / 2. A difference of Mills' ratios keeps its digits where a difference of tails would lose
//! them. Sampling at rate q turns it into q D at the loss ln(1 + (e^l - 1) / q), for l >= 0 (Balle, Barthe & Gaboardi
//! 2018, arXiv 1807.01647). With the neighbours exchanged it is q r e^l D(-a), where r is the unsampled ratio at loss
//! -l, and a = b + u there. Below zero the distance above 1 - e^l counts, and this is e^l times the exchanged curve at
//! -l.

use crate::privacy::accountants::normal::{density, mills, upper_tail};

/// A pair of distributions whose curve bounds that of any neighbours. The first distribution includes the client.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Pair {
    /// Probability that the client is in the sample; 1 without sampling.
    rate: f64,
    /// Standard deviation of the noise, divided by the sensitivity.
    noise: f64,
    /// Whether exchanging the neighbours gives the same curve.
    symmetric: bool,
}

/// Loss l above which the code does not compute e^l.
const LARGE_LOSS: f64 = 30.0;

impl Pair {
    /// Gaussian noise on a sum of clients that are drawn independently at this rate, with and without one client.
    pub(super) fn sampled(rate: f64, noise: f64) -> Self {
        Self { rate, noise, symmetric: rate == 1.0 }
    }

    /// Gaussian noise on a sum of a fixed share of clients, one of which sends another update. Either neighbour may be
    /// the first, so the curve below zero mirrors the curve above zero.
    pub(super) fn replaced(rate: f64, noise: f64) -> Self {
        Self { rate, noise, symmetric: true }
    }

    /// Whether losses have the same distribution in both directions.
    pub(super) fn is_symmetric(&self) -> bool {
        self.symmetric
    }

    /// The curve at a loss of at least 0.
    pub(super) fn above(&self, loss: f64) -> f64 {
        let b = self.noise * self.unsampled(loss) - 0.5 / self.noise;
        self.rate * stick(b, 1.0 / self.noise)
    }

    /// The curve with the neighbours exchanged, at a loss of at least 0.
    pub(super) fn above_reversed(&self, loss: f64) -> f64 {
        if self.symmetric {
            return self.above(loss);
        }
        let change = libm::expm1(-loss) / self.rate;
        if change <= -1.0 {
            // The client makes no outcome less likely than 1 - rate times its probability without the client.
            return 0.0;
        }
        let unsampled = libm::log1p(change);
        let a = self.noise * unsampled + 0.5 / self.noise;
        self.rate * libm::exp(unsampled + loss) * stick(-a, 1.0 / self.noise)
    }

    /// The distance of the curve above 1 - e^loss, at a loss of at most 0.
    pub(super) fn below(&self, loss: f64) -> f64 {
        libm::exp(loss) * self.above_reversed(-loss)
    }

    /// The loss of the noise without sampling that sampling turns into `loss`, which is at least 0.
    fn unsampled(&self, loss: f64) -> f64 {
        match loss > LARGE_LOSS {
            true => loss - libm::log(self.rate) + libm::log1p((self.rate - 1.0) * libm::exp(-loss)),
            false => libm::log1p(libm::expm1(loss) / self.rate),
        }
    }
}

/// phi(b) (m(b) - m(b + u)), for b >= -u / 2.
fn stick(b: f64, u: f64) -> f64 {
    match b < -1.0 {
        // b + u is above 1, so nothing cancels.
        true => upper_tail(b) - density(b) * mills(b + u),
        false => density(b) * (mills(b) - mills(b + u)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Delta at epsilon by the definition, from tails.
    fn naive(rate: f64, noise: f64, loss: f64) -> f64 {
        let x = noise * noise * ((loss.exp() - (1.0 - rate)) / rate).ln() + 0.5;
        (1.0 - rate) * upper_tail(x / noise) + rate * upper_tail((x - 1.0) / noise)
            - loss.exp() * upper_tail(x / noise)
    }

    #[test]
    fn the_curve_is_its_definition() {
        for (rate, noise) in [(1.0, 1.0), (0.01, 0.5), (0.2, 3.0), (0.5, 0.3), (1.0, 0.05), (1e-3, 0.02)] {
            let pair = Pair::sampled(rate, noise);
            for loss in [0.0, 1e-3, 0.1, 0.5, 2.0] {
                let (found, expected) = (pair.above(loss), naive(rate, noise, loss));
                assert!((found - expected).abs() < 1e-13, "{pair:?} {loss}: {found} {expected}");
                if (-loss).exp() > 1.0 - rate {
                    let above = naive(rate, noise, -loss) - (1.0 - (-loss).exp());
                    assert!((pair.below(-loss) - above).abs() < 1e-13, "{pair:?} {loss}");
                }
            }
        }
    }

    #[test]
    fn no_loss_is_below_that_of_an_absent_client() {
        let pair = Pair::sampled(0.3, 1.0);
        assert_eq!(pair.below(0.7_f64.ln() - 1e-9), 0.0);
        assert!(pair.below(0.7_f64.ln() + 1e-2) > 0.0);
    }
}
