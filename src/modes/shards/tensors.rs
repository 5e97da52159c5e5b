//! The tensors of a shard file of merged values.
//!
//! The file holds, for each tensor of the model and the state, the values in the shard's sections, as a tensor of one
//! axis.

use crate::engine::passes::combine::TileValues;
use crate::io::model_writer::{ModelWriter, WriteError};
use crate::model::class::TensorClass;
use crate::model::layout::{Layout, Piece, TensorSpec};
use crate::model::state::KeptTensor;
use crate::model::state::is_kept;
use crate::model::state::stored_dtype;
use std::ops::Range;

/// The prefixes of the model's tensors, and of state tensors, which the prefix of the slot follows.
const MODEL: &str = "model.";
const STATE: &str = "state.";

/// The tensors of a part: the model's, then those of each slot.
pub(crate) struct Pieces {
    /// The values of the model's tensors in the part, in order.
    pieces: Vec<Piece>,
    /// For the model, then for each slot: the index in `specs` of each piece; `None` if the slot does not keep it.
    places: Vec<Vec<Option<usize>>>,
    /// The tensors.
    pub(crate) specs: Vec<TensorSpec>,
}

impl Pieces {
    /// The tensors of a range of coordinates.
    pub(crate) fn of(layout: &Layout, kept: &[KeptTensor], coordinates: Range<usize>) -> Self {
        let pieces: Vec<Piece> = layout.pieces(coordinates).collect();
        let mut tensors = Self { pieces, places: Vec::new(), specs: Vec::new() };
        tensors.add(layout, |spec, _| {
            Some(TensorSpec { name: format!("{MODEL}{}", spec.name), ..spec.clone() })
        });
        for KeptTensor { slot, .. } in kept {
            tensors.add(layout, |spec, class| {
                let name = format!("{STATE}{}{}", slot.prefix(), spec.name);
                let dtype = stored_dtype(spec.dtype);
                is_kept(*slot, class).then(|| TensorSpec { name, dtype, ..spec.clone() })
            });
        }
        tensors
    }

    fn add(&mut self, layout: &Layout, stored: impl Fn(&TensorSpec, TensorClass) -> Option<TensorSpec>) {
        let mut places = Vec::new();
        for piece in &self.pieces {
            let spec = stored(&layout.tensors()[piece.tensor], layout.classes()[piece.tensor]);
            places.push(spec.as_ref().map(|_| self.specs.len()));
            self.specs.extend(spec.map(|spec| TensorSpec { shape: vec![piece.len], len: piece.len, ..spec }));
        }
        self.places.push(places);
    }

    /// The slot of each tensor (`None` for the model), and the piece of the model's tensor that it holds.
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
