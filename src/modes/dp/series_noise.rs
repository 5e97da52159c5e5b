//! Rows of correlated noise, kept between rounds.
//!
//! The noise of a round depends on that of a few rounds before it.
//!
//! A row is the noise of one round at all coordinates, in a file that only its owner can read: a digest of the round's
//! key, a digest of the values, then the values, i32 in native byte order. The key of the series and the transcript of
//! the round determine the row. A row of another transcript does not count: an older copy of the ledger may stand
//! beside newer rows. Nor does a damaged row. A file is published whole or not at all, and missing rows are computed
//! again, from the first round if needed. So a crash at any time changes nothing. Memory holds a few thousand
//! coordinates of one row per band.
//!
//! A GPU draws the noise of a round, and the CPU subtracts the earlier rows: it has them at hand, and they are more
//! bytes than the draws.

use crate::budget::directory::Directory;
use crate::budget::error::BudgetError;
use crate::engine::passes::machine::Machine;
use crate::io::digest::Blake3;
use crate::io::interrupt;
use crate::io::journal::JournalError;
use crate::io::publish::{Staged, remove_leftovers, sync_directory_of};
use crate::io::source::{OpenFiles, SourceFile};
use crate::kernels::discrete_gaussian::Level;
use crate::kernels::lanes::Isa;
use crate::modes::dp::drawing::Drawing;
use crate::modes::dp::streams::{SignedStream, domain};
use crate::privacy::correlated::banded::Banded;
use crate::privacy::key::Key;
use crate::record::sha256::Sha256;
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use std::collections::VecDeque;
use std::io;

/// The number of coordinates that the rows are added up for at a time, and that the CPU draws at a time.
const BLOCK_COORDINATES: usize = 4096;
/// The most coordinates that a GPU draws at a time.
const COORDINATES_ON_GPU: usize = 1 << 16;
/// The most values of rows that a thread holds, if a GPU draws.
const VALUES_BESIDE_GPU: usize = 1 << 20;
/// Bytes of one value.
const BYTES: u64 = size_of::<i32>() as u64;

/// Bytes of a digest. Two stand before the values: one that names the key of the round, and that of the values.
const DIGEST_BYTES: u64 = 32;

/// The place of a coordinate in the file of a row.
pub(crate) fn offset(coordinate: u64) -> u64 {
    2 * DIGEST_BYTES + BYTES * coordinate
}

/// The draws of the rounds of a series up to one of them.
#[derive(Debug)]
pub struct Draws {
    /// The key of the series.
    pub(crate) key: Key,
    /// The transcript of each round from the first on.
    pub(crate) transcripts: Vec<Sha256>,
}

impl Draws {
    /// The number of the last round.
    pub(crate) fn round(&self) -> u32 {
        u32::try_from(self.transcripts.len()).unwrap_or(u32::MAX)
    }

    /// The key of the draws of a round, from 1 to [`round`](Self::round).
    pub(crate) fn of(&self, round: u32) -> Key {
        self.key.of_round(&self.transcripts[round as usize - 1])
    }

    /// The stream of the draws of a round.
    fn stream(&self, round: u32) -> SignedStream {
        SignedStream { key: self.of(round), domain: domain::ROUND, segment: round, is_negative: false }
    }

    /// A digest that names the key of a round and does not reveal it.
    fn name(&self, round: u32) -> Sha256 {
        Sha256::of([b"fedmill noise of a round".as_slice(), self.of(round).bytes()].concat())
    }
}

/// Computes and keeps the rows of a series.
#[derive(Clone, Copy, Debug)]
pub(crate) struct History<'a> {
    /// The directory of the rows.
    pub(crate) directory: &'a Directory,
    /// The matrix of the mechanism.
    pub(crate) banded: &'a Banded,
    /// The draws of the series up to the round.
    pub(crate) draws: &'a Draws,
    /// The scale of the draws.
    pub(crate) level: Level,
    /// The number of coordinates of a row.
    pub(crate) coordinates: u64,
}

/// Rows in progress: those after round `start` up to round `end`.
struct RowsInProgress<'r> {
    isa: Isa,
    start: u32,
    end: u32,
    /// The draws of these rounds: one stream a round.
    drawing: Drawing<'r>,
    /// Rows up to `start` that the next row depends on, the latest first.
    earlier: Vec<SourceFile>,
    /// Rows to keep.
    kept: Vec<(u32, Staged)>,
}

impl History<'_> {
    /// The row of a round. Computes it if it is not kept.
    pub(crate) fn row(&self, round: u32, machine: &Machine) -> Result<SourceFile, BudgetError> {
        if !self.is_kept(round) {
            self.compute(round, machine)?;
        }
        self.open(round)
    }

    fn open(&self, round: u32) -> Result<SourceFile, BudgetError> {
        let path = self.directory.row(round);
        SourceFile::open(&path, &OpenFiles::raise_limit()).map_err(BudgetError::at(&path))
    }

    /// Whether the row of a round is kept and sound.
    fn is_kept(&self, round: u32) -> bool {
        let digest = |row: &SourceFile, place| {
            let mut digest = [0; DIGEST_BYTES as usize];
            row.read_exact_at(&mut digest, place * DIGEST_BYTES).map(|()| digest)
        };
        let Ok(row) = self.open(round) else { return false };
        let is_named = digest(&row, 0).is_ok_and(|name| name == *self.draws.name(round).bytes());
        if row.bytes() != offset(self.coordinates) || !is_named {
            return false;
        }
        let found = Blake3::of_range(&row, offset(0), BYTES * self.coordinates);
        let is_sound = found.and_then(|found| Ok(found == digest(&row, 1)?)).is_ok_and(|same| same);
        if !is_sound {
            tracing::warn!("{}: was damaged, and is made again from the key", row.path().display());
        }
        is_sound
    }

    /// The rows that the row after `round` depends on, the latest first.
    fn remembered(&self, round: u32) -> impl Iterator<Item = u32> {
        (1..=round).rev().take(self.banded.remembered())
    }

    /// The last round before this one for which all rows that the next depends on are kept. Zero means that rows must
    /// be computed from the first round.
    fn start(&self, round: u32) -> u32 {
        let last = (1..round).rev().find(|round| self.is_kept(*round)).unwrap_or(0);
        if self.banded.remembered() == 0 {
            return round - 1;
        }
        if self.remembered(last).all(|round| self.is_kept(round)) { last } else { 0 }
    }

    fn compute(&self, round: u32, machine: &Machine) -> Result<(), BudgetError> {
        let start = self.start(round);
        let earlier = self.remembered(start).map(|round| self.open(round)).collect::<Result<_, _>>()?;
        let rounds = self.remembered(round).chain([round]).filter(|round| *round > start);
        let mut rounds: Vec<u32> = rounds.collect();
        rounds.sort_unstable();
        rounds.dedup();
        let staged = |round| Ok((round, self.stage(round)?));
        let kept = rounds.into_iter().map(staged).collect::<Result<_, BudgetError>>()?;
        let ring = machine.gpu();
        let streams = (start + 1..=round).map(|round| self.draws.stream(round)).collect();
        let drawing = Drawing::new(machine, ring.as_deref(), self.level, streams, COORDINATES_ON_GPU);
        let columns = if drawing.is_on_gpu() { self.columns_on_gpu() } else { BLOCK_COORDINATES };
        let progress = RowsInProgress { isa: machine.isa, start, end: round, drawing, earlier, kept };
        // All threads add up rows, also beside a GPU: rows of many bands cost more than their draws.
        let pieces = 0..self.coordinates.div_ceil(columns as u64);
        let computed = machine.pool.install(|| {
            pieces
                .into_par_iter()
                .try_for_each(|piece| self.compute_piece(&progress, piece * columns as u64, columns))
        });
        progress.drawing.finish(machine);
        computed?;
        for (round, staged) in progress.kept {
            let path = self.directory.row(round);
            machine.pool.install(|| self.seal(&staged)).map_err(BudgetError::at(&path))?;
            staged.sync().and_then(|()| staged.publish(&path)).map_err(BudgetError::at(&path))?;
        }
        let path = self.directory.row(round);
        sync_directory_of(&path).map_err(BudgetError::at(&path))?;
        let oldest = self.remembered(round).last().unwrap_or(round);
        self.directory.wipe_rows(|round| round >= u64::from(oldest))
    }

    fn stage(&self, round: u32) -> Result<Staged, BudgetError> {
        let path = self.directory.row(round);
        let staged =
            remove_leftovers(&path).and_then(|_| Staged::create_secret(&path, offset(self.coordinates)));
        let named = staged.and_then(|staged| {
            staged.write_at(self.draws.name(round).bytes(), 0)?;
            Ok(staged)
        });
        named.map_err(BudgetError::at(&path))
    }

    /// Writes the digest of the values.
    fn seal(&self, staged: &Staged) -> io::Result<()> {
        let mut digest = Blake3::default();
        let read = |chunk: &mut [u8], at| staged.read_at(chunk, offset(0) + at);
        digest.add(BYTES * self.coordinates, read)?;
        staged.write_at(&digest.bytes(), DIGEST_BYTES)
    }

    /// The number of coordinates that a GPU draws at a time, while the host holds a row of them for each band.
    fn columns_on_gpu(&self) -> usize {
        let columns = VALUES_BESIDE_GPU / (self.banded.remembered() + 1);
        columns.clamp(BLOCK_COORDINATES, COORDINATES_ON_GPU)
    }

    /// Computes all rows in progress, at up to `columns` coordinates from `first` on.
    fn compute_piece(
        &self,
        progress: &RowsInProgress,
        first: u64,
        columns: usize,
    ) -> Result<(), BudgetError> {
        interrupt::check().map_err(JournalError::from)?;
        let len = (columns as u64).min(self.coordinates - first) as usize;
        let read = |row: &SourceFile| {
            let mut noise = vec![0; len];
            let bytes = bytemuck::cast_slice_mut(&mut noise);
            row.read_exact_at(bytes, offset(first)).map_err(BudgetError::at(row.path()))?;
            Ok(noise)
        };
        let earlier = progress.earlier.iter().map(read).collect::<Result<Vec<Vec<i32>>, BudgetError>>()?;
        let mut earlier = VecDeque::from(earlier);
        let mut drawn = vec![0; len];
        for (stream, round) in (progress.start + 1..=progress.end).enumerate() {
            drawn.fill(0);
            progress.drawing.add(stream..stream + 1, first, &mut drawn);
            let mut row = vec![0; len];
            let blocks = drawn.chunks_mut(BLOCK_COORDINATES).zip(row.chunks_mut(BLOCK_COORDINATES));
            for (block, (drawn, row)) in blocks.enumerate() {
                let start = block * BLOCK_COORDINATES;
                let end = start + row.len();
                let earlier = earlier.iter().map(|earlier| &earlier[start..end]);
                self.banded.next(progress.isa, drawn, earlier, row);
            }
            if let Some((_, staged)) = progress.kept.iter().find(|(kept, _)| *kept == round) {
                let written = staged.write_at(bytemuck::cast_slice(&row), offset(first));
                written.map_err(BudgetError::at(&self.directory.row(round)))?;
            }
            earlier.push_front(row);
            earlier.truncate(self.banded.remembered());
        }
        Ok(())
    }
}
