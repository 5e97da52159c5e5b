//! Clipped updates, and sums of them, added up into a file without noise: `fedmill privacy clip` and `sum`.

use crate::budget::books::Books;
use crate::engine::aggregate::error::MergeError;
use crate::engine::aggregate::session::{Run, check_unchanged};
use crate::engine::intake::admit::UpdateSet;
use crate::engine::passes::combine::CombineError;
use crate::engine::passes::drive::{PassError, for_each_tile};
use crate::engine::passes::plan::{Tile, TilePlan};
use crate::engine::passes::reader::Workspace;
use crate::io::model_writer::ModelWriter;
use crate::kernels::lanes::Isa;
use crate::model::dtype::{Kind, Working};
use crate::modes::dp::noised_sum::{COLUMNS, ClippedSum};
use crate::modes::dp::release::{Clipped, Private, PrivateError, below, each, leave_out};
use crate::modes::dp::sum_file::{Description, layout_of};
use crate::privacy::clipping::Treatment;
use crate::telemetry::progress::Progress;
use half::{bf16, f16};
use rayon::ThreadPool;
use std::path::PathBuf;

impl Run {
    /// Writes the sum of the round's clients and of earlier sums. Returns where it is.
    pub(crate) fn gather(
        mut self,
        how: &Private,
        pool: &ThreadPool,
        progress: &Progress,
    ) -> Result<PathBuf, MergeError> {
        let books = Books::read(&how.directory).map_err(PrivateError::from)?;
        let Clipped { round, terms, edge_terms, grid, mut clips, edges, .. } =
            self.clip(how, &books, pool, progress)?;
        let set = &round.set;
        let ids = set.clients.iter().map(|client| &client.id);
        let counted = books.counted(self.job.expected.round, ids).map_err(PrivateError::from)?;
        leave_out(set, &mut clips, &counted);
        let counted =
            set.clients.iter().zip(&clips).filter(|(_, found)| found.clip.treatment != Treatment::Void);
        let mut clients: Vec<String> = counted.map(|(client, _)| client.id.clone()).collect();
        clients.extend(edges.iter().flat_map(|edge| edge.description.clients.iter().cloned()));
        clients.sort_unstable();
        let below = below(&terms, &clips, &edges);
        let description = Description { private: false, terms: edge_terms, clients, below };
        let layout = layout_of(&set.layout);
        let writer = ModelWriter::create(&self.job.output, &layout, &description.metadata(), None)?;
        let sum = ClippedSum::new(grid, &each(&clips), edges);
        let plan =
            TilePlan::at_multiples(set, 1, std::slice::from_ref(&(0..set.layout.parameters())), COLUMNS);
        progress.start("adding up", set.data_bytes());
        let new = || (Workspace::new(self.job.isa, set, &plan), Vec::new());
        for_each_tile(pool, &plan, new, |(space, integers), tile| {
            add_tile(self.job.isa, set, &sum, space, tile, integers)?;
            let bytes: &[u8] = bytemuck::cast_slice(integers);
            writer.write(set.layout.pieces(tile.coordinates.clone()), bytes).map_err(CombineError::from)
        })?;
        sum.verify(set)?;
        check_unchanged(set)?;
        writer.sync()?;
        let path = writer.path().to_owned();
        writer.publish()?;
        progress.finish();
        Ok(path)
    }
}

/// The sums of a tile; those of integer tensors are zero.
fn add_tile(
    isa: Isa,
    set: &UpdateSet,
    sum: &ClippedSum,
    space: &mut Workspace,
    tile: &Tile,
    integers: &mut Vec<i64>,
) -> Result<(), PassError> {
    integers.clear();
    integers.resize(tile.coordinates.len(), 0);
    if tile.dtype.kind() != Kind::Float {
        return Ok(());
    }
    space.read_base(tile)?;
    match tile.working {
        Working::BF16 => sum.add::<bf16>(isa, &set.layout, space, tile, integers),
        Working::F16 => sum.add::<f16>(isa, &set.layout, space, tile, integers),
        Working::F32 => sum.add::<f32>(isa, &set.layout, space, tile, integers),
        Working::F64 => sum.add::<f64>(isa, &set.layout, space, tile, integers),
    }
}
