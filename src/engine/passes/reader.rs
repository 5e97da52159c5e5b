//! Reads the rows of a tile from files into the buffers of one worker.

use crate::engine::passes::drive::Clock;
use crate::engine::passes::error::PassError;
use crate::engine::passes::kept::check_kept;
use crate::engine::passes::plan::{Tile, TilePlan};
use crate::engine::passes::row_limits::row_limits;
use crate::engine::passes::runs::Runs;
use crate::engine::passes::variances::negative;
use crate::io::model_file::{ENCODED, ModelFile};
use crate::kernels::convert::{all_fit, all_within, decode};
use crate::kernels::element::{Element, Merged};
use crate::kernels::lanes::Isa;
use crate::model::class::TensorClass;
use crate::model::dtype::{Dtype, Kind};
use crate::model::layout::{Layout, Piece};
use crate::model::state::{KeptTensor, StateTensor};
use crate::model::tile::{Rows, RowsMut, TileBuffer};
use crate::updates::metadata::UpdateKind;
use crate::updates::set::{Base, Client, UpdateSet, ValueKind};
use crate::updates::source::{Place, Placement, Source};
use std::io;
use std::ops::Range;
use std::time::Instant;

/// The buffers of one worker: rows of the current tile, base values, and room for stored values.
pub struct TileReader<'a> {
    isa: Isa,
    set: &'a UpdateSet,
    tile: TileBuffer,
    stored: TileBuffer,
    base: Vec<f64>,
    centre: Vec<f64>,
    /// Whether the rows with weights are now deltas.
    subtracted: bool,
    /// The coordinates of the base's values; empty before the first read.
    base_at: Range<usize>,
    /// Whether a value that the merged model cannot hold is an error.
    screens: bool,
    /// The time of this worker.
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
            base_at: 0..0,
            screens: true,
            clock: Clock::default(),
        }
    }

    /// The same reader, which takes values that the merged model cannot hold: to measure them.
    #[must_use]
    pub fn without_screen(self) -> Self {
        Self { screens: false, ..self }
    }

    /// The updates that it reads.
    pub fn set(&self) -> &UpdateSet {
        self.set
    }

    /// The base's values of the last tile; empty before the first call of [`read_base`](Self::read_base).
    pub fn base(&self) -> &[f64] {
        &self.base
    }

    /// The values to subtract from a client's row to get its delta: the base, or an empty slice if the row is a delta.
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
        self.base_at = tile.coordinates.clone();
        Ok(())
    }

    /// The values to add to a client's row of a tile to get its model: the base's values, or an empty slice.
    pub fn base_under(&self, client: usize) -> &[f64] {
        let is_delta = self.set.clients[client].metadata.kind == UpdateKind::Delta;
        if is_delta && self.set.base.is_some() { &self.base } else { &[] }
    }

    /// Reads the base's values of a tile if they are needed to screen a client's row.
    fn read_base_under(&mut self, tile: &Tile, client: usize) -> Result<(), PassError> {
        let is_weights = self.set.clients[client].metadata.kind == UpdateKind::Weights;
        if is_weights || self.base_at == tile.coordinates { Ok(()) } else { self.read_base(tile) }
    }

    /// Refuses a client's row of a tile if the merged model cannot hold one of its values: its weights, or base plus
    /// delta. A variance or counter below zero is such a value.
    fn screen<E: Element>(&self, tile: &Tile, client: usize, row: &[E]) -> Result<(), PassError> {
        let base = self.base_under(client);
        let fits = all_fit(self.isa, row, base, &row_limits(self.set, tile, client, !base.is_empty()))
            && negative(self.set, tile, client, row, base).next().is_none();
        let path = &self.set.clients[client].model.path;
        if fits { Ok(()) } else { Err(PassError::Unfit { path: path.clone() }) }
    }

    /// Reads the values of the centre that an earlier run left, if there is one.
    ///
    /// # Errors
    ///
    /// When its file cannot be read or changed since it was opened.
    pub fn read_centre(&mut self, tile: &Tile) -> Result<(), PassError> {
        let Some(Source { model, placement }) = self.set.centre() else { return Ok(()) };
        let mut values = std::mem::take(&mut self.centre);
        self.read_reference(tile, model, placement, &mut values)?;
        check_kept(self.isa, (self.set, tile), StateTensor::Centre, &model.path, &values)?;
        self.centre = values;
        Ok(())
    }

    /// Reads the values that an earlier run left in a slot, or the slot's initial value, into `values`: one per
    /// coordinate.
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
            Some(source) => {
                self.read_source(tile, source, None, values)?;
                check_kept(self.isa, (self.set, tile), kept.slot, &source.model.path, values)
            }
            None => {
                values.fill(K::rounded(kept.initial));
                Ok(())
            }
        }
    }

    /// The centre's values of the last tile, as a delta; empty without a centre.
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
        self.read_model(tile, (model, placement, None), None, values)?;
        Ok(())
    }

    /// Reads a model's values of a tile. `input` is the index of the model among the inputs of the run, and `client`
    /// the same if it is a client. Returns whether the model's dtype has values that the tile's dtype cannot hold.
    fn read_model<E: Element>(
        &mut self,
        tile: &Tile,
        (model, placement, input): (&ModelFile, &Placement, Option<usize>),
        client: Option<usize>,
        values: &mut [E],
    ) -> Result<bool, PassError> {
        let started = Instant::now();
        let under = client.and_then(|client| base_of_weights(self.set, client));
        let read = SourceReader { isa: self.isa, model, placement, layout: &self.set.layout, under, input };
        let narrows = read.tile(tile, &mut self.stored, values)?;
        self.clock.read += started.elapsed();
        Ok(narrows)
    }

    /// Reads the base's values of a tile, and checks that they are finite.
    ///
    /// # Errors
    ///
    /// When a value is not finite, or the base's file cannot be read.
    pub fn read_finite_base(&mut self, tile: &Tile) -> Result<(), PassError> {
        self.read_base(tile)?;
        // A statistic of weights takes the merged value, whatever the base holds.
        let is_float = tile.dtype.kind() == Kind::Float;
        if all_within(self.isa, &self.base, &Dtype::F64.limits()) || !is_float && self.set.has_weights_alone()
        {
            return Ok(());
        }
        let column = self.base.iter().position(|value| !value.is_finite()).unwrap_or(0);
        let (tensor, index) = self.set.layout.locate(tile.coordinates.start + column);
        let path = self.set.base.as_ref().map(|base| base.model.path.clone()).unwrap_or_default();
        let tensor = tensor.name.clone();
        Err(match is_float {
            true => PassError::BaseNotFinite { path, tensor, index, value: self.base[column] },
            false => PassError::BaseInexact { path, tensor, index },
        })
    }

    /// Reads some clients' rows of a tile.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or changed since it was opened.
    pub fn read<E: Element>(&mut self, tile: &Tile, clients: &[usize]) -> Result<(), PassError> {
        let mut rows = std::mem::replace(&mut self.tile, TileBuffer::new(0, 0));
        let read = self.read_into::<E>(tile, clients, &mut rows.rows_mut());
        self.tile = rows;
        read
    }

    /// Reads some clients' rows of a tile into the caller's memory.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or changed since it was opened.
    pub fn read_into<E: Element>(
        &mut self,
        tile: &Tile,
        clients: &[usize],
        rows: &mut RowsMut,
    ) -> Result<(), PassError> {
        let started = Instant::now();
        let columns = tile.coordinates.len();
        self.subtracted = false;
        for (row, index) in clients.iter().enumerate() {
            let client = &self.set.clients[*index];
            let values = &mut bytemuck::cast_slice_mut::<u8, E>(rows.row_mut(row))[..columns];
            let (model, placement) = (&client.model, &client.placement);
            let input = Some(*index);
            let under = base_of_weights(self.set, *index);
            let read =
                SourceReader { isa: self.isa, model, placement, layout: &self.set.layout, under, input };
            let narrows = read.tile(tile, &mut self.stored, values)?;
            rows.clear_behind(row, columns * size_of::<E>());
            if (narrows || tile.class == TensorClass::Statistic) && self.screens {
                self.read_base_under(tile, *index)?;
                self.screen(tile, *index, &bytemuck::cast_slice::<u8, E>(rows.row(row))[..columns])?;
            }
        }
        self.clock.read += started.elapsed();
        Ok(())
    }

    /// Reads an input of a mode into a row of the tile, after the clients' rows. `input` is its index among the inputs
    /// of the run, for errors.
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
        let read =
            SourceReader { isa: self.isa, model, placement, layout: &self.set.layout, under: None, input };
        read.tile(tile, &mut self.stored, values)?;
        self.tile.clear_behind(row, columns * size_of::<E>());
        self.clock.read += started.elapsed();
        Ok(())
    }

    /// Reads a source's values of a tile into the caller's memory. `input` is its index among the inputs, for errors.
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
        self.read_model(tile, (&source.model, &source.placement, input), None, values)?;
        Ok(())
    }

    /// Reads one client's row of a tile into the caller's memory.
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
        if self.read_model(tile, (model, placement, Some(client)), Some(client), values)? && self.screens {
            self.read_base_under(tile, client)?;
            self.screen(tile, client, values)?;
        }
        Ok(())
    }

    /// Turns the rows of these clients into deltas, if the set mixes weights and deltas. Read the rows and the base
    /// first.
    pub fn subtract_base<E: Element>(&mut self, tile: &Tile, clients: &[usize]) {
        let mut rows = std::mem::replace(&mut self.tile, TileBuffer::new(0, 0));
        self.subtract_base_from::<E>(tile, clients, &mut rows.rows_mut());
        self.tile = rows;
    }

    /// Turns the rows of these clients in the caller's memory into deltas, as [`subtract_base`](Self::subtract_base)
    /// does.
    pub fn subtract_base_from<E: Element>(&mut self, tile: &Tile, clients: &[usize], rows: &mut RowsMut) {
        if self.set.value_kind != ValueKind::Mixed {
            return;
        }
        for (row, client) in clients.iter().enumerate() {
            if self.set.clients[*client].metadata.kind == UpdateKind::Weights {
                let values = bytemuck::cast_slice_mut::<u8, E>(rows.row_mut(row));
                for (x, base) in values[..tile.coordinates.len()].iter_mut().zip(&self.base) {
                    *x = E::from_exact(x.widen() - base);
                }
            }
        }
        self.subtracted = true;
    }

    /// The first `rows` rows of the last tile.
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
    /// The base under an update that holds weights: for tensors that the update lacks.
    under: Option<&'a Base>,
    /// Its index among the inputs: the clients, then those of a mode. `None` for the base and the state.
    input: Option<usize>,
}

impl SourceReader<'_> {
    /// Reads the model's values of a tile. Returns whether the model's dtype has values that the tile's dtype cannot
    /// hold.
    fn tile<E: Element>(
        &self,
        tile: &Tile,
        stored: &mut TileBuffer,
        values: &mut [E],
    ) -> Result<bool, PassError> {
        let (path, input) = (&self.model.path, self.input);
        self.read(tile, stored, values).map_err(|source| PassError::Read {
            path: path.clone(),
            input,
            source,
        })
    }

    /// Reads into the row itself if the file's dtype is the kernels' float, and through `stored` if not. One read
    /// covers tensors that are neighbours in the layout and in the file.
    fn read<E: Element>(&self, tile: &Tile, stored: &mut TileBuffer, values: &mut [E]) -> io::Result<bool> {
        let pieces = || self.layout.pieces(tile.coordinates.clone());
        let (mut column, mut narrows) = (0, false);
        let has_gaps = || pieces().any(|piece| self.placement[piece.tensor].is_absent());
        if self.model.decoder.is_some() || has_gaps() {
            return self.read_pieces(tile, stored, values);
        }
        let pieces = pieces();
        for run in Runs::new(self.placement, pieces) {
            let values = &mut values[column..column + run.len];
            let file = &self.model.files[run.file];
            if E::DTYPE == run.dtype {
                file.read_values_at(bytemuck::cast_slice_mut(values), run.offset)?;
            } else {
                let bytes = &mut stored.row_mut(0)[..run.len * run.dtype.bytes()];
                file.read_values_at(bytes, run.offset)?;
                decode(self.isa, run.dtype, bytes, values);
            }
            narrows |= !tile.dtype.holds_all_of(run.dtype);
            column += run.len;
        }
        Ok(narrows)
    }
}

impl SourceReader<'_> {
    /// Reads a tile of a model with encoded or absent tensors.
    fn read_pieces<E: Element>(
        &self,
        tile: &Tile,
        stored: &mut TileBuffer,
        values: &mut [E],
    ) -> io::Result<bool> {
        let (mut column, mut narrows) = (0, false);
        for piece in self.layout.pieces(tile.coordinates.clone()) {
            let place = self.placement[piece.tensor];
            let values = &mut values[column..column + piece.len];
            if place.is_absent() {
                self.read_base(&piece, stored, values)?;
                column += piece.len;
                continue;
            }
            match &self.model.decoder {
                Some(decoder) if place.file == ENCODED => {
                    let floats = &mut bytemuck::cast_slice_mut(stored.row_mut(0))[..piece.len];
                    decoder.decode(&self.model.files, place.offset as usize, piece.start, floats)?;
                    values
                        .iter_mut()
                        .zip(&*floats)
                        .for_each(|(x, float)| *x = E::from_exact(f64::from(*float)));
                }
                _ => self.read_piece(self.model, place, &piece, stored, values)?,
            }
            narrows |= !tile.dtype.holds_all_of(place.dtype);
            column += piece.len;
        }
        Ok(narrows)
    }
}

impl SourceReader<'_> {
    fn read_piece<E: Element>(
        &self,
        model: &ModelFile,
        place: Place,
        piece: &Piece,
        stored: &mut TileBuffer,
        values: &mut [E],
    ) -> io::Result<()> {
        let bytes = &mut stored.row_mut(0)[..piece.len * place.dtype.bytes()];
        let offset = place.offset + (piece.start * place.dtype.bytes()) as u64;
        model.files[place.file].read_values_at(bytes, offset)?;
        decode(self.isa, place.dtype, bytes, values);
        Ok(())
    }

    /// Reads the base's values of a tensor that an update lacks; a delta has zeros there.
    fn read_base<E: Element>(
        &self,
        piece: &Piece,
        stored: &mut TileBuffer,
        values: &mut [E],
    ) -> io::Result<()> {
        match self.under {
            Some(base) => self.read_piece(&base.model, base.placement[piece.tensor], piece, stored, values),
            None => {
                values.fill(E::from_exact(0.0));
                Ok(())
            }
        }
    }
}

/// The base under a client that holds weights.
fn base_of_weights(set: &UpdateSet, client: usize) -> Option<&Base> {
    let is_weights = set.clients[client].metadata.kind == UpdateKind::Weights;
    set.base.as_deref().filter(|_| is_weights)
}
