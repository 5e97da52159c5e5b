//! How a part of a model and of its state stands in a partial: of each tensor the values that lie in the part, as a
//! tensor of one axis.

use crate::engine::passes::combine::TileValues;
use crate::io::model_writer::{ModelWriter, WriteError};
use crate::model::layout::{Layout, Piece, TensorSpec};
use crate::model::state::KeptTensor;
use crate::model::state::is_kept;
use crate::model::state::stored_dtype;
use std::ops::Range;

/// What names of the model's tensors start with, and those of a state's, with the slot behind.
const MODEL: &str = "model.";
const STATE: &str = "state.";

/// The tensors of a part, slot by slot behind the model's.
pub(crate) struct Pieces {
    /// The values of the model's tensors in the part, in order.
    pieces: Vec<Piece>,
    /// Whose they are: the model's, then one slot's after the other. Each is the place of each piece among the tensors.
    places: Vec<Vec<Option<usize>>>,
    /// The tensors.
    pub(crate) specs: Vec<TensorSpec>,
}

impl Pieces {
    /// Those of some coordinates.
    pub(crate) fn of(layout: &Layout, kept: &[KeptTensor], coordinates: Range<usize>) -> Self {
        let pieces: Vec<Piece> = layout.pieces(coordinates).collect();
        let mut made = Self { pieces, places: Vec::new(), specs: Vec::new() };
        made.add(layout, |spec| Some(TensorSpec { name: format!("{MODEL}{}", spec.name), ..spec.clone() }));
        for KeptTensor { slot, .. } in kept {
            made.add(layout, |spec| {
                let name = format!("{STATE}{}{}", slot.prefix(), spec.name);
                let dtype = stored_dtype(spec.dtype);
                is_kept(*slot, spec.dtype).then(|| TensorSpec { name, dtype, ..spec.clone() })
            });
        }
        made
    }

    fn add(&mut self, layout: &Layout, stored: impl Fn(&TensorSpec) -> Option<TensorSpec>) {
        let mut places = Vec::new();
        for piece in &self.pieces {
            let spec = stored(&layout.tensors()[piece.tensor]);
            places.push(spec.as_ref().map(|_| self.specs.len()));
            self.specs.extend(spec.map(|spec| TensorSpec { shape: vec![piece.len], len: piece.len, ..spec }));
        }
        self.places.push(places);
    }

    /// Each tensor: of which slot (none for the model), and what of the model's tensor it holds.
    pub(crate) fn each(&self) -> impl Iterator<Item = (Option<usize>, Piece)> {
        self.places.iter().enumerate().flat_map(|(owner, places)| {
            let held = places.iter().zip(&self.pieces).filter(|(place, _)| place.is_some());
            held.map(move |(_, piece)| (owner.checked_sub(1), *piece))
        })
    }

    /// Writes the values of a tile.
    pub(crate) fn write(
        &self,
        writer: &ModelWriter,
        layout: &Layout,
        tile: &Range<usize>,
        values: &TileValues,
    ) -> Result<(), WriteError> {
        self.write_of(0, writer, layout, tile, values.model)?;
        for (slot, bytes) in values.kept.iter().enumerate().filter(|(_, bytes)| !bytes.is_empty()) {
            self.write_slot(writer, layout, tile, slot, bytes)?;
        }
        Ok(())
    }

    /// Writes the values of a slot in a tile.
    pub(crate) fn write_slot(
        &self,
        writer: &ModelWriter,
        layout: &Layout,
        tile: &Range<usize>,
        slot: usize,
        bytes: &[u8],
    ) -> Result<(), WriteError> {
        self.write_of(slot + 1, writer, layout, tile, bytes)
    }

    fn write_of(
        &self,
        owner: usize,
        writer: &ModelWriter,
        layout: &Layout,
        tile: &Range<usize>,
        bytes: &[u8],
    ) -> Result<(), WriteError> {
        let within = layout.pieces(tile.clone()).filter_map(|piece| {
            let at = self.pieces.binary_search_by_key(&piece.tensor, |known| known.tensor).ok()?;
            let tensor = self.places[owner][at]?;
            Some(Piece { tensor, start: piece.start - self.pieces[at].start, ..piece })
        });
        writer.write(within, bytes)
    }
}
