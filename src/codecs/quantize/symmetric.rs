//! `i2` to `i8`: integers on an even grid about zero, one scale per block.
//!
//! `s = max |x| / (2^(b-1) - 1)`, `q = round(x / s)`, decoded as `q s`. `s` is zero if it would not be a normal f32.
//!
//! A matrix whose blocks are rows, or divide the rows, has the layout of compressed-tensors, which can then decode it.
//! `weight_packed` has the codes plus `2^(b-1)` in words of 32 bits, lowest bits first, rows padded to whole words.
//! `weight_scale` has a row of scales for each row, `weight_shape` the shape. Codes of 8 bits are stored unpacked, as
//! I8.

use crate::codecs::packing::bits;
use crate::codecs::quantize::blocks::{Blocks, EndsOfBlocks, inverse, limit, scales};
use crate::codecs::quantize::rounding::{Round, rounding};
use crate::codecs::{
    CHUNK, Codec, Coding, Device, Encoder, Extent, Family, Invalid, Scheme, Seeds, Stream, Tally, Vector,
    check_lengths, device,
};
use crate::kernels::block_quantize::{dequantize_symmetric, quantize_symmetric};
use crate::kernels::lanes::Isa;
use crate::kernels::pack_bits::packed_len;
use crate::model::dtype::Dtype;
use crate::settings::{Settings, SpecError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// The codecs of this file, for the registry.
pub(crate) const FAMILY: Family = Family {
    summary: "integers on an even grid about zero, one scale per block",
    settings: &[
        ("block", &["32", "128", "0"]),
        ("per", &["channel"]),
        ("rounding", &["nearest", "stochastic"]),
    ],
    tried: &[],
    codecs: &[
        ("i2", parse::<2>),
        ("i3", parse::<3>),
        ("i4", parse::<4>),
        ("i5", parse::<5>),
        ("i6", parse::<6>),
        ("i7", parse::<7>),
        ("i8", parse::<8>),
    ],
};

/// Bytes of a word; rows are padded to whole words.
const WORD: usize = 4;

/// The coding: how the codes of a vector were made.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Symmetric {
    /// Bits of a code, 2 to 8.
    pub bits: u8,
    /// Which values share a scale.
    pub blocks: Blocks,
}

#[derive(Clone, Debug)]
struct SymmetricCodec {
    scheme: Symmetric,
    round: Round,
    device: Option<Arc<dyn Device>>,
}

fn parse<const BITS: u8>(settings: &mut Settings) -> Result<Box<dyn Codec>, SpecError> {
    let default = Blocks::Runs(if BITS == 8 { 128 } else { 32 });
    let blocks = Blocks::parse(settings, &format!("i{BITS}"), default)?;
    let (scheme, round) = (Symmetric { bits: BITS, blocks }, Round::parse(settings)?);
    Ok(Box::new(SymmetricCodec { scheme, round, device: None }))
}

impl fmt::Display for SymmetricCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i{}:{}{}", self.scheme.bits, self.scheme.blocks, self.round)
    }
}

impl Codec for SymmetricCodec {
    fn encoder(&self, isa: Isa, vector: &Vector, seeds: Seeds) -> Box<dyn Encoder> {
        let ends = EndsOfBlocks::new(isa, self.scheme.blocks, vector);
        Box::new(SymmetricEncoder { codec: self.clone(), ends, seed: seeds.own })
    }

    fn is_unbiased(&self) -> bool {
        self.round == Round::Stochastic
    }

    fn contracting(&self) -> Option<String> {
        (self.round == Round::Stochastic).then(|| Self { round: Round::Nearest, ..self.clone() }.to_string())
    }

    fn has_shaders(&self) -> bool {
        true
    }

    fn on_device(&self, device: Arc<dyn Device>) -> Option<Arc<dyn Codec>> {
        Some(Arc::new(Self { device: Some(device), ..self.clone() }))
    }
}

#[derive(Debug)]
struct SymmetricEncoder {
    codec: SymmetricCodec,
    ends: EndsOfBlocks,
    seed: u64,
}

impl SymmetricEncoder {
    /// The codes from the GPU; `None` without a GPU, or if a scale is outside the range where the GPU has the CPU's
    /// bits.
    fn on_device(&self, start: usize, values: &[f32], scales: &[f32]) -> Option<Vec<i8>> {
        let (device, scheme) = (self.codec.device.as_ref()?, self.codec.scheme);
        let run = scheme.blocks.of_run(&self.ends.vector, start, values.len());
        if scales.iter().any(|scale| !device::suits(f64::from(*scale))) {
            return None;
        }
        let inverses: Vec<f32> = scales.iter().map(|scale| inverse(*scale)).collect();
        let draw = self.codec.round.draw(self.seed, start);
        device.quantize_symmetric(values, run, &inverses, scheme.top(), draw)
    }

    fn codes(&self, start: usize, values: &[f32], scales: &[f32]) -> Vec<i8> {
        let (isa, scheme) = (self.ends.isa, self.codec.scheme);
        let words = self.codec.round.words(isa, self.seed, start, values.len());
        let mut codes = vec![0i8; values.len()];
        for (piece, scale) in scheme.blocks.pieces(&self.ends.vector, start, values.len()).zip(scales) {
            let rounding = rounding(words.as_ref(), piece.clone());
            let values = &values[piece.clone()];
            quantize_symmetric(isa, values, inverse(*scale), scheme.top(), rounding, &mut codes[piece]);
        }
        codes
    }
}

impl Encoder for SymmetricEncoder {
    fn wants_look(&self) -> bool {
        self.ends.wants_look()
    }

    fn look(&self, start: usize, values: &[f32]) -> Tally {
        self.ends.look(start, values)
    }

    fn learn(&mut self, tally: Tally) {
        self.ends.learn(tally);
    }

    fn coding(&self) -> Coding {
        Coding::Symmetric(self.codec.scheme)
    }

    fn at_once(&self) -> usize {
        if self.codec.device.is_some() { device::AT_ONCE } else { CHUNK }
    }

    fn encode(&self, start: usize, values: &[f32]) -> Vec<Vec<u8>> {
        let (isa, scheme, vector) = (self.ends.isa, self.codec.scheme, &self.ends.vector);
        let scales = self.ends.scales(start, values, f64::from(scheme.top()));
        let codes =
            self.on_device(start, values, &scales).unwrap_or_else(|| self.codes(start, values, &scales));
        let scales = bytemuck::cast_slice(&scales).to_vec();
        match scheme.form(vector) {
            Form::Plain => vec![bytemuck::cast_vec(codes), scales],
            Form::Packed => vec![bits::pack(isa, scheme.bits, scheme.shifted(&codes)), scales],
            Form::Rows { columns, .. } => {
                let packed = scheme.pack_rows(isa, columns, start, &scheme.shifted(&codes));
                vec![packed, scales, shape_bytes(vector)]
            }
        }
    }
}

fn shape_bytes(vector: &Vector) -> Vec<u8> {
    vector.shape.iter().flat_map(|extent| (*extent as u64).to_le_bytes()).collect()
}

/// The layout of the stream of codes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    /// A byte each, in two's complement.
    Plain,
    /// Packed without gaps.
    Packed,
    /// Packed, with rows padded to words.
    Rows { rows: usize, columns: usize },
}

impl Symmetric {
    fn top(self) -> i8 {
        ((1i16 << (self.bits - 1)) - 1) as i8
    }

    /// The shift that makes all codes at least zero.
    fn shift(self) -> u8 {
        1 << (self.bits - 1)
    }

    fn shifted(self, codes: &[i8]) -> Vec<u8> {
        codes.iter().map(|code| (*code as u8).wrapping_add(self.shift())).collect()
    }

    /// Rows and columns of a matrix whose blocks do not cross rows.
    fn matrix(self, vector: &Vector) -> Option<(usize, usize)> {
        match (&vector.shape[..], self.blocks) {
            ([rows, columns], Blocks::Rows) => Some((*rows, *columns)),
            ([rows, columns], Blocks::Runs(len)) if columns % len as usize == 0 => Some((*rows, *columns)),
            _ => None,
        }
    }

    fn form(self, vector: &Vector) -> Form {
        match self.matrix(vector) {
            _ if self.bits == 8 => Form::Plain,
            // Otherwise a byte would belong to two chunks.
            Some((rows, columns)) if columns % 8 == 0 => Form::Rows { rows, columns },
            _ => Form::Packed,
        }
    }

    fn row_bytes(self, columns: usize) -> usize {
        packed_len(columns, self.bits).next_multiple_of(WORD)
    }

    /// The bytes of the codes of a run, with the padding at the ends of rows.
    fn row_range(self, columns: usize, run: Range<usize>) -> Range<usize> {
        let byte = |i: usize| i / columns * self.row_bytes(columns) + packed_len(i % columns, self.bits);
        byte(run.start)..byte(run.end)
    }

    fn row_pieces(columns: usize, start: usize, len: usize) -> impl Iterator<Item = Range<usize>> {
        let rows = start / columns..(start + len).div_ceil(columns);
        rows.map(move |row| {
            (row * columns).max(start) - start..((row + 1) * columns).min(start + len) - start
        })
    }

    fn pack_rows(self, isa: Isa, columns: usize, start: usize, codes: &[u8]) -> Vec<u8> {
        let all = self.row_range(columns, start..start + codes.len());
        let mut packed = vec![0; all.len()];
        for piece in Self::row_pieces(columns, start, codes.len()) {
            let at = self.row_range(columns, start + piece.start..start + piece.end).start - all.start;
            let bytes = bits::pack(isa, self.bits, codes[piece].to_vec());
            packed[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        packed
    }

    fn unpack_rows(
        self,
        isa: Isa,
        columns: usize,
        run: Range<usize>,
        packed: &[u8],
    ) -> Result<Vec<u8>, Invalid> {
        let first = self.row_range(columns, run.clone()).start;
        let mut codes = Vec::with_capacity(run.len());
        for piece in Self::row_pieces(columns, run.start, run.len()) {
            let bytes = self.row_range(columns, run.start + piece.start..run.start + piece.end);
            let bytes = &packed[bytes.start - first..bytes.end - first];
            let (of_codes, padding) = bytes.split_at(packed_len(piece.len(), self.bits));
            codes.extend(bits::unpack(isa, self.bits, of_codes, piece.len())?);
            if padding.iter().any(|byte| *byte != 0) {
                return Err(Invalid(format!("found {padding:?} behind a row, expected zeros")));
            }
        }
        Ok(codes)
    }

    fn codes(self, isa: Isa, vector: &Vector, run: Range<usize>, stream: &[u8]) -> Result<Vec<i8>, Invalid> {
        let mut codes = match self.form(vector) {
            Form::Plain => return Ok(bytemuck::cast_slice(stream).to_vec()),
            Form::Packed => bits::unpack(isa, self.bits, stream, run.len())?,
            Form::Rows { columns, .. } => self.unpack_rows(isa, columns, run, stream)?,
        };
        codes.iter_mut().for_each(|code| *code = code.wrapping_sub(self.shift()));
        Ok(bytemuck::cast_vec(codes))
    }
}

impl Scheme for Symmetric {
    fn streams(&self, vector: &Vector) -> Result<Vec<Stream>, Invalid> {
        self.blocks.check()?;
        if !(2..=8).contains(&self.bits) {
            return Err(Invalid(format!("found codes of {} bits, expected 2 to 8", self.bits)));
        }
        let blocks = self.blocks.count(vector);
        let scales = match self.matrix(vector) {
            Some((rows, _)) => vec![rows, blocks / rows],
            None => vec![blocks],
        };
        let stream = |suffix, dtype, shape| Stream { suffix, dtype, extent: Extent::Known(shape) };
        let scales = stream("_scale", Dtype::F32, scales);
        Ok(match self.form(vector) {
            Form::Plain => vec![stream("", Dtype::I8, vector.shape.clone()), scales],
            Form::Packed => {
                vec![stream("_codes", Dtype::U8, vec![packed_len(vector.len, self.bits)]), scales]
            }
            Form::Rows { rows, columns } => vec![
                stream("_packed", Dtype::I32, vec![rows, self.row_bytes(columns) / WORD]),
                scales,
                stream("_shape", Dtype::I64, vec![2]),
            ],
        })
    }

    fn unit(&self, _vector: &Vector) -> usize {
        self.blocks.unit()
    }

    fn bytes(&self, vector: &Vector, stream: usize, values: Range<usize>) -> Range<usize> {
        match (stream, self.form(vector)) {
            (0, Form::Rows { columns, .. }) => self.row_range(columns, values),
            (0, _) => bits::range(self.bits, values),
            (1, _) => {
                let blocks = self.blocks.touched(vector, values);
                4 * blocks.start..4 * blocks.end
            }
            _ => 0..16,
        }
    }

    fn decode(
        &self,
        isa: Isa,
        vector: &Vector,
        start: usize,
        streams: &[&[u8]],
        out: &mut [f32],
    ) -> Result<(), Invalid> {
        self.decode_on(None, isa, vector, start, streams, out)
    }

    fn has_shaders(&self) -> bool {
        true
    }

    fn decode_on(
        &self,
        device: Option<&dyn Device>,
        isa: Isa,
        vector: &Vector,
        start: usize,
        streams: &[&[u8]],
        out: &mut [f32],
    ) -> Result<(), Invalid> {
        let run = start..start + out.len();
        check_lengths(self, vector, run.clone(), streams)?;
        if streams.get(2).is_some_and(|shape| *shape != shape_bytes(vector)) {
            return Err(Invalid(format!("found another shape than {:?} in `_shape`", vector.shape)));
        }
        let scales = scales(streams[1])?;
        let codes = self.codes(isa, vector, run, streams[0])?;
        if let Some(device) = device.filter(|_| scales.iter().all(|scale| device::suits_decoder(*scale))) {
            let run = self.blocks.of_run(vector, start, out.len());
            if let Some(values) = device.dequantize_symmetric(&codes, run, &scales) {
                out.copy_from_slice(&values);
                return Ok(());
            }
        }
        for (piece, scale) in self.blocks.pieces(vector, start, out.len()).zip(scales) {
            dequantize_symmetric(isa, &codes[piece.clone()], scale, &mut out[piece]);
        }
        limit(out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codecs::trial::{assert_refuses_damage, back, encode, normal, shapes, trial_values};

    #[test]
    fn values_come_back_to_the_nearest_code() {
        let texts = ["i8", "i4", "i2:block=8", "i3:per=channel", "i8:block=0", "i5:rounding=stochastic"];
        for (text, steps) in texts.map(|text| (text, if text.contains("stochastic") { 1.0 } else { 0.5 })) {
            for (what, values) in trial_values() {
                for vector in shapes(values.len()) {
                    let (coding, decoded) = back(text, &vector, &values);
                    let Coding::Symmetric(scheme) = coding else { panic!("{coding:?}") };
                    let block = scheme.blocks.len(&vector);
                    for (sent, got) in values.chunks(block).zip(decoded.chunks(block)) {
                        let largest = f64::from(sent.iter().fold(0.0f32, |m, x| m.max(x.abs())));
                        let bar = largest / f64::from(scheme.top()) * (steps + 1e-4)
                            + f64::from(f32::MIN_POSITIVE) * 127.0;
                        for (x, y) in sent.iter().zip(got) {
                            let error = (f64::from(*x) - f64::from(*y)).abs();
                            assert!(error <= bar, "{text}, {what}: {x} became {y}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn matrices_stand_as_compressed_tensors_has_them() {
        // Codes 0 to 7 and 0 to -7 are 8 to 15 and 8 down to 1 in its four bits.
        let values: Vec<f32> = (0..8).chain((0..8).map(|q| -q)).map(|q| q as f32 * 0.5).collect();
        let vector = Vector { len: 16, shape: vec![2, 8] };
        let codec = crate::codecs::parse("i4:per=channel").unwrap();
        let encoded = encode(codec.as_ref(), &vector.shape, &values);
        let (coding, streams) = (&encoded.coding, encoded.streams());
        assert_eq!(bytemuck::pod_collect_to_vec::<u8, u32>(&streams[0]), [0xfedc_ba98, 0x1234_5678]);
        assert_eq!(bytemuck::pod_collect_to_vec::<u8, f32>(&streams[1]), [0.5, 0.5]);
        assert_eq!(bytemuck::pod_collect_to_vec::<u8, u64>(&streams[2]), [2, 8]);
        let names: Vec<_> = coding.scheme().unwrap().streams(&vector).unwrap();
        let shape = |i: usize| match &names[i].extent {
            Extent::Known(shape) => (names[i].suffix, names[i].dtype, shape.clone()),
            Extent::Chunks => panic!("{names:?}"),
        };
        assert_eq!(shape(0), ("_packed", Dtype::I32, vec![2, 1]));
        assert_eq!(shape(1), ("_scale", Dtype::F32, vec![2, 1]));
        assert_eq!(shape(2), ("_shape", Dtype::I64, vec![2]));
    }

    #[test]
    fn rows_are_padded_to_words_across_chunks() {
        // 8 codes of 3 bits are three bytes of four; a chunk ends within a row of 24.
        for (rows, columns) in [(3, 8), (5, 40), (2800, 24)] {
            let vector = Vector { len: rows * columns, shape: vec![rows, columns] };
            let values = normal(vector.len, 1);
            let scheme = Symmetric { bits: 3, blocks: Blocks::Rows };
            assert_eq!(scheme.form(&vector), Form::Rows { rows, columns });
            let (_, decoded) = back("i3:per=channel", &vector, &values);
            let flat = Vector { len: vector.len, shape: vec![rows, 1, columns] };
            assert_eq!(scheme.form(&flat), Form::Packed);
            assert_eq!(back("i3:per=channel", &flat, &values).1, decoded);
        }
    }

    #[test]
    fn damage_is_refused() {
        for text in ["i8", "i3", "i4:per=channel", "i5:block=8"] {
            assert_refuses_damage(text);
        }
        let vector = Vector { len: 16, shape: vec![2, 8] };
        let scheme = Symmetric { bits: 4, blocks: Blocks::Rows };
        let decode = |scales: [f32; 2], shape: [u64; 2]| {
            let (scales, shape) = (bytemuck::cast_slice(&scales), bytemuck::cast_slice(&shape));
            scheme.decode(Isa::detect(), &vector, 0, &[&[0; 8], scales, shape], &mut [0.0; 16])
        };
        decode([1.0, 0.0], [2, 8]).unwrap();
        assert!(decode([1.0, f32::NAN], [2, 8]).unwrap_err().0.contains("as a scale"));
        assert!(decode([-1.0, 1.0], [2, 8]).unwrap_err().0.contains("as a scale"));
        assert!(decode([1.0, 1.0], [4, 4]).unwrap_err().0.contains("another shape"));
        assert!(Symmetric { bits: 1, blocks: Blocks::Rows }.streams(&vector).is_err());
    }
}
