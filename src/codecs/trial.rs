//! What tests of codecs share: a codec run over values in memory, values that are hard, streams that are broken.

use super::{CHUNK, Codec, Coding, Invalid, Seeds, Tally, Vector};
use crate::kernels::lanes::Isa;

/// A vector that was encoded.
pub(super) struct Encoded {
    pub(super) vector: Vector,
    pub(super) coding: Coding,
    /// The bytes of each stream, chunk by chunk.
    pub(super) chunks: Vec<Vec<Vec<u8>>>,
}

pub(super) const SEEDS: Seeds = Seeds { own: 11, shared: 22 };

/// Sizes at which something begins or ends.
pub(super) const SIZES: [usize; 12] = [1, 2, 63, 64, 65, 255, 256, 257, CHUNK - 1, CHUNK, CHUNK + 1, 200_003];

/// The values as [`Encoder`](super::Encoder)s get them, encoded.
pub(super) fn encode(codec: &dyn Codec, shape: &[usize], values: &[f32]) -> Encoded {
    let vector = Vector { len: values.len(), shape: shape.to_vec() };
    let mut encoder = codec.encoder(Isa::detect(), &vector, SEEDS);
    let chunks = || values.chunks(CHUNK).enumerate().map(|(i, chunk)| (i * CHUNK, chunk));
    while encoder.wants_look() {
        let mut tally = Tally::default();
        let wanted = |(start, _): &(usize, &[f32])| (start / CHUNK).is_multiple_of(encoder.look_at_each());
        chunks().filter(wanted).for_each(|(start, chunk)| tally.add(&encoder.look(start, chunk)));
        encoder.learn(tally);
    }
    let chunks = chunks().map(|(start, chunk)| encoder.encode(start, chunk)).collect();
    Encoded { vector, coding: encoder.coding(), chunks }
}

impl Encoded {
    /// What a chunk is decoded to from these streams.
    pub(super) fn decode_chunk(&self, chunk: usize, streams: &[Vec<u8>]) -> Result<Vec<f32>, Invalid> {
        let scheme = self.coding.scheme().unwrap();
        let start = chunk * CHUNK;
        let mut out = vec![f32::NAN; CHUNK.min(self.vector.len - start)];
        let streams: Vec<&[u8]> = streams.iter().map(Vec::as_slice).collect();
        scheme.decode(Isa::detect(), &self.vector, start, &streams, &mut out).map(|()| out)
    }

    /// All values, through the text and the bytes that the coding travels as.
    pub(super) fn decode(&self) -> Vec<f32> {
        let json = serde_json::to_string(&self.coding).unwrap();
        assert_eq!(serde_json::from_str::<Coding>(&json).unwrap(), self.coding);
        let bytes = postcard::to_allocvec(&self.coding).unwrap();
        assert_eq!(postcard::from_bytes::<Coding>(&bytes).unwrap(), self.coding);
        self.coding.scheme().unwrap().streams(&self.vector).unwrap();
        let chunk = |(i, streams): (usize, &Vec<Vec<u8>>)| self.decode_chunk(i, streams).unwrap();
        self.chunks.iter().enumerate().flat_map(chunk).collect()
    }

    /// Squared error over squared norm.
    pub(super) fn nmse(&self, values: &[f32]) -> f64 {
        let error = |(x, y): (&f32, f32)| (f64::from(*x) - f64::from(y)).powi(2);
        let errors: f64 = values.iter().zip(self.decode()).map(error).sum();
        errors / values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>()
    }

    /// Checks that a chunk is refused, not misread, when a stream of its is cut, and never makes decoders panic or
    /// give what is not finite when a byte of it is another.
    pub(super) fn assert_total(&self, chunk: usize) {
        for stream in 0..self.chunks[chunk].len() {
            let whole = &self.chunks[chunk];
            for len in (0..whole[stream].len()).step_by(1 + whole[stream].len() / 97) {
                let mut cut = whole.clone();
                cut[stream].truncate(len);
                assert!(self.decode_chunk(chunk, &cut).is_err(), "{len} bytes of stream {stream}");
            }
            for (at, flip) in (0..whole[stream].len())
                .step_by(1 + whole[stream].len() / 97)
                .zip([1u8, 128, 255, 64].into_iter().cycle())
            {
                let mut broken = whole.clone();
                broken[stream][at] ^= flip;
                if let Ok(values) = self.decode_chunk(chunk, &broken) {
                    assert!(values.iter().all(|x| x.is_finite()), "byte {at} of stream {stream}");
                }
            }
        }
    }
}

/// Numbers of a standard normal distribution, the same every time.
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

/// Vectors that trip codecs: zeros, one value for all, the least and the largest numbers, one that outweighs all.
pub(super) fn hard(len: usize) -> Vec<Vec<f32>> {
    let mut spike = normal(len, 3);
    spike[len / 2] = 1e30;
    let sign = |i: usize| if i.is_multiple_of(3) { -1.0f32 } else { 1.0 };
    vec![
        vec![0.0; len],
        vec![-1.25; len],
        (0..len).map(|i| sign(i) * f32::from_bits(1 + i as u32 % 9)).collect(),
        (0..len).map(|i| sign(i) * 3e38).collect(),
        spike,
    ]
}
