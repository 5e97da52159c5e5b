//! The buffers of one worker, and how a tile gets into them.

use crate::engine::passes::drive::Clock;
use crate::engine::passes::error::PassError;
use crate::engine::passes::plan::{Tile, TilePlan};
use crate::io::model_file::{Decoder, ENCODED, ModelFile};
use crate::kernels::convert::{all_within, decode};
use crate::kernels::element::{Element, Merged};
use crate::kernels::lanes::Isa;
use crate::model::dtype::Dtype;
use crate::model::layout::{Layout, Piece};
use crate::model::state::KeptTensor;
use crate::model::tile::{Rows, TileBuffer};
use crate::updates::metadata::UpdateKind;
use crate::updates::set::{Client, UpdateSet, ValueKind};
use crate::updates::source::{Placement, Source};
use std::io;
use std::time::Instant;

/// The buffers of one worker: rows of the current tile, base values, and room for stored values.
pub struct TileReader<'a> {
    isa: Isa,
    set: &'a UpdateSet,
    tile: TileBuffer,
    stored: TileBuffer,
    base: Vec<f64>,
    centre: Vec<f64>,
    /// Whether rows that hold weights were turned into deltas.
    subtracted: bool,
    /// Where this worker's time went.
    pub clock: Clock,
}

impl<'a> TileReader<'a> {
    /// Buffers for the largest tile of a plan.
    pub fn new(isa: Isa, set: &'a UpdateSet, plan: &TilePlan) -> Self {
        Self {
            isa,
            set,
            tile: TileBuffer::new(plan.rows, if plan.rows == 0 { 0 } else { plan.most_row_bytes() }),
            stored: TileBuffer::new(1, plan.most_columns() * size_of::<f64>()),
            base: Vec::new(),
            centre: Vec::new(),
            subtracted: false,
            clock: Clock::default(),
        }
    }

    /// The base's values of a tile as it was read last; empty if [`read_base`](Self::read_base) was not called.
    pub fn base(&self) -> &[f64] {
        &self.base
    }

    /// What to subtract from a client's row to get its delta: the base, or nothing where rows are deltas already.
    pub fn base_of(&self, client: usize) -> &[f64] {
        let weights = self.set.clients[client].metadata.kind == UpdateKind::Weights;
        if weights && !self.subtracted { &self.base } else { &[] }
    }

    /// Reads the base's values of a tile, if there is a base.
    ///
    /// # Errors
    ///
    /// When its file cannot be read or changed since it was opened.
    pub fn read_base(&mut self, tile: &Tile) -> Result<(), PassError> {
        let Some(base) = &self.set.base else { return Ok(()) };
        let mut values = std::mem::take(&mut self.base);
        self.read_reference(tile, &base.model, &base.placement, &mut values)?;
        self.base = values;
        Ok(())
    }

    /// Reads the values of the centre that an earlier round left, if there is one.
    ///
    /// # Errors
    ///
    /// When its file cannot be read or changed since it was opened.
    pub fn read_centre(&mut self, tile: &Tile) -> Result<(), PassError> {
        let Some(Source { model, placement }) = self.set.centre() else { return Ok(()) };
        let mut values = std::mem::take(&mut self.centre);
        self.read_reference(tile, model, placement, &mut values)?;
        self.centre = values;
        Ok(())
    }

    /// Reads what an earlier round left in a slot, or what it starts at, into `values`, one a coordinate.
    ///
    /// # Errors
    ///
    /// When its file cannot be read or changed since it was opened.
    pub fn read_kept<K: Element + Merged>(
        &mut self,
        tile: &Tile,
        kept: &KeptTensor,
        values: &mut [K],
    ) -> Result<(), PassError> {
        match self.set.carried.sources.get(&kept.slot) {
            Some(source) => self.read_source(tile, source, None, values),
            None => {
                values.fill(K::rounded(kept.initial));
                Ok(())
            }
        }
    }

    /// The centre's values of a tile as it was read last: a delta. Empty if there is none.
    pub fn centre(&self) -> &[f64] {
        &self.centre
    }

    fn read_reference(
        &mut self,
        tile: &Tile,
        model: &ModelFile,
        placement: &Placement,
        values: &mut Vec<f64>,
    ) -> Result<(), PassError> {
        values.resize(tile.coordinates.len(), 0.0);
        self.read_model(tile, (model, placement, None), values)
    }

    /// Reads a model's values of a tile; `input` is its place among what is read.
    fn read_model<E: Element>(
        &mut self,
        tile: &Tile,
        (model, placement, input): (&ModelFile, &Placement, Option<usize>),
        values: &mut [E],
    ) -> Result<(), PassError> {
        let started = Instant::now();
        let read = SourceReader { isa: self.isa, model, placement, layout: &self.set.layout, input };
        read.tile(tile, &mut self.stored, values)?;
        self.clock.read += started.elapsed();
        Ok(())
    }

    /// Reads the base's values of a tile, and checks that they are numbers.
    ///
    /// # Errors
    ///
    /// When one is not, or its file cannot be read.
    pub fn read_finite_base(&mut self, tile: &Tile) -> Result<(), PassError> {
        self.read_base(tile)?;
        if all_within(self.isa, &self.base, &Dtype::F64.limits()) {
            return Ok(());
        }
        let column = self.base.iter().position(|value| !value.is_finite()).unwrap_or(0);
        let (tensor, index) = self.set.layout.locate(tile.coordinates.start + column);
        let path = self.set.base.as_ref().map(|base| base.model.path.clone()).unwrap_or_default();
        Err(PassError::BaseNotFinite { path, tensor: tensor.name.clone(), index, value: self.base[column] })
    }

    /// Reads some clients' rows of a tile.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or changed since it was opened.
    pub fn read<E: Element>(&mut self, tile: &Tile, clients: &[usize]) -> Result<(), PassError> {
        let started = Instant::now();
        let columns = tile.coordinates.len();
        self.subtracted = false;
        for (row, index) in clients.iter().enumerate() {
            let client = &self.set.clients[*index];
            let values = &mut bytemuck::cast_slice_mut::<u8, E>(self.tile.row_mut(row))[..columns];
            let (model, placement) = (&client.model, &client.placement);
            let input = Some(*index);
            let read = SourceReader { isa: self.isa, model, placement, layout: &self.set.layout, input };
            read.tile(tile, &mut self.stored, values)?;
            self.tile.clear_behind(row, columns * size_of::<E>());
        }
        self.clock.read += started.elapsed();
        Ok(())
    }

    /// Reads a source of a mode's own into a row of the tile, behind the clients' rows. `input` is its place among what is
    /// read, for errors.
    ///
    /// # Errors
    ///
    /// When its file cannot be read or changed since it was opened.
    pub fn read_into_row<E: Element>(
        &mut self,
        tile: &Tile,
        row: usize,
        source: &Source,
        input: usize,
    ) -> Result<(), PassError> {
        let started = Instant::now();
        let columns = tile.coordinates.len();
        let values = &mut bytemuck::cast_slice_mut::<u8, E>(self.tile.row_mut(row))[..columns];
        let (model, placement, input) = (&source.model, &source.placement, Some(input));
        let read = SourceReader { isa: self.isa, model, placement, layout: &self.set.layout, input };
        read.tile(tile, &mut self.stored, values)?;
        self.tile.clear_behind(row, columns * size_of::<E>());
        self.clock.read += started.elapsed();
        Ok(())
    }

    /// Reads a source's values of a tile into memory of the caller's. `input` is its place among what is read, for errors.
    ///
    /// # Errors
    ///
    /// When its file cannot be read or changed since it was opened.
    pub fn read_source<E: Element>(
        &mut self,
        tile: &Tile,
        source: &Source,
        input: Option<usize>,
        values: &mut [E],
    ) -> Result<(), PassError> {
        self.read_model(tile, (&source.model, &source.placement, input), values)
    }

    /// Reads one client's row of a tile into memory of the caller's.
    ///
    /// # Errors
    ///
    /// When its file cannot be read or changed since it was opened.
    pub fn read_row<E: Element>(
        &mut self,
        tile: &Tile,
        client: usize,
        values: &mut [E],
    ) -> Result<(), PassError> {
        let Client { model, placement, .. } = &self.set.clients[client];
        self.read_model(tile, (model, placement, Some(client)), values)
    }

    /// Where weights and deltas are mixed, turns the rows of these clients, read before, into deltas. The base must
    /// have been read.
    pub fn subtract_base<E: Element>(&mut self, tile: &Tile, clients: &[usize]) {
        if self.set.value_kind != ValueKind::Mixed {
            return;
        }
        for (row, client) in clients.iter().enumerate() {
            if self.set.clients[*client].metadata.kind == UpdateKind::Weights {
                let values = bytemuck::cast_slice_mut::<u8, E>(self.tile.row_mut(row));
                for (x, base) in values[..tile.coordinates.len()].iter_mut().zip(&self.base) {
                    *x = E::from_exact(x.widen() - base);
                }
            }
        }
        self.subtracted = true;
    }

    /// The rows that were read last, so many of them.
    pub fn rows<E: Element>(&self, tile: &Tile, rows: usize) -> Rows<'_, E> {
        self.tile.rows(rows, tile.coordinates.len())
    }
}

/// One model to read tiles of.
struct SourceReader<'a> {
    isa: Isa,
    model: &'a ModelFile,
    placement: &'a Placement,
    layout: &'a Layout,
    /// Its place among what is read: the clients, then what a mode reads beside them. `None` for the base and state.
    input: Option<usize>,
}

impl SourceReader<'_> {
    /// Reads the model's values of a tile.
    fn tile<E: Element>(
        &self,
        tile: &Tile,
        stored: &mut TileBuffer,
        values: &mut [E],
    ) -> Result<(), PassError> {
        let (path, input) = (&self.model.path, self.input);
        self.read(tile, stored, values).map_err(|source| PassError::Read {
            path: path.clone(),
            input,
            source,
        })
    }

    /// Reads them straight into the row where the file holds what the kernels
    /// work in, else by way of `stored`. Neighbouring tensors that are neighbours in the file too are read in one go.
    fn read<E: Element>(&self, tile: &Tile, stored: &mut TileBuffer, values: &mut [E]) -> io::Result<()> {
        let pieces = self.layout.pieces(tile.coordinates.clone());
        let mut column = 0;
        if let Some(decoder) = &self.model.decoder {
            return self.read_decoded(&**decoder, pieces, stored, values);
        }
        for run in (Runs { placement: self.placement, pieces, next: None }) {
            let values = &mut values[column..column + run.len];
            let file = &self.model.files[run.file];
            if E::DTYPE == run.dtype {
                file.read_exact_at(bytemuck::cast_slice_mut(values), run.offset)?;
            } else {
                let bytes = &mut stored.row_mut(0)[..run.len * run.dtype.bytes()];
                file.read_exact_at(bytes, run.offset)?;
                decode(self.isa, run.dtype, bytes, values);
            }
            column += run.len;
        }
        Ok(())
    }
}

impl SourceReader<'_> {
    /// The same of a model of which tensors are encoded.
    fn read_decoded<E: Element>(
        &self,
        decoder: &dyn Decoder,
        pieces: impl Iterator<Item = Piece>,
        stored: &mut TileBuffer,
        values: &mut [E],
    ) -> io::Result<()> {
        let mut column = 0;
        for piece in pieces {
            let place = self.placement[piece.tensor];
            let values = &mut values[column..column + piece.len];
            if place.file == ENCODED {
                let floats = &mut bytemuck::cast_slice_mut(stored.row_mut(0))[..piece.len];
                decoder.decode(&self.model.files, place.offset as usize, piece.start, floats)?;
                values.iter_mut().zip(&*floats).for_each(|(x, float)| *x = E::from_exact(f64::from(*float)));
            } else {
                let bytes = &mut stored.row_mut(0)[..piece.len * place.dtype.bytes()];
                let offset = place.offset + (piece.start * place.dtype.bytes()) as u64;
                self.model.files[place.file].read_exact_at(bytes, offset)?;
                decode(self.isa, place.dtype, bytes, values);
            }
            column += piece.len;
        }
        Ok(())
    }
}

/// Values of one dtype that stand together in one file.
#[derive(Clone, Copy)]
struct Run {
    file: usize,
    offset: u64,
    dtype: Dtype,
    len: usize,
}

/// Joins pieces into runs.
struct Runs<'a, I> {
    placement: &'a Placement,
    pieces: I,
    next: Option<Run>,
}

impl<I: Iterator<Item = Piece>> Iterator for Runs<'_, I> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        for piece in self.pieces.by_ref() {
            let place = self.placement[piece.tensor];
            let run = Run {
                file: place.file,
                offset: place.offset + (piece.start * place.dtype.bytes()) as u64,
                dtype: place.dtype,
                len: piece.len,
            };
            match &mut self.next {
                Some(last) if last.continues_with(&run) => last.len += run.len,
                _ => {
                    if let Some(done) = self.next.replace(run) {
                        return Some(done);
                    }
                }
            }
        }
        self.next.take()
    }
}

impl Run {
    fn continues_with(&self, other: &Self) -> bool {
        (self.file, self.dtype) == (other.file, other.dtype)
            && self.offset + (self.len * self.dtype.bytes()) as u64 == other.offset
    }
}
