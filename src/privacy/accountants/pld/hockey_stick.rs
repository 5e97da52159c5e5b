//! Hockey-stick curves: how much more likely than e^l times something can be under one neighbour than under the other,
//! by the loss l. This is delta at epsilon = l.
//!
//! For Gaussian noise of s sensitivities, and u = 1 / s, it is D(b) = phi(b) (m(b) - m(b + u)), with m Mills' ratio and
//! b = s l - u / 2: a difference of Mills' ratios keeps its digits where one of tails would lose them. Sampling at rate q
//! takes it to q D at the loss ln(1 + (e^l - 1) / q), for l of zero and more (Balle, Barthe & Gaboardi 2018, arXiv
//! 1807.01647). With the neighbours exchanged it is q r e^l D(-a), with r the unsampled ratio at loss -l, and a = b + u
//! there. Below zero what counts is how far a curve lies above 1 - e^l, and this is e^l times the exchanged one at -l.

use crate::privacy::accountants::normal::{density, mills, upper_tail};

/// A pair of distributions that no neighbours exceed. The first is that with the client.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Pair {
    /// How likely the client is in the sample; one for all clients.
    rate: f64,
    /// Standard deviation of the noise by sensitivity.
    noise: f64,
    /// Whether the neighbours may change places, so that each bounds the other: what one client sends is replaced.
    symmetric: bool,
}

/// Above this loss, e^l is not computed.
const LARGE_LOSS: f64 = 30.0;

impl Pair {
    /// Gaussian noise on a sum of clients that are each drawn at this rate; one client is there or not.
    pub(super) fn sampled(rate: f64, noise: f64) -> Self {
        Self { rate, noise, symmetric: rate == 1.0 }
    }

    /// Gaussian noise on a sum of a fixed share of clients, one of which sends something else. Either neighbour may be the
    /// first, so that below zero the curve is the mirror image of that above.
    pub(super) fn replaced(rate: f64, noise: f64) -> Self {
        Self { rate, noise, symmetric: true }
    }

    /// Whether losses are distributed alike in both directions.
    pub(super) fn is_symmetric(&self) -> bool {
        self.symmetric
    }

    /// The curve at a loss of zero or more.
    pub(super) fn above(&self, loss: f64) -> f64 {
        let b = self.noise * self.unsampled(loss) - 0.5 / self.noise;
        self.rate * stick(b, 1.0 / self.noise)
    }

    /// The curve with the neighbours exchanged, at a loss of zero or more.
    pub(super) fn above_reversed(&self, loss: f64) -> f64 {
        if self.symmetric {
            return self.above(loss);
        }
        let change = libm::expm1(-loss) / self.rate;
        if change <= -1.0 {
            // An absent client makes nothing rarer than by 1 - rate.
            return 0.0;
        }
        let unsampled = libm::log1p(change);
        let a = self.noise * unsampled + 0.5 / self.noise;
        self.rate * libm::exp(unsampled + loss) * stick(-a, 1.0 / self.noise)
    }

    /// How far the curve is above 1 - e^loss at a loss of zero or less.
    pub(super) fn below(&self, loss: f64) -> f64 {
        libm::exp(loss) * self.above_reversed(-loss)
    }

    /// The loss of the noise alone that sampling turns into this one, which is zero or more.
    fn unsampled(&self, loss: f64) -> f64 {
        match loss > LARGE_LOSS {
            true => loss - libm::log(self.rate) + libm::log1p((self.rate - 1.0) * libm::exp(-loss)),
            false => libm::log1p(libm::expm1(loss) / self.rate),
        }
    }
}

/// phi(b) (m(b) - m(b + u)), for b of -u / 2 and more.
fn stick(b: f64, u: f64) -> f64 {
    match b < -1.0 {
        // Then b + u is above 1, and nothing cancels.
        true => upper_tail(b) - density(b) * mills(b + u),
        false => density(b) * (mills(b) - mills(b + u)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Delta at epsilon as the definition has it, of tails.
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
