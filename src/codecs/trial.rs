//! Common code for tests of codecs: runs in memory, values that trip codecs, damaged streams.

use crate::codecs::{CHUNK, Codec, Coding, Extent, Invalid, Scheme, Seeds, Vector, chunks, parse, settle};
use crate::kernels::lanes::Isa;
use std::ops::Range;

/// An encoded vector.
pub(super) struct Encoded {
    pub(super) vector: Vector,
    pub(super) coding: Coding,
    /// The bytes of each stream of each chunk.
    pub(super) chunks: Vec<Vec<Vec<u8>>>,
}

pub(super) const SEEDS: Seeds = Seeds { own: 11, shared: 22 };

/// Sizes around those at which blocks and chunks end.
pub(super) const SIZES: [usize; 12] = [1, 2, 63, 64, 65, 255, 256, 257, CHUNK - 1, CHUNK, CHUNK + 1, 200_003];

/// Encodes values in memory.
pub(super) fn encode(codec: &dyn Codec, shape: &[usize], values: &[f32]) -> Encoded {
    encode_with(codec, &Vector { len: values.len(), shape: shape.to_vec() }, values, SEEDS)
}

/// Encodes values with other seeds.
pub(super) fn encode_with(codec: &dyn Codec, vector: &Vector, values: &[f32], seeds: Seeds) -> Encoded {
    encode_on(Isa::detect(), codec, vector, values, seeds)
}

/// Encodes values with one instruction set.
pub(super) fn encode_on(
    isa: Isa,
    codec: &dyn Codec,
    vector: &Vector,
    values: &[f32],
    seeds: Seeds,
) -> Encoded {
    let mut encoder = codec.encoder(isa, vector, seeds);
    settle(encoder.as_mut(), values);
    let chunks = chunks(values).map(|(start, chunk)| encoder.encode(start, chunk)).collect();
    Encoded { vector: vector.clone(), coding: encoder.coding(), chunks }
}

impl Encoded {
    fn scheme(&self) -> &dyn Scheme {
        self.coding.scheme().unwrap()
    }

    /// The values of a chunk.
    fn run(&self, chunk: usize) -> Range<usize> {
        chunk * CHUNK..self.vector.len.min((chunk + 1) * CHUNK)
    }

    fn decode_run(&self, run: Range<usize>, streams: &[&[u8]]) -> Result<Vec<f32>, Invalid> {
        let mut out = vec![f32::NAN; run.len()];
        self.scheme().decode(Isa::detect(), &self.vector, run.start, streams, &mut out).map(|()| out)
    }

    /// Decodes a chunk from these streams.
    pub(super) fn decode_chunk(&self, chunk: usize, streams: &[Vec<u8>]) -> Result<Vec<f32>, Invalid> {
        let streams: Vec<&[u8]> = streams.iter().map(Vec::as_slice).collect();
        self.decode_run(self.run(chunk), &streams)
    }

    /// Decodes all values. The coding goes through JSON and postcard first.
    pub(super) fn decode(&self) -> Vec<f32> {
        let json = serde_json::to_string(&self.coding).unwrap();
        assert_eq!(serde_json::from_str::<Coding>(&json).unwrap(), self.coding);
        let bytes = postcard::to_allocvec(&self.coding).unwrap();
        assert_eq!(postcard::from_bytes::<Coding>(&bytes).unwrap(), self.coding);
        self.scheme().streams(&self.vector).unwrap();
        let chunk = |(i, streams): (usize, &Vec<Vec<u8>>)| self.decode_chunk(i, streams).unwrap();
        self.chunks.iter().enumerate().flat_map(chunk).collect()
    }

    /// Whether each stream has the bytes of chunks, one chunk after another.
    fn are_of_chunks(&self) -> Vec<bool> {
        let streams = self.scheme().streams(&self.vector).unwrap();
        streams.iter().map(|stream| stream.extent == Extent::Chunks).collect()
    }

    /// The streams of known extent as a file has them; the others stay empty.
    pub(super) fn streams(&self) -> Vec<Vec<u8>> {
        let sizes = self.scheme().streams(&self.vector).unwrap();
        let sizes = sizes.into_iter().map(|stream| stream.spec("", 0).unwrap().bytes());
        let mut streams: Vec<Vec<u8>> = sizes.map(|bytes| vec![0xaa; bytes]).collect();
        let of_chunks = self.are_of_chunks();
        for (chunk, pieces) in self.chunks.iter().enumerate() {
            for (number, bytes) in pieces.iter().enumerate().filter(|(number, _)| !of_chunks[*number]) {
                let within = self.scheme().bytes(&self.vector, number, self.run(chunk));
                streams[number][within].copy_from_slice(bytes);
            }
        }
        streams
    }

    /// Values of the shortest run that is decoded alone.
    fn unit(&self) -> usize {
        if self.are_of_chunks().contains(&true) { CHUNK } else { self.scheme().unit(&self.vector) }
    }

    /// Decodes a run of whole units from the streams of known extent and the chunk that holds the run.
    fn decode_of(&self, streams: &[Vec<u8>], run: Range<usize>) -> Vec<f32> {
        let bytes = |(number, of_chunks): (usize, bool)| -> &[u8] {
            match of_chunks {
                true => &self.chunks[run.start / CHUNK][number],
                false => &streams[number][self.scheme().bytes(&self.vector, number, run.clone())],
            }
        };
        let bytes: Vec<&[u8]> = self.are_of_chunks().into_iter().enumerate().map(bytes).collect();
        self.decode_run(run, &bytes).unwrap()
    }

    /// Squared error over squared norm.
    pub(super) fn nmse(&self, values: &[f32]) -> f64 {
        nmse(values, &self.decode())
    }

    /// Checks that a decoder refuses a chunk with a stream cut or extended, and decodes only finite values if a byte is
    /// changed.
    pub(super) fn assert_total(&self, chunk: usize) {
        let whole = &self.chunks[chunk];
        for (stream, bytes) in whole.iter().enumerate() {
            let with = |damage: &dyn Fn(&mut Vec<u8>)| {
                let mut damaged = whole.clone();
                damage(&mut damaged[stream]);
                self.decode_chunk(chunk, &damaged)
            };
            // Every byte of a short stream, about a hundred of a long one.
            let step = if bytes.len() < 1500 { 1 } else { 1 + bytes.len() / 97 };
            for len in (0..bytes.len()).step_by(step).chain([bytes.len() + 1]) {
                let refused = with(&|bytes| bytes.resize(len, 0)).is_err();
                assert!(refused, "{len} bytes of stream {stream} of {}", bytes.len());
            }
            for (at, flip) in (0..bytes.len()).step_by(step).zip([1u8, 128, 255, 64].into_iter().cycle()) {
                if let Ok(values) = with(&|bytes| bytes[at] ^= flip) {
                    assert!(values.iter().all(|x| x.is_finite()), "byte {at} of stream {stream}");
                }
            }
        }
    }
}

/// Encodes and decodes values as a file has them. Checks that all decode to finite values, and a run of one unit to the
/// same values.
pub(super) fn back_with(codec: &dyn Codec, vector: &Vector, values: &[f32], seed: u64) -> (Coding, Vec<f32>) {
    let encoded = encode_with(codec, vector, values, Seeds { own: seed, ..SEEDS });
    let streams = encoded.streams();
    let all: Vec<f32> =
        (0..encoded.chunks.len()).flat_map(|chunk| encoded.decode_of(&streams, encoded.run(chunk))).collect();
    assert!(all.iter().all(|x| x.is_finite()), "{codec} decodes {:?} to what is not finite", vector.shape);
    let unit = encoded.unit();
    assert_eq!(CHUNK % unit, 0);
    let start = values.len() / 2 / unit * unit;
    let run = start..(start + unit).min(values.len());
    assert_eq!(encoded.decode_of(&streams, run.clone()), all[run]);
    (encoded.coding, all)
}

/// Encodes and decodes values by a named codec.
pub(super) fn back(text: &str, vector: &Vector, values: &[f32]) -> (Coding, Vec<f32>) {
    back_with(parse(text).unwrap().as_ref(), vector, values, SEEDS.own)
}

/// Checks that a codec refuses damage to a vector and to a matrix.
pub(super) fn assert_refuses_damage(text: &str) {
    for vector in shapes(1000) {
        encode(parse(text).unwrap().as_ref(), &vector.shape, &normal(1000, 1)).assert_total(0);
    }
}

/// Squared error over squared norm.
pub(super) fn nmse(values: &[f32], decoded: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let errors = values.iter().zip(decoded).map(|(x, y)| square(f64::from(*x) - f64::from(*y)));
    errors.sum::<f64>() / values.iter().map(|x| square((*x).into())).sum::<f64>()
}

/// The shapes of a vector and of a matrix with `len` values.
pub(super) fn shapes(len: usize) -> Vec<Vector> {
    let rows = [5, 3, 4, 17].into_iter().find(|rows| len.is_multiple_of(*rows)).unwrap_or(1);
    vec![Vector { len, shape: vec![len] }, Vector { len, shape: vec![rows, len / rows] }]
}

/// Values of a standard normal distribution, the same every time.
pub(super) fn normal(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut even = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1u64 << 24) as f64
    };
    (0..len)
        .map(|_| {
            // Box and Muller, 1958.
            let (u, v) = (1.0 - even(), even());
            ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
        })
        .collect()
}

/// Values that trip codecs: zeros, equal values, the least and the largest numbers, one outlier.
pub(super) fn hard(len: usize) -> [(&'static str, Vec<f32>); 7] {
    let mut huge = normal(len, 3);
    huge[len / 2] = 3e38;
    let sign = |i: usize| if i.is_multiple_of(3) { -1.0f32 } else { 1.0 };
    let of = |value: &dyn Fn(usize) -> f32| (0..len).map(value).collect();
    [
        ("zeros", vec![0.0; len]),
        ("all equal", vec![-1.25; len]),
        ("least", of(&|i| sign(i) * f32::from_bits(1 + i as u32 % 9))),
        ("subnormal", of(&|i| sign(i) * f32::from_bits(i as u32 * 7919 % 0x7f_ffff))),
        ("3e38", of(&|i| sign(i) * 3e38)),
        ("the largest", of(&|i| [f32::MAX, f32::MIN, 0.0][i % 3])),
        ("one huge", huge),
    ]
}

/// Normal values of every size, and values that trip codecs, each with a name.
pub(super) fn trial_values() -> impl Iterator<Item = (String, Vec<f32>)> {
    let sizes = SIZES.into_iter().map(|len| (format!("{len} values"), normal(len, 1)));
    sizes.chain(hard(300).map(|(what, values)| (what.to_owned(), values)))
}
