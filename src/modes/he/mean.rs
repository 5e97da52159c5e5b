//! Writes the mean of a round as a delta of the base.
//!
//! `fedmill aggregate` reads it like an update of one client.

use crate::io::model_writer::ModelWriter;
use crate::model::dtype::Dtype;
use crate::model::layout::Layout;
use crate::modes::he::TRUST;
use crate::modes::he::round::Round;
use crate::parties::HE_PROTOCOL;
use crate::parties::error::SecureError;
use crate::parties::tensors::{ClientWeights, Held};
use crate::parties::tensors::{held_places, mean_layout, pieces};
use serde_json::json;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// A mean that is being written.
pub struct MeanWriter<'r> {
    round: &'r Round,
    writer: ModelWriter,
    layout: Layout,
    places: BTreeMap<usize, Range<usize>>,
    clients: usize,
    weight: u64,
    written: usize,
}

impl<'r> MeanWriter<'r> {
    /// Starts a file. `weight` is the sum of the weights of `clients` clients.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn create(path: &Path, round: &'r Round, clients: usize, weight: u64) -> Result<Self, SecureError> {
        let layout = mean_layout(&round.terms.tensors);
        let places = held_places(&round.terms.tensors);
        let writer = ModelWriter::create(path, &layout, &metadata(round, clients, weight), None)?;
        Ok(Self { round, writer, layout, places, clients, weight, written: 0 })
    }

    /// Appends the means of the next sums.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn append(&mut self, sums: &[i64]) -> Result<(), SecureError> {
        let start = self.written;
        for (tensor, range) in pieces(&self.places, start..start + sums.len()) {
            let factor = self.factor(self.round.terms.tensors[tensor].held);
            let values = sums[range.start - start..range.end - start].iter().map(|sum| *sum as f64 * factor);
            let bytes: Vec<u8> = match self.layout.tensors()[tensor].dtype {
                Dtype::F64 => values.flat_map(f64::to_le_bytes).collect(),
                _ => values.flat_map(|value| (value as f32).to_le_bytes()).collect(),
            };
            let from = self.layout.coordinates(tensor).start + range.start - self.places[&tensor].start;
            self.writer.write(self.layout.pieces(from..from + range.len()), &bytes)?;
        }
        self.written += sums.len();
        Ok(())
    }

    /// The factor by which integer sums become means.
    fn factor(&self, held: Held) -> f64 {
        let terms = &self.round.terms;
        let step = terms.clip_of(held) / f64::from(terms.params.levels);
        match terms.weights {
            ClientWeights::Uniform => step / self.clients as f64,
            ClientWeights::Examples { cap } => step * f64::from(cap) / self.weight as f64,
        }
    }

    /// Publishes the file, on disk.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn publish(self) -> Result<(), SecureError> {
        self.writer.sync()?;
        Ok(self.writer.publish()?)
    }
}

/// The metadata of a mean.
fn metadata(round: &Round, clients: usize, weight: u64) -> BTreeMap<String, String> {
    let terms = &round.terms;
    let origin = json!({
        "protocol": HE_PROTOCOL,
        "round": round.digest,
        "clients": clients,
        "eligible": terms.clients.len(),
        "key_holder": terms.key_holder.id,
        "trust": TRUST,
    });
    let mut metadata: BTreeMap<String, String> = [
        ("base", terms.base.to_string()),
        ("client_id", "he".to_owned()),
        ("fedmill.he", origin.to_string()),
        ("kind", "delta".to_owned()),
        ("num_examples", weight.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    metadata.extend(terms.round.map(|round| ("round".to_owned(), round.to_string())));
    metadata
}
