//! What tests of block codecs share: streams put together as a file has them, runs decoded of them, matrices.

use super::trial::normal;
use super::{CHUNK, Codec, Coding, Invalid, Scheme, Seeds, Tally, Vector, parse};
use crate::kernels::lanes::Isa;

/// So many numbers of a standard normal distribution, the same on every call.
pub(super) fn gaussian(len: usize) -> Vec<f32> {
    normal(len, 1)
}

/// Values of all kinds, with a word for each.
pub(super) fn trial_values() -> Vec<(String, Vec<f32>)> {
    let sizes = [1, 2, 63, 64, 65, 255, 256, 257, 65_535, 65_536, 65_537, 200_003];
    let mut all: Vec<(String, Vec<f32>)> =
        sizes.into_iter().map(|len| (format!("{len} values"), gaussian(len))).collect();
    let mut named = |what: &str, values: Vec<f32>| all.push((what.to_owned(), values));
    named("zeros", vec![0.0; 300]);
    named("all equal", vec![-0.3; 300]);
    named("subnormal", (0..300).map(|i| f32::from_bits(i * 7919 % 0x7f_ffff)).collect());
    named("3e38", (0..300).map(|i| [3e38, -3e38, 1e38][i % 3]).collect());
    named("the largest", (0..300).map(|i| [f32::MAX, f32::MIN, 0.0][i % 3]).collect());
    let mut huge = gaussian(300);
    huge[70] = 3e38;
    named("one huge", huge);
    all
}

/// A vector of so many values, and a matrix.
pub(super) fn shapes(len: usize) -> Vec<Vector> {
    let rows = [5, 3, 4, 17].into_iter().find(|rows| len.is_multiple_of(*rows)).unwrap_or(1);
    vec![Vector { len, shape: vec![len] }, Vector { len, shape: vec![rows, len / rows] }]
}

/// All streams of a vector, whole.
pub(super) fn encoded(
    codec: &dyn Codec,
    vector: &Vector,
    values: &[f32],
    seed: u64,
) -> (Coding, Vec<Vec<u8>>) {
    let mut encoder = codec.encoder(Isa::detect(), vector, Seeds { own: seed, shared: 1 });
    let chunks = || values.chunks(CHUNK).enumerate().map(|(i, chunk)| (i * CHUNK, chunk));
    while encoder.wants_look() {
        let mut tally = Tally::default();
        chunks().for_each(|(start, chunk)| tally.add(&encoder.look(start, chunk)));
        encoder.learn(tally);
    }
    let coding = encoder.coding();
    let scheme = coding.scheme().unwrap();
    let sizes = scheme.streams(vector).unwrap().into_iter().map(|stream| stream.spec("", 0).unwrap().bytes());
    let mut streams: Vec<Vec<u8>> = sizes.map(|bytes| vec![0xaa; bytes]).collect();
    for (start, chunk) in chunks() {
        for (number, bytes) in encoder.encode(start, chunk).into_iter().enumerate() {
            let within = scheme.bytes(vector, number, start..start + chunk.len());
            streams[number][within].copy_from_slice(&bytes);
        }
    }
    (coding, streams)
}

/// Decodes a run of whole units.
pub(super) fn decoded(
    scheme: &dyn Scheme,
    vector: &Vector,
    streams: &[Vec<u8>],
    run: std::ops::Range<usize>,
) -> Result<Vec<f32>, Invalid> {
    let of_run = |(number, stream): (usize, &Vec<u8>)| {
        let within = scheme.bytes(vector, number, run.clone());
        stream.get(within).map(<[u8]>::to_vec).ok_or_else(|| Invalid::new("too short"))
    };
    let bytes: Vec<Vec<u8>> = streams.iter().enumerate().map(of_run).collect::<Result<_, _>>()?;
    let bytes: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
    let mut out = vec![f32::NAN; run.len()];
    scheme.decode(Isa::detect(), vector, run.start, &bytes, &mut out)?;
    Ok(out)
}

/// What values are encoded as and decoded to, chunk by chunk; a run of one unit gives the same.
pub(super) fn back_with(codec: &dyn Codec, vector: &Vector, values: &[f32], seed: u64) -> (Coding, Vec<f32>) {
    let (coding, streams) = encoded(codec, vector, values, seed);
    let scheme = coding.scheme().unwrap();
    let mut all = Vec::new();
    for start in (0..values.len()).step_by(CHUNK) {
        all.extend(decoded(scheme, vector, &streams, start..(start + CHUNK).min(values.len())).unwrap());
    }
    assert!(all.iter().all(|x| x.is_finite()), "{codec} decodes {:?} to what is not finite", vector.shape);
    let unit = scheme.unit(vector);
    assert_eq!(CHUNK % unit, 0);
    let start = values.len() / 2 / unit * unit;
    let run = start..(start + unit).min(values.len());
    assert_eq!(decoded(scheme, vector, &streams, run.clone()).unwrap(), all[run]);
    (coding, all)
}

/// The same by the name of a codec.
pub(super) fn back(text: &str, vector: &Vector, values: &[f32]) -> (Coding, Vec<f32>) {
    back_with(parse(text).unwrap().as_ref(), vector, values, 7)
}

/// Squared error over squared norm.
pub(super) fn nmse(values: &[f32], decoded: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let errors = values.iter().zip(decoded).map(|(x, y)| square(f64::from(*x) - f64::from(*y)));
    errors.sum::<f64>() / values.iter().map(|x| square((*x).into())).sum::<f64>()
}

/// Streams that are too short or too long are refused, and no bytes bring a decoder down.
pub(super) fn assert_refuses_damage(text: &str) {
    for vector in shapes(1000) {
        let (coding, streams) = encoded(parse(text).unwrap().as_ref(), &vector, &gaussian(1000), 7);
        let scheme = coding.scheme().unwrap();
        let decode = |streams: &[Vec<u8>]| {
            let bytes: Vec<&[u8]> = streams.iter().map(Vec::as_slice).collect();
            let mut out = vec![0.0; 1000];
            scheme.decode(Isa::detect(), &vector, 0, &bytes, &mut out).map(|()| out)
        };
        decode(&streams).unwrap();
        for number in 0..streams.len() {
            for len in [0, 1, streams[number].len() - 1, streams[number].len() + 1] {
                let mut damaged = streams.clone();
                damaged[number].resize(len, 0);
                assert!(decode(&damaged).is_err(), "{text}: {len} bytes of stream {number}");
            }
            for place in 0..streams[number].len() {
                let mut damaged = streams.clone();
                damaged[number][place] ^= 0xff;
                if let Ok(out) = decode(&damaged) {
                    assert!(out.iter().all(|x| x.is_finite()), "{text}: byte {place} of stream {number}");
                }
            }
        }
    }
}
