//! The error of codecs for their bytes, on vectors of four distributions.

mod blocks;
mod ecsq;
mod eden;
mod same_size;

use fedmill::codecs::{self, CHUNK, Seeds, Vector};
use fedmill::kernels::lanes::Isa;

/// Values of a vector.
pub(crate) const VALUES: usize = 1 << 18;

/// A distribution of values, the same in every run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Distribution {
    Gaussian,
    Laplace,
    /// Student's t with three degrees of freedom: heavy tails.
    StudentT3,
    /// 90 % exact zeros, the others Gaussian.
    Sparse,
    /// The exponential of a Gaussian: all values are positive.
    LogNormal,
}

pub(crate) const DISTRIBUTIONS: [Distribution; 4] =
    [Distribution::Gaussian, Distribution::Laplace, Distribution::StudentT3, Distribution::Sparse];

/// A small deterministic generator (xorshift64*).
struct Random(u64);

impl Random {
    /// A number above 0 and below 1.
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Box and Muller, 1958.
    fn gaussian(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

impl Distribution {
    /// `len` values of the distribution.
    pub(crate) fn values(self, len: usize) -> Vec<f32> {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ self as u64);
        let mut one = || match self {
            Self::Gaussian => random.gaussian(),
            Self::Laplace => {
                let u = random.uniform() - 0.5;
                -u.signum() * (1.0 - 2.0 * u.abs()).ln()
            }
            Self::StudentT3 => {
                let squares: f64 = (0..3).map(|_| random.gaussian().powi(2)).sum();
                random.gaussian() / (squares / 3.0).sqrt()
            }
            Self::Sparse if random.uniform() < 0.9 => 0.0,
            Self::Sparse => random.gaussian(),
            Self::LogNormal => random.gaussian().exp(),
        };
        (0..len).map(|_| one() as f32).collect()
    }
}

/// The result of encoding.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// Bits per value, of the streams and the coding.
    pub(crate) bits: f64,
    /// Squared error over squared norm.
    pub(crate) nmse: f64,
}

/// Encodes and decodes values.
pub(crate) fn run(codec: &str, values: &[f32], seed: u64) -> Outcome {
    let (bytes, decoded) = coded(codec, values, seed);
    Outcome { bits: 8.0 * bytes as f64 / values.len() as f64, nmse: nmse(values, &decoded) }
}

/// The decoded values.
pub(crate) fn decoded(codec: &str, values: &[f32], seed: u64) -> Vec<f32> {
    coded(codec, values, seed).1
}

/// The bytes of encoded values, and the decoded values.
fn coded(codec: &str, values: &[f32], seed: u64) -> (usize, Vec<f32>) {
    let vector = Vector { len: values.len(), shape: vec![values.len()] };
    let seeds = Seeds { own: seed, shared: 1 };
    let mut encoder = codecs::parse(codec).unwrap().encoder(Isa::detect(), &vector, seeds);
    codecs::settle(encoder.as_mut(), values);
    let coding = encoder.coding();
    let scheme = coding.scheme().unwrap();
    let mut bytes = postcard::to_allocvec(&coding).unwrap().len();
    let mut decoded = vec![f32::NAN; values.len()];
    for ((start, chunk), decoded) in codecs::chunks(values).zip(decoded.chunks_mut(CHUNK)) {
        let streams = encoder.encode(start, chunk);
        bytes += streams.iter().map(Vec::len).sum::<usize>();
        let streams: Vec<&[u8]> = streams.iter().map(Vec::as_slice).collect();
        scheme.decode(Isa::detect(), &vector, start, &streams, decoded).unwrap();
    }
    (bytes, decoded)
}

/// The sum of squares.
pub(crate) fn square(values: &[f32]) -> f64 {
    values.iter().map(|x| f64::from(*x).powi(2)).sum()
}

/// Squared error over squared norm.
pub(crate) fn nmse(values: &[f32], decoded: &[f32]) -> f64 {
    let error = |(x, y): (&f32, &f32)| (f64::from(*x) - f64::from(*y)).powi(2);
    values.iter().zip(decoded).map(error).sum::<f64>() / square(values)
}

#[test]
fn distributions_have_their_moments() {
    for (distribution, square, fourth) in [
        (Distribution::Gaussian, 1.0, 3.0),
        (Distribution::Laplace, 2.0, 24.0),
        (Distribution::Sparse, 0.1, 0.3),
    ] {
        let values = distribution.values(VALUES);
        let moment = |k: i32| values.iter().map(|x| f64::from(*x).powi(k)).sum::<f64>() / VALUES as f64;
        assert!(moment(1).abs() < 0.01, "{distribution:?}");
        assert!((moment(2) / square - 1.0).abs() < 0.02, "{distribution:?}");
        assert!((moment(4) / fourth - 1.0).abs() < 0.06, "{distribution:?}");
    }
    // Half of the values lie within 0.7649, nine tenths within 2.3534.
    let mut magnitudes: Vec<f32> = Distribution::StudentT3.values(VALUES).iter().map(|x| x.abs()).collect();
    magnitudes.sort_by(f32::total_cmp);
    assert!((magnitudes[VALUES / 2] - 0.7649).abs() < 0.01);
    assert!((magnitudes[VALUES / 10 * 9] - 2.3534).abs() < 0.03);
}
