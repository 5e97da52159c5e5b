//! Adds clipped updates and sums of them, without noise: `fedmill privacy clip` and `sum`.

use crate::budget::books::Books;
use crate::engine::aggregate::error::Error;
use crate::engine::aggregate::request::Request;
use crate::engine::passes::drive::Clock;
use crate::engine::passes::error::PassError;
use crate::engine::passes::machine::Machine;
use crate::engine::passes::pass::{TilePass, for_element};
use crate::engine::passes::plan::{Tile, TilePlan};
use crate::engine::passes::reader::TileReader;
use crate::io::model_writer::ModelWriter;
use crate::model::dtype::Kind;
use crate::modes::dp::COLUMNS;
use crate::modes::dp::clipped::{ClientClips, Clipped};
use crate::modes::dp::error::DpError;
use crate::modes::dp::noised_sum::ClippedSum;
use crate::modes::dp::release::{Options, open};
use crate::modes::dp::sum_file::{SumDescription, SumFile, layout_of};
use crate::updates::set::UpdateSet;
use std::path::PathBuf;
use std::slice;

/// Writes the sum of the clipped clients of a request and of earlier sums, without noise. The sum is not private.
/// Returns its path.
///
/// # Errors
///
/// When the input is bad or a file cannot be written; nothing is published then.
pub fn write_sum(request: Request, options: &Options, machine: Machine) -> Result<PathBuf, Error> {
    let mut session = open(request, machine)?;
    let books = Books::read(&options.directory).map_err(DpError::of)?;
    let clipped = Clipped::of(&mut session, options, &books)?;
    let Clipped { taken, terms, sum_terms, grid, mut clips, edges, .. } = clipped;
    let set = &taken.set;
    let ids = set.clients.iter().map(|client| &client.id);
    let counted = books.counted(session.request.policy.round, ids).map_err(DpError::of)?;
    clips.leave_out(set, &counted);
    let (below, clients) = (clips.below(terms.clip, &edges), members(&clips, set, &edges));
    let description = SumDescription { private: false, terms: sum_terms, clients, below };
    let target = &session.request.outputs.model;
    let writer = ModelWriter::create(target, &layout_of(&set.layout), &description.metadata(), None)?;
    let sum = clips.sum(grid, edges);
    let all = 0..set.layout.parameters();
    let all = slice::from_ref(&all);
    let plan = TilePlan::at_multiples(set, 1, all, COLUMNS);
    let machine = &session.machine;
    machine.progress.start("adding up", set.data_bytes());
    machine.run(&SumPass { machine, set, plan, sum: &sum, writer: &writer })?;
    let paths: Vec<PathBuf> = clips.counting(set).map(|client| client.model.path.clone()).collect();
    sum.verify(&paths).map_err(DpError::of)?;
    session.check_unchanged(&taken)?;
    writer.sync()?;
    let path = writer.path().to_owned();
    writer.publish()?;
    session.machine.progress.finish();
    Ok(path)
}

/// The ids of all clients in the sum, in order.
fn members(clips: &ClientClips, set: &UpdateSet, edges: &[SumFile]) -> Vec<String> {
    let mut clients: Vec<String> = clips.counting(set).map(|client| client.id.clone()).collect();
    clients.extend(edges.iter().flat_map(SumFile::clients).cloned());
    clients.sort_unstable();
    clients
}

/// The pass that writes the sums of integers to the file. The sums of integer tensors are zero.
struct SumPass<'a> {
    machine: &'a Machine<'a>,
    set: &'a UpdateSet,
    plan: TilePlan,
    sum: &'a ClippedSum,
    writer: &'a ModelWriter,
}

impl TilePass for SumPass<'_> {
    type Worker<'p>
        = (TileReader<'p>, Vec<i64>)
    where
        Self: 'p;
    type Part = ();
    type Sum = ();

    fn plan(&self) -> &TilePlan {
        &self.plan
    }

    fn worker(&self) -> (TileReader<'_>, Vec<i64>) {
        (TileReader::new(self.machine.isa, self.set, &self.plan), Vec::new())
    }

    fn tile(&self, (reader, integers): &mut (TileReader, Vec<i64>), tile: &Tile) -> Result<(), PassError> {
        let (isa, layout) = (self.machine.isa, &self.set.layout);
        integers.clear();
        integers.resize(tile.coordinates.len(), 0);
        if tile.dtype.kind() == Kind::Float {
            reader.read_base(tile)?;
            for_element!(tile.working, E => self.sum.add::<E>(isa, layout, reader, tile, integers))?;
        }
        let pieces = layout.pieces(tile.coordinates.clone());
        Ok(self.writer.write(pieces, bytemuck::cast_slice(integers))?)
    }

    fn start(&self) {}

    fn add(&self, (): &mut (), _: &Tile, (): ()) {}

    fn clock(&self, (reader, _): &(TileReader, Vec<i64>)) -> Clock {
        reader.clock
    }
}
