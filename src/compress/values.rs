//! Reads the values to send: the update as f32, minus its base, plus the residual.

use crate::compress::parts::{PartPlan, is_variance};
use crate::compress::residual::CarryOver;
use crate::compress::residual::error::ResidualError;
use crate::io::model_file::{ModelFile, TensorPlace};
use crate::kernels::convert::decode;
use crate::kernels::element::Element;
use crate::kernels::finite::clear_signs_of_zeros;
use crate::kernels::lanes::Isa;
use crate::model::dtype::{Dtype, Kind, Working};
use crate::model::layout::Piece;
use crate::model::tile::TileBuffer;
use std::io;

/// Values that are converted at a time: few enough for a core's cache. Without a conversion a whole chunk is read at
/// once, since short reads take longer.
const CONVERTED_AT_ONCE: usize = 8192;

/// What to do with NaN and infinity.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum NonFinite {
    /// The command fails.
    Error,
    /// They become zero.
    Zero,
}

/// Why values cannot be read.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum ValueError {
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("tensor `{tensor}` holds {value} at flat index {index}, expected a finite number")]
    NonFinite { tensor: String, index: usize, value: f64 },
    #[error(
        "tensor `{tensor}` holds an integer beyond 2^53 at flat index {index}, in the update or the base, that no f64 equals"
    )]
    Inexact { tensor: String, index: usize },
    #[error(
        "tensor `{tensor}` sends {value:e} at flat index {index}, expected at most {:e}: codecs compute in F32",
        f32::MAX
    )]
    TooLarge { tensor: String, index: usize, value: f64 },
    #[error(transparent)]
    Residual(#[from] ResidualError),
}

/// Values that F32 does not hold: not zero as they are stored, and sent as zero.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub(crate) struct Lost {
    /// Their number.
    pub(crate) values: u64,
    /// Sum of their squares.
    pub(crate) squares: f64,
}

impl Lost {
    fn of(exact: &[f64], sent: &[f32]) -> Self {
        let mut lost = Self::default();
        for (exact, _) in exact.iter().zip(sent).filter(|(exact, sent)| **exact != 0.0 && **sent == 0.0) {
            lost.values += 1;
            lost.squares += exact * exact;
        }
        lost
    }

    fn add(&mut self, next: Self) {
        self.values += next.values;
        self.squares += next.squares;
    }
}

/// The values of an update, as they are sent.
pub(crate) struct Values<'a> {
    /// The instruction set to decode with.
    pub(crate) isa: Isa,
    /// The update.
    pub(crate) update: &'a ModelFile,
    /// The model to subtract, and the place of each tensor of the update in it.
    pub(crate) base: Option<(&'a ModelFile, &'a [TensorPlace])>,
    /// What to do with values that are not finite.
    pub(crate) non_finite: NonFinite,
    /// The residual that is added to values of encoded tensors.
    pub(crate) carried: Option<&'a CarryOver>,
}

impl Values<'_> {
    /// Reads values of a part from `start` on. Returns what F32 does not hold of them.
    ///
    /// # Errors
    ///
    /// When values cannot be read, or a value is not finite and has to be.
    pub(crate) fn read(&self, part: &PartPlan, start: usize, out: &mut [f32]) -> Result<Lost, ValueError> {
        let (mut rest, mut lost) = (out, Lost::default());
        for piece in part.pieces(start, rest.len(), |tensor| self.update.table[tensor].spec.len) {
            let (out, behind) = rest.split_at_mut(piece.len);
            let at_once = if self.is_plain(piece.tensor) { piece.len.max(1) } else { CONVERTED_AT_ONCE };
            for (number, out) in out.chunks_mut(at_once).enumerate() {
                let start = piece.start + number * at_once;
                lost.add(self.read_tensor(Piece { start, len: out.len(), ..piece }, out)?);
            }
            rest = behind;
        }
        Ok(lost)
    }

    /// Reads values of a tensor in f64, minus the base, without the residual. Floats must be finite. Without a base, an
    /// integer that f64 does not hold is NaN.
    ///
    /// # Errors
    ///
    /// When values cannot be read, a value is not finite and has to be, or a difference of integers is not exact.
    pub(crate) fn read_exact(&self, tensor: usize, start: usize, len: usize) -> Result<Vec<f64>, ValueError> {
        let mut sent = self.difference(tensor, start, len)?;
        if self.update.table[tensor].spec.dtype.kind() == Kind::Float {
            for (i, x) in sent.iter_mut().enumerate().filter(|(_, x)| !x.is_finite()) {
                *x = self.replaced(tensor, start + i)?;
            }
        } else if self.base.is_some()
            && let Some(i) = sent.iter().position(|x| x.is_nan())
        {
            let tensor = self.update.table[tensor].spec.name.clone();
            return Err(ValueError::Inexact { tensor, index: start + i });
        }
        Ok(sent)
    }

    /// The values of a tensor in f64, minus the base, whatever they are.
    fn difference(&self, tensor: usize, start: usize, len: usize) -> io::Result<Vec<f64>> {
        let mut sent = vec![0.0f64; len];
        self.read_stored(self.update, &self.update.table[tensor], start, &mut sent)?;
        if let Some((model, places)) = &self.base {
            let mut base = vec![0.0f64; len];
            self.read_stored(model, &places[tensor], start, &mut base)?;
            sent.iter_mut().zip(&base).for_each(|(x, base)| *x -= base);
        }
        Ok(sent)
    }

    /// Reads the stored bytes of values of a tensor.
    ///
    /// # Errors
    ///
    /// When the bytes cannot be read.
    pub(crate) fn read_bytes(&self, tensor: usize, start: usize, bytes: &mut [u8]) -> Result<(), ValueError> {
        let place = &self.update.table[tensor];
        let offset = place.offset + (start * place.spec.dtype.bytes()) as u64;
        Ok(self.update.files[place.file].read_values_at(bytes, offset)?)
    }

    /// Whether the base is known, without which no negative variance can be noticed.
    pub(crate) fn can_check_variances(&self) -> bool {
        self.base.is_some()
    }

    /// The number of variances below zero if these values of a part, from `start` on, were added to the base.
    ///
    /// # Errors
    ///
    /// When the base cannot be read.
    pub(crate) fn negative_variances(&self, part: &PartPlan, start: usize, sent: &[f32]) -> io::Result<u64> {
        let Some((model, places)) = &self.base else { return Ok(0) };
        let (mut rest, mut negative) = (sent, 0);
        for Piece { tensor, start, len } in
            part.pieces(start, sent.len(), |tensor| self.update.table[tensor].spec.len)
        {
            let (sent, behind) = rest.split_at(len);
            rest = behind;
            if is_variance(&self.update.table[tensor].spec) {
                let mut base = vec![0.0f64; len];
                self.read_stored(model, &places[tensor], start, &mut base)?;
                let is_negative = |(base, sent): &(&f64, &f32)| **base + f64::from(**sent) < 0.0;
                negative += base.iter().zip(sent).filter(is_negative).count() as u64;
            }
        }
        Ok(negative)
    }

    /// Whether the values of a tensor are sent as they are stored.
    fn is_plain(&self, tensor: usize) -> bool {
        let dtype = self.update.table[tensor].spec.dtype;
        self.base.is_none() && self.carried.is_none() && dtype == Dtype::F32
    }

    fn read_tensor(&self, piece: Piece, out: &mut [f32]) -> Result<Lost, ValueError> {
        let mut lost = Lost::default();
        let places = self.base.as_ref().map(|(model, places)| (*model, &places[piece.tensor]));
        let place = &self.update.table[piece.tensor];
        let is_wide = |place: &TensorPlace| place.spec.dtype.working() == Working::F64;
        if self.carried.is_some() || is_wide(place) || places.is_some_and(|(_, place)| is_wide(place)) {
            let mut sent = self.read_exact(piece.tensor, piece.start, piece.len)?;
            if let Some(carried) = self.carried {
                carried.add(self.isa, piece, &mut sent)?;
            }
            out.iter_mut().zip(&sent).for_each(|(out, x)| *out = *x as f32);
            lost = Lost::of(&sent, out);
        } else {
            self.read_stored(self.update, place, piece.start, out)?;
            if let Some((model, place)) = places {
                let mut base = vec![0.0f32; piece.len];
                self.read_stored(model, place, piece.start, &mut base)?;
                // The same bits as a difference in f64, rounded once.
                out.iter_mut().zip(&base).for_each(|(x, base)| *x -= base);
            }
        }
        // No codec has to handle minus zero.
        if !clear_signs_of_zeros(self.isa, out) {
            let Piece { tensor, start, .. } = piece;
            for (i, x) in out.iter_mut().enumerate().filter(|(_, x)| !x.is_finite()) {
                *x = self.replaced(tensor, start + i)? as f32;
            }
        }
        Ok(lost)
    }

    /// What is sent for a value that is not finite in the working dtype.
    fn replaced(&self, tensor: usize, index: usize) -> Result<f64, ValueError> {
        let mut value = self.difference(tensor, index, 1)?;
        let name = || self.update.table[tensor].spec.name.clone();
        match (value[0].is_finite(), self.non_finite) {
            (false, NonFinite::Zero) => Ok(0.0),
            (false, NonFinite::Error) => {
                Err(ValueError::NonFinite { tensor: name(), index, value: value[0] })
            }
            (true, _) => {
                if let Some(carried) = self.carried {
                    carried.add(self.isa, Piece { tensor, start: index, len: 1 }, &mut value)?;
                }
                Err(ValueError::TooLarge { tensor: name(), index, value: value[0] })
            }
        }
    }

    /// Reads values, straight into `out` if the stored dtype is that of `out`.
    fn read_stored<E: Element>(
        &self,
        model: &ModelFile,
        place: &TensorPlace,
        start: usize,
        out: &mut [E],
    ) -> io::Result<()> {
        let (dtype, file) = (place.spec.dtype, &model.files[place.file]);
        let offset = place.offset + (start * dtype.bytes()) as u64;
        if E::DTYPE == dtype {
            return file.read_values_at(bytemuck::cast_slice_mut(out), offset);
        }
        let mut stored = TileBuffer::new(1, out.len() * dtype.bytes());
        let bytes = &mut stored.row_mut(0)[..out.len() * dtype.bytes()];
        file.read_values_at(bytes, offset)?;
        decode(self.isa, dtype, bytes, out);
        Ok(())
    }
}
