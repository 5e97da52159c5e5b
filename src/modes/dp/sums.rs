//! Adds clipped updates and sums of them, without noise: `fedmill privacy clip` and `sum`.

use crate::budget::books::Books;
use crate::engine::aggregate::error::Error;
use crate::engine::aggregate::request::Request;
use crate::engine::passes::machine::Machine;
use crate::io::model_writer::ModelWriter;
use crate::modes::dp::clipped::{ClientClips, Clipped};
use crate::modes::dp::error::DpError;
use crate::modes::dp::release::{Options, open};
use crate::modes::dp::sum_file::{SumDescription, SumFile, layout_of};
use crate::updates::set::UpdateSet;
use std::path::PathBuf;

/// Writes the sum of the clipped clients of a request and of earlier sums, without noise. The sum is not private.
/// Returns its path.
///
/// # Errors
///
/// When the input is bad or a file cannot be written; nothing is published then.
pub fn write_sum(request: Request, options: &Options, machine: Machine) -> Result<PathBuf, Error> {
    let mut session = open(request, options, machine)?;
    let books = Books::read(&options.directory).map_err(DpError::of)?;
    let mut clipped = Clipped::of(&mut session, options, &books)?;
    clipped.leave_out(&books, session.request.policy.round)?;
    let layout = layout_of(&clipped.taken.set.layout);
    let target = &session.request.outputs.model;
    let writer = ModelWriter::create_private(target, &layout, &description(&clipped).metadata())?;
    clipped.add_up(&session, &|tile, integers| {
        let pieces = layout.pieces(tile.coordinates.clone());
        Ok(writer.write(pieces, bytemuck::cast_slice(integers))?)
    })?;
    clipped.check_unchanged()?;
    // Clients that changed meanwhile are not in the sum.
    writer.rewrite_metadata(&layout, &description(&clipped).metadata())?;
    session.machine.pool.install(|| writer.seal())?;
    writer.sync()?;
    let path = writer.path().to_owned();
    writer.publish()?;
    session.machine.progress.finish();
    Ok(path)
}

fn description(clipped: &Clipped) -> SumDescription {
    let Clipped { clips, edges, terms, sum_terms, taken, .. } = clipped;
    let (below, clients) = (clips.below(terms.clip, edges), members(clips, &taken.set, edges));
    SumDescription { private: false, terms: sum_terms.clone(), clients, below }
}

/// The ids of all clients in the sum, in order.
fn members(clips: &ClientClips, set: &UpdateSet, edges: &[SumFile]) -> Vec<String> {
    let mut clients: Vec<String> = clips.counting(set).map(|client| client.id.clone()).collect();
    clients.extend(edges.iter().flat_map(SumFile::clients).cloned());
    clients.sort_unstable();
    clients
}
