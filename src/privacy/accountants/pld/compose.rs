//! The loss of many releases: a sum of losses, by Fourier transform of tilted distributions.
//!
//! With masses times exp(lambda loss), scaled to a total of 1, sums are tilted too: a transform, a power, a transform
//! back. The result is exact except for losses that leave the window and wrap to its other end. Losses that wrap from
//! below only increase delta. Losses that leave above are bounded by Chernoff and counted as infinite, and so is
//! rounding in the transforms.

use super::grid::Losses;
use realfft::RealFftPlanner;
use realfft::num_complex::Complex64;

/// Probability with which a tilted sum may leave the window at either end.
const OUTSIDE: f64 = 1e-11;

/// Exponents at which Chernoff's bound is computed, in inverse standard deviations of the tilted sum.
const TRIALS: [f64; 9] = [0.125, 0.25, 0.5, 1.0, 2.0, 3.0, 4.5, 6.0, 8.0];

/// Number of losses after which a geometric series starts again, so that rounding does not accumulate.
const BLOCK: usize = 64;

/// Largest number of points of a transform.
const MOST_POINTS: usize = 1 << 22;

/// Repeated releases of one mechanism.
pub(super) struct Runs {
    losses: Losses,
    /// The logarithm of the largest mass of each block.
    largest: Vec<f64>,
    /// Number of repetitions.
    count: u64,
}

/// Mean and variance of a tilted distribution, and the logarithm of its scale.
#[derive(Clone, Copy, Default, Debug)]
struct TiltedMoments {
    /// ln of the sum of masses times exp(tilt loss).
    log_scale: f64,
    mean: f64,
    variance: f64,
}

impl Runs {
    pub(super) fn new(losses: Losses, count: u64) -> Self {
        let largest =
            losses.masses.chunks(BLOCK).map(|masses| libm::log(masses.iter().copied().fold(0.0, f64::max)));
        Self { largest: largest.collect(), losses, count }
    }

    /// The largest exponent of a tilted mass, up to the span of a block.
    fn shift(&self, tilt: f64) -> f64 {
        let starts = (self.losses.first..).step_by(BLOCK);
        let logs = starts.zip(&self.largest).map(|(start, log)| log + tilt * start as f64 * self.losses.step);
        logs.fold(f64::NEG_INFINITY, f64::max)
    }

    /// Calls `each` with every mass times exp(tilt loss - shift), and its place in steps.
    fn tilted(&self, tilt: f64, shift: f64, mut each: impl FnMut(i64, f64)) {
        let ratio = libm::exp(tilt * self.losses.step);
        for (block, masses) in self.losses.masses.chunks(BLOCK).enumerate() {
            let start = self.losses.first + (block * BLOCK) as i64;
            let mut factor = libm::exp(tilt * start as f64 * self.losses.step - shift);
            for (place, mass) in (start..).zip(masses) {
                if *mass > 0.0 {
                    each(place, mass * factor);
                }
                factor *= ratio;
            }
        }
    }

    fn log_scale(&self, tilt: f64) -> f64 {
        let (shift, mut sum) = (self.shift(tilt), 0.0);
        self.tilted(tilt, shift, |_, mass| sum += mass);
        shift + libm::log(sum)
    }

    fn moments(&self, tilt: f64) -> TiltedMoments {
        let (shift, mut sum, mut first, mut second) = (self.shift(tilt), 0.0, 0.0, 0.0);
        self.tilted(tilt, shift, |place, mass| {
            let place = place as f64;
            sum += mass;
            first += mass * place;
            second += mass * place * place;
        });
        let step = self.losses.step;
        let mean = first / sum;
        let variance = (second / sum - mean * mean).max(0.0);
        TiltedMoments {
            log_scale: shift + libm::log(sum),
            mean: mean * step,
            variance: variance * step * step,
        }
    }
}

/// All releases, on one grid and in one direction.
pub(super) struct Composition {
    runs: Vec<Runs>,
    step: f64,
}

/// The distribution of the sum about its tilted mean.
pub(super) struct Window {
    step: f64,
    tilt: f64,
    /// The reference loss: the mass of a loss is the stored mass times exp(log_scale - tilt (loss - reference)).
    reference: f64,
    log_scale: f64,
    /// The first loss, in steps.
    first: i64,
    /// TiltedMoments masses.
    masses: Vec<f64>,
    /// Probability of a loss that is infinite or above the window, in the scale of the masses.
    lost: f64,
    /// Largest amount by which rounding lowered a mass.
    rounding: f64,
}

/// The epsilon is below the window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BelowWindow;

impl Composition {
    /// Composes releases on grids with the same step.
    pub(super) fn new(runs: Vec<Runs>) -> Self {
        let step = runs.first().map_or(1.0, |runs| runs.losses.step);
        Self { runs, step }
    }

    /// ln E[exp(tilt sum)].
    pub(super) fn log_moment(&self, tilt: f64) -> f64 {
        self.runs.iter().map(|runs| runs.count as f64 * runs.log_scale(tilt)).sum()
    }

    fn moments(&self, tilt: f64) -> TiltedMoments {
        self.runs.iter().fold(TiltedMoments::default(), |sum, runs| {
            let (one, count) = (runs.moments(tilt), runs.count as f64);
            TiltedMoments {
                log_scale: sum.log_scale + count * one.log_scale,
                mean: sum.mean + count * one.mean,
                variance: sum.variance + count * one.variance,
            }
        })
    }

    /// The largest finite sum of losses.
    pub(super) fn highest(&self) -> f64 {
        let last = |runs: &Runs| runs.losses.first + runs.losses.masses.len() as i64 - 1;
        self.runs.iter().map(|runs| runs.count as f64 * last(runs) as f64).sum::<f64>() * self.step
    }

    /// The probability that any loss is infinite.
    pub(super) fn infinite(&self) -> f64 {
        let log_finite = |runs: &Runs| runs.count as f64 * libm::log1p(-runs.losses.infinite.min(1.0));
        -libm::expm1(self.runs.iter().map(log_finite).sum())
    }

    /// The distribution of the sum about its mean under a tilt; `None` if it needs too many points.
    pub(super) fn window(&self, tilt: f64) -> Option<Window> {
        let moments = self.moments(tilt);
        let deviation = moments.variance.sqrt().max(self.step);
        let grown = |tilt: f64| self.log_moment(tilt) - moments.log_scale;
        let outside = -OUTSIDE.ln();
        let top = |trial: f64| (grown(tilt + trial) + outside) / trial;
        let bottom = |trial: f64| -(grown(tilt - trial) + outside) / trial;
        let trials = || TRIALS.into_iter().map(|trial| trial / deviation);
        let top = trials().map(top).fold(f64::INFINITY, f64::min);
        let bottom = trials().map(bottom).fold(f64::NEG_INFINITY, f64::max);
        let first = (bottom / self.step).floor();
        let points = ((top / self.step).ceil() - first).max(1.0);
        if !(points <= MOST_POINTS as f64 && first.abs() < 1e15) {
            return None;
        }
        let points = good_size(points as usize + 1);
        let (masses, rounding) = self.transformed(tilt, points, first as i64);
        let reference = moments.mean;
        let above = (first as i64 + points as i64) as f64 * self.step;
        let log_scale = moments.log_scale - tilt * reference;
        let lost = self.infinite() * libm::exp(-log_scale) + OUTSIDE * libm::exp(-tilt * (above - reference));
        Some(Window {
            step: self.step,
            tilt,
            reference,
            log_scale,
            first: first as i64,
            masses,
            lost,
            rounding,
        })
    }

    /// The tilted masses of the sum from `first` on, on a circle of `points` points, and a bound of their rounding.
    fn transformed(&self, tilt: f64, points: usize, first: i64) -> (Vec<f64>, f64) {
        let mut planner = RealFftPlanner::<f64>::new();
        let (forward, backward) = (planner.plan_fft_forward(points), planner.plan_fft_inverse(points));
        let mut product = vec![Complex64::new(1.0, 0.0); points / 2 + 1];
        let mut scratch = forward.make_scratch_vec();
        let mut count = 0.0;
        for runs in &self.runs {
            let mut circle = vec![0.0; points];
            let scale = runs.log_scale(tilt);
            runs.tilted(tilt, scale, |place, mass| circle[place.rem_euclid(points as i64) as usize] += mass);
            let mut spectrum = forward.make_output_vec();
            // The call fails only for wrong lengths, and these come from the planner.
            let _ = forward.process_with_scratch(&mut circle, &mut spectrum, &mut scratch);
            for (product, value) in product.iter_mut().zip(spectrum) {
                *product *= power(value, runs.count);
            }
            count += runs.count as f64;
        }
        let mean_size = product.iter().map(|value| value.norm()).sum::<f64>() / product.len() as f64;
        let passes = 8.0 * (points as f64).log2().max(1.0) * (count + 1.0);
        let rounding = f64::EPSILON * passes * (mean_size + 1.0 / points as f64);
        // The size is even, and both ends of the spectrum of real values are real.
        product[0].im = 0.0;
        product[points / 2].im = 0.0;
        let mut circle = vec![0.0; points];
        let mut scratch = backward.make_scratch_vec();
        let _ = backward.process_with_scratch(&mut product, &mut circle, &mut scratch);
        circle.rotate_left(first.rem_euclid(points as i64) as usize);
        let scaled = circle.into_iter().map(|mass| (mass / points as f64).max(0.0));
        (scaled.collect(), rounding)
    }
}

/// z to the power n, by squaring.
fn power(mut z: Complex64, mut n: u64) -> Complex64 {
    let mut product = Complex64::new(1.0, 0.0);
    while n > 0 {
        if n & 1 == 1 {
            product *= z;
        }
        z *= z;
        n >>= 1;
    }
    product
}

/// An even size of at least `points` with a fast transform: a power of two, or three quarters of one.
fn good_size(points: usize) -> usize {
    let full = points.max(16).next_power_of_two();
    if points <= full / 4 * 3 { full / 4 * 3 } else { full }
}

impl Window {
    /// Whether a loss of zero is in the window.
    pub(super) fn reaches_zero(&self) -> bool {
        self.first <= 0
    }

    /// The least epsilon within the window at this delta.
    pub(super) fn epsilon(&self, delta: f64) -> Result<f64, BelowWindow> {
        let wanted = libm::exp(libm::log(delta) - self.log_scale);
        let found = self.scan(|_, delta| delta > wanted).ok_or(BelowWindow)?;
        Ok(found.loss + libm::log(((found.above - wanted) / found.weighted).max(0.0)))
    }

    /// Delta at an epsilon within the window.
    pub(super) fn delta(&self, epsilon: f64) -> Result<f64, BelowWindow> {
        let found = self.scan(|loss, _| loss <= epsilon).ok_or(BelowWindow)?;
        let delta = found.above - libm::exp(epsilon - found.loss) * found.weighted;
        Ok(delta * libm::exp(self.log_scale))
    }

    /// The tail above the highest loss at which `wanted`, given the loss and its delta, is true.
    fn scan(&self, wanted: impl Fn(f64, f64) -> bool) -> Option<UpperTail> {
        let fade = libm::exp(-self.step);
        let (mut above, mut weighted) = (self.lost, 0.0);
        for (place, mass) in self.masses.iter().enumerate().rev() {
            let loss = (self.first + place as i64) as f64 * self.step;
            weighted *= fade;
            if wanted(loss, above - weighted) {
                return Some(UpperTail { loss, above, weighted });
            }
            let mass = (mass + self.rounding) * libm::exp(-self.tilt * (loss - self.reference));
            above += mass;
            weighted += mass;
        }
        None
    }
}

/// The tail above a loss. Up to the next loss, delta at epsilon is `above - exp(epsilon - loss) weighted`.
struct UpperTail {
    loss: f64,
    above: f64,
    /// The tail with each mass times exp(loss - its loss).
    weighted: f64,
}
