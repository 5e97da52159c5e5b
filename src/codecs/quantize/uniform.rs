//! `u1` to `u8`: integers on an even grid between the lowest and the highest value of each block.
//!
//! `s = (hi - lo) / (2^b - 1)`, `q = round((x - lo) / s)`, decoded as `lo + q s`. Both ends travel, so the decoder has
//! the same grid. Grids are computed in f64, so no range is too wide. If `s` would not be a normal f32, all values of
//! the block become the middle.
//!
//! `rounding=stochastic` rounds to the upper code with a probability that makes the mean right (Suresh et al.,
//! Distributed mean estimation with limited communication, 2017, section 2.2).

use crate::codecs::packing::bits;
use crate::codecs::quantize::blocks::{Blocks, EndsOfBlocks};
use crate::codecs::quantize::rounding::{Round, rounding};
use crate::codecs::tally::Ends;
use crate::codecs::{
    CHUNK, Codec, Coding, Device, Encoder, Extent, Family, Invalid, Scheme, Seeds, Stream, Tally, Vector,
    check_lengths, device,
};
use crate::kernels::block_quantize::{Rounding, dequantize, quantize};
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
    summary: "integers on an even grid between the ends of a block",
    settings: &[
        ("block", &["64", "128", "0"]),
        ("per", &["channel"]),
        ("rounding", &["nearest", "stochastic"]),
    ],
    tried: &[],
    codecs: &[
        ("u1", parse::<1>),
        ("u2", parse::<2>),
        ("u3", parse::<3>),
        ("u4", parse::<4>),
        ("u5", parse::<5>),
        ("u6", parse::<6>),
        ("u7", parse::<7>),
        ("u8", parse::<8>),
    ],
};

/// Beyond this magnitude differences of values, or sums with steps, may leave f32.
const WIDE: f32 = 1e38;

/// The coding: how the codes of a vector were made.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Uniform {
    /// Bits of a code, 1 to 8.
    pub bits: u8,
    /// Which values share a grid.
    pub blocks: Blocks,
}

#[derive(Clone, Debug)]
struct UniformCodec {
    scheme: Uniform,
    round: Round,
    device: Option<Arc<dyn Device>>,
}

fn parse<const BITS: u8>(settings: &mut Settings) -> Result<Box<dyn Codec>, SpecError> {
    let default = Blocks::Runs(if BITS == 8 { 128 } else { 64 });
    let blocks = Blocks::parse(settings, &format!("u{BITS}"), default)?;
    let (scheme, round) = (Uniform { bits: BITS, blocks }, Round::parse(settings)?);
    Ok(Box::new(UniformCodec { scheme, round, device: None }))
}

impl fmt::Display for UniformCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "u{}:{}{}", self.scheme.bits, self.scheme.blocks, self.round)
    }
}

impl Codec for UniformCodec {
    fn encoder(&self, isa: Isa, vector: &Vector, seeds: Seeds) -> Box<dyn Encoder> {
        let ends = EndsOfBlocks::new(isa, self.scheme.blocks, vector);
        Box::new(UniformEncoder { codec: self.clone(), ends, seed: seeds.own })
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
struct UniformEncoder {
    codec: UniformCodec,
    ends: EndsOfBlocks,
    seed: u64,
}

impl UniformEncoder {
    /// The codes from the GPU; `None` without a GPU, or if a grid is outside the range where the GPU has the CPU's
    /// bits.
    fn on_device(&self, start: usize, values: &[f32], grids: &[Grid]) -> Option<Vec<u8>> {
        let device = self.codec.device.as_ref()?;
        let run = self.codec.scheme.blocks.of_run(&self.ends.vector, start, values.len());
        if grids.iter().any(|grid| grid.is_wide() || !device::suits(grid.step)) {
            return None;
        }
        device.quantize(
            values,
            run,
            &encoding(grids),
            grids.first()?.top,
            self.codec.round.draw(self.seed, start),
        )
    }
}

impl Encoder for UniformEncoder {
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
        Coding::Uniform(self.codec.scheme)
    }

    fn at_once(&self) -> usize {
        if self.codec.device.is_some() { device::AT_ONCE } else { CHUNK }
    }

    fn encode(&self, start: usize, values: &[f32]) -> Vec<Vec<u8>> {
        let (isa, Uniform { bits, blocks }) = (self.ends.isa, self.codec.scheme);
        let grids: Vec<Grid> =
            self.ends.of(start, values).iter().map(|ends| Grid::between(*ends, bits)).collect();
        let codes = self.on_device(start, values, &grids).unwrap_or_else(|| {
            let words = self.codec.round.words(isa, self.seed, start, values.len());
            let mut codes = vec![0; values.len()];
            match blocks.even(values.len()).filter(|_| !grids.iter().any(Grid::is_wide)) {
                Some(block) => {
                    let rounding = rounding(words.as_ref(), 0..values.len());
                    quantize(isa, values, block, &encoding(&grids), grids[0].top, rounding, &mut codes);
                }
                None => {
                    let pieces = blocks.pieces(&self.ends.vector, start, values.len());
                    for (piece, grid) in pieces.zip(&grids) {
                        let rounding = rounding(words.as_ref(), piece.clone());
                        grid.quantize(isa, &values[piece.clone()], rounding, &mut codes[piece]);
                    }
                }
            }
            codes
        });
        let ends: Vec<Ends> = grids.iter().map(|grid| grid.ends).collect();
        vec![bytemuck::cast_slice(&ends).to_vec(), bits::pack(isa, bits, codes)]
    }
}

/// The grid of a block.
#[derive(Clone, Copy, Debug)]
struct Grid {
    ends: Ends,
    top: u8,
    step: f64,
}

impl Grid {
    /// The grid of a decoder.
    fn of(ends: Ends, bits: u8) -> Self {
        let top = ((1u32 << bits) - 1) as u8;
        Self { ends, top, step: (f64::from(ends[1]) - f64::from(ends[0])) / f64::from(top) }
    }

    /// The grid of an encoder, for values between these ends.
    fn between(ends: Ends, bits: u8) -> Self {
        let grid = Self::of(ends, bits);
        if grid.step >= f64::from(f32::MIN_POSITIVE) {
            return grid;
        }
        let middle = ((f64::from(ends[0]) + f64::from(ends[1])) / 2.0) as f32;
        Self::of([middle; 2], bits)
    }

    fn inverse(&self) -> f32 {
        if self.step == 0.0 { 0.0 } else { (1.0 / self.step) as f32 }
    }

    fn is_wide(&self) -> bool {
        self.ends.iter().any(|end| end.abs() > WIDE)
    }

    fn quantize(&self, isa: Isa, values: &[f32], rounding: Rounding, codes: &mut [u8]) {
        if self.step == 0.0 {
            return codes.fill(0);
        }
        if !self.is_wide() {
            return quantize(isa, values, values.len(), &encoding(&[*self]), self.top, rounding, codes);
        }
        let quarters: Vec<f32> = values.iter().map(|x| x / 4.0).collect();
        let grid = [self.ends[0] / 4.0, (4.0 / self.step) as f32];
        quantize(isa, &quarters, values.len(), &[grid], self.top, rounding, codes);
    }

    fn dequantize(&self, isa: Isa, codes: &[u8], out: &mut [f32]) {
        let low = self.ends[0];
        if !self.is_wide() {
            return dequantize(isa, codes, codes.len(), &[[low, self.step as f32]], out);
        }
        for (x, code) in out.iter_mut().zip(codes) {
            *x = (f64::from(low) + f64::from(*code) * self.step) as f32;
        }
    }
}

/// The grids as the kernel takes them: the start and the inverse step of each.
fn encoding(grids: &[Grid]) -> Vec<[f32; 2]> {
    grids.iter().map(|grid| [grid.ends[0], grid.inverse()]).collect()
}

/// The grids as the decoder's kernel takes them: the start and the step of each.
fn decoding(grids: &[Grid]) -> Vec<[f32; 2]> {
    grids.iter().map(|grid| [grid.ends[0], grid.step as f32]).collect()
}

impl Uniform {
    /// The values from the GPU; `None` after a failure, or if a grid is outside the range where the GPU has the CPU's
    /// bits.
    fn on_device(
        &self,
        device: &dyn Device,
        vector: &Vector,
        start: usize,
        codes: &[u8],
        grids: &[Grid],
    ) -> Option<Vec<f32>> {
        // A device may take a subnormal start for zero.
        let starts_well = |grid: &Grid| grid.ends[0].to_bits() == 0 || grid.ends[0].is_normal();
        let suits =
            |grid: &Grid| !grid.is_wide() && starts_well(grid) && device::suits_decoder(grid.step as f32);
        let run = self.blocks.of_run(vector, start, codes.len());
        grids.iter().all(suits).then(|| device.dequantize(codes, run, &decoding(grids))).flatten()
    }
}

impl Scheme for Uniform {
    fn streams(&self, vector: &Vector) -> Result<Vec<Stream>, Invalid> {
        self.blocks.check()?;
        if !(1..=8).contains(&self.bits) {
            return Err(Invalid(format!("found codes of {} bits, expected 1 to 8", self.bits)));
        }
        let ends = Extent::Known(vec![self.blocks.count(vector), 2]);
        let codes = match self.bits {
            8 => Extent::Known(vector.shape.clone()),
            bits => Extent::Known(vec![packed_len(vector.len, bits)]),
        };
        Ok(vec![
            Stream { suffix: "_ends", dtype: Dtype::F32, extent: ends },
            Stream { suffix: "_codes", dtype: Dtype::U8, extent: codes },
        ])
    }

    fn unit(&self, _vector: &Vector) -> usize {
        self.blocks.unit()
    }

    fn bytes(&self, vector: &Vector, stream: usize, values: Range<usize>) -> Range<usize> {
        match stream {
            0 => {
                let blocks = self.blocks.touched(vector, values);
                8 * blocks.start..8 * blocks.end
            }
            _ => bits::range(self.bits, values),
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
        check_lengths(self, vector, start..start + out.len(), streams)?;
        let ends: Vec<Ends> = bytemuck::pod_collect_to_vec(streams[0]);
        let is_right = |ends: &Ends| ends.iter().all(|end| end.is_finite()) && ends[0] <= ends[1];
        if let Some(ends) = ends.iter().find(|ends| !is_right(ends)) {
            let why = format!(
                "found {ends:?} as ends of a block, expected two finite numbers, the smaller one first"
            );
            return Err(Invalid(why));
        }
        let codes = bits::unpack(isa, self.bits, streams[1], out.len())?;
        let grids: Vec<Grid> = ends.into_iter().map(|ends| Grid::of(ends, self.bits)).collect();
        if let Some(values) = device.and_then(|device| self.on_device(device, vector, start, &codes, &grids))
        {
            out.copy_from_slice(&values);
            return Ok(());
        }
        match self.blocks.even(out.len()).filter(|_| !grids.iter().any(Grid::is_wide)) {
            Some(block) => dequantize(isa, &codes, block, &decoding(&grids), out),
            None => {
                for (piece, grid) in self.blocks.pieces(vector, start, out.len()).zip(grids) {
                    grid.dequantize(isa, &codes[piece.clone()], &mut out[piece]);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codecs::trial::{assert_refuses_damage, back, back_with, nmse, shapes, trial_values};

    /// The distance to the nearest code, in steps, plus rounding errors.
    fn largest_error(values: &[f32], scheme: Uniform, steps: f64) -> f64 {
        let low = values.iter().copied().fold(f32::INFINITY, f32::min);
        let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let step = Grid::of([low, high], scheme.bits).step;
        let largest = f64::from(low.abs().max(high.abs()));
        step * (steps + 1e-4) + largest * 3e-7 + f64::from(f32::MIN_POSITIVE) * 255.0
    }

    #[test]
    fn values_come_back_to_the_nearest_code() {
        for (text, steps) in
            [("u8", 0.5), ("u4", 0.5), ("u1:block=8", 0.5), ("u3:per=channel", 0.5), ("u8:block=0", 0.5)]
                .into_iter()
                .chain([("u5:rounding=stochastic", 1.0), ("u7:block=65536", 0.5)])
        {
            for (what, values) in trial_values() {
                for vector in shapes(values.len()) {
                    let (coding, decoded) = back(text, &vector, &values);
                    let Coding::Uniform(scheme) = coding else { panic!("{coding:?}") };
                    let block = scheme.blocks.len(&vector);
                    for (sent, got) in values.chunks(block).zip(decoded.chunks(block)) {
                        let bar = largest_error(sent, scheme, steps);
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
    fn what_has_no_range_is_its_middle() {
        for text in ["u8", "u1", "u4:block=0"] {
            for value in [0.0f32, 1.5, -1e-40, 3e38] {
                let values = vec![value; 300];
                let (_, decoded) = back(text, &shapes(300)[0], &values);
                assert_eq!(decoded, values, "{text}");
            }
        }
        // A range of a few subnormal numbers.
        let values: Vec<f32> = (0..300).map(|i| f32::from_bits(i % 7)).collect();
        let (_, decoded) = back("u8", &shapes(300)[0], &values);
        assert!(decoded.iter().all(|x| *x == f32::from_bits(3)));
    }

    #[test]
    fn damage_is_refused() {
        for text in ["u8", "u3", "u4:per=channel"] {
            assert_refuses_damage(text);
        }
        let vector = shapes(64)[0].clone();
        let scheme = Uniform { bits: 8, blocks: Blocks::Runs(64) };
        for ends in [[f32::NAN, 1.0], [0.0, f32::INFINITY], [1.0, 0.0]] {
            let decoded = scheme.decode(
                Isa::detect(),
                &vector,
                0,
                &[bytemuck::cast_slice(&ends), &[0; 64]],
                &mut [0.0; 64],
            );
            assert!(decoded.unwrap_err().0.contains("ends of a block"));
        }
        for (bits, blocks) in
            [(0, Blocks::Whole), (9, Blocks::Whole), (8, Blocks::Runs(0)), (8, Blocks::Runs(100))]
        {
            assert!(Uniform { bits, blocks }.streams(&vector).is_err());
        }
    }

    #[test]
    fn stochastic_rounding_is_right_on_average() {
        let values: Vec<f32> = (0..4096).map(|i| ((i * 7919) % 1009) as f32 / 1009.0).collect();
        let codec = crate::codecs::parse("u2:block=0,rounding=stochastic").unwrap();
        assert!(codec.is_unbiased());
        let mut mean = vec![0.0f64; values.len()];
        let draws = 64;
        for seed in 0..draws {
            let decoded = back_with(codec.as_ref(), &shapes(4096)[0], &values, seed).1;
            mean.iter_mut().zip(decoded).for_each(|(mean, x)| *mean += f64::from(x) / draws as f64);
        }
        let mean: Vec<f32> = mean.iter().map(|x| *x as f32).collect();
        let once = nmse(&values, &back("u2:block=0,rounding=stochastic", &shapes(4096)[0], &values).1);
        let bar = 1.2 * once / draws as f64;
        assert!(nmse(&values, &mean) < bar, "{} of {bar}", nmse(&values, &mean));
    }

    #[test]
    fn a_grid_is_wide_beyond_1e38() {
        assert!(!Grid::of([-WIDE, WIDE], 8).is_wide());
        assert!(
            Grid::of([0.0, WIDE.next_up()], 8).is_wide() && Grid::of([-WIDE.next_up(), 0.0], 8).is_wide()
        );
    }
}
