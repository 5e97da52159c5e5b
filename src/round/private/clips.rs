//! What is done to each client before its update is added: two passes, one for the norms, one that verifies.
//!
//! What a client sends decides about that client alone: an update that cannot be read, or is not finite, counts as zero,
//! and the round goes on. So does the run if nobody came.

use crate::kernels::clip_integers::Squares;
use crate::kernels::lanes::Isa;
use crate::model::dtype::{Kind, Working};
use crate::privacy::clipping::{Clip, Grid, Treatment};
use crate::round::passes::{PassError, for_each_tile};
use crate::round::private::sum::each_block;
use crate::round::roster::UpdateSet;
use crate::round::tiles::{Tile, TilePlan};
use crate::round::workspace::Workspace;
use crate::telemetry::progress::Progress;
use half::{bf16, f16};
use rayon::ThreadPool;
use std::ops::Range;

/// Reads the updates of a set to see how they are clipped.
#[derive(Clone, Copy)]
pub struct Clips<'a> {
    /// The instruction set to run on.
    pub isa: Isa,
    /// The updates, and the base that weights are less.
    pub set: &'a UpdateSet,
    /// The threads.
    pub pool: &'a ThreadPool,
    /// Told about every tile.
    pub progress: &'a Progress,
}

/// What a client's values add up to; none if they cannot be read.
type Seen<T> = Option<T>;

impl Clips<'_> {
    /// How each client is clipped, and its norm; verified: at its scale its integers are within the bound.
    ///
    /// # Errors
    ///
    /// When the base cannot be read, or a signal asked to stop.
    pub fn find(&self, grid: &Grid) -> Result<Vec<(Clip, f64)>, PassError> {
        let squares = self.squares()?;
        let mut clips: Vec<(Clip, f64)> = squares
            .iter()
            .map(|seen| match seen {
                Some(squares) => (grid.clip(squares, 1.0), squares.norm()),
                None => (Clip::VOID, 0.0),
            })
            .collect();
        loop {
            let sums = self.integers(&clips)?;
            let mut is_verified = true;
            for ((clip, _), sum) in clips.iter_mut().zip(sums) {
                let Some(sum) = sum else {
                    *clip = Clip::VOID;
                    continue;
                };
                if clip.treatment != Treatment::Void && !grid.admits(sum) {
                    is_verified = false;
                    *clip = Clip { scale: clip.scale.shrunk(), treatment: Treatment::Clipped };
                }
            }
            if is_verified {
                return Ok(clips);
            }
        }
    }

    /// The squares of each client's delta.
    fn squares(&self) -> Result<Vec<Seen<Squares>>, PassError> {
        self.progress.start("measuring", self.set.data_bytes());
        let add = |space: &Workspace, tile: &Tile, client: usize, squares: &mut Squares| {
            let base = space.base_of(client);
            match tile.working {
                Working::BF16 => squares.add(space.rows::<bf16>(tile, 1).row(0), base),
                Working::F16 => squares.add(space.rows::<f16>(tile, 1).row(0), base),
                Working::F32 => squares.add(space.rows::<f32>(tile, 1).row(0), base),
                Working::F64 => squares.add(space.rows::<f64>(tile, 1).row(0), base),
            }
        };
        self.each_client(|_| true, add, |all: &mut Squares, more| all.merge(&more))
    }

    /// How the squares of each client's integers add up, by a clip each.
    fn integers(&self, clips: &[(Clip, f64)]) -> Result<Vec<Seen<u128>>, PassError> {
        self.progress.start("verifying", self.set.data_bytes());
        let add = |space: &Workspace, tile: &Tile, client: usize, sum: &mut u128| {
            let clip = (client, clips[client].0);
            let more = match tile.working {
                Working::BF16 => each_block::<bf16>(self.isa, space, tile, clip, |_, _| {}),
                Working::F16 => each_block::<f16>(self.isa, space, tile, clip, |_, _| {}),
                Working::F32 => each_block::<f32>(self.isa, space, tile, clip, |_, _| {}),
                Working::F64 => each_block::<f64>(self.isa, space, tile, clip, |_, _| {}),
            };
            *sum = sum.saturating_add(more);
        };
        let counts = |client: usize| clips[client].0.treatment != Treatment::Void;
        self.each_client(counts, add, |all: &mut u128, more| *all = all.saturating_add(more))
    }

    /// Adds something up over all floats of each client, in any order.
    fn each_client<T: Default + Send>(
        &self,
        counts: impl Fn(usize) -> bool + Sync,
        add: impl Fn(&Workspace, &Tile, usize, &mut T) + Sync,
        merge: impl Fn(&mut T, T),
    ) -> Result<Vec<Seen<T>>, PassError> {
        let plan = TilePlan::of_ranges(self.set, 1, &floats(self.set));
        let clients = self.set.clients.len();
        let new = || (Workspace::new(self.isa, self.set, &plan), new_seen(clients));
        let workers = for_each_tile(self.pool, &plan, new, |(space, seen), tile| {
            space.read_base(tile)?;
            for (client, seen) in seen.iter_mut().enumerate().filter(|(client, _)| counts(*client)) {
                let is_read = match tile.working {
                    Working::BF16 => space.read::<bf16>(tile, &[client]),
                    Working::F16 => space.read::<f16>(tile, &[client]),
                    Working::F32 => space.read::<f32>(tile, &[client]),
                    Working::F64 => space.read::<f64>(tile, &[client]),
                };
                match (is_read, seen.as_mut()) {
                    (Ok(()), Some(sum)) => add(space, tile, client, sum),
                    (Err(why @ PassError::Read { .. }), Some(_)) => {
                        tracing::warn!("{why}: the client counts as zero");
                        *seen = None;
                    }
                    (Err(PassError::Read { .. }), None) | (Ok(()), None) => {}
                    (Err(why), _) => return Err(why),
                }
            }
            self.progress.advance((clients * tile.coordinates.len() * tile.dtype.bytes()) as u64);
            Ok(())
        })?;
        let mut all = new_seen(clients);
        for (_, seen) in workers {
            for (all, more) in all.iter_mut().zip(seen) {
                match (all.as_mut(), more) {
                    (Some(all), Some(more)) => merge(all, more),
                    _ => *all = None,
                }
            }
        }
        Ok(all)
    }
}

fn new_seen<T: Default>(clients: usize) -> Vec<Seen<T>> {
    (0..clients).map(|_| Some(T::default())).collect()
}

/// The coordinates of the float tensors.
pub fn floats(set: &UpdateSet) -> Vec<Range<usize>> {
    let tensors = set.layout.tensors();
    let is_float = |tensor: &usize| tensors[*tensor].dtype.kind() == Kind::Float;
    (0..tensors.len()).filter(is_float).map(|tensor| set.layout.coordinates(tensor)).collect()
}
