//! The ring: slots of several threads, rows that stay on the device, half-filled slots.

use super::devices;
use fedmill::gpu::job::{CombineJob, GpuError, Options, PairSums, PairsJob, Reduction, TileShape};
use fedmill::gpu::{CombineProgram, Gpu, PairsProgram, RingSlot};
use fedmill::model::dtype::Working;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

const ROWS: usize = 7;
const COLUMNS: usize = 1_500;
const TILES: usize = 12;

pub(super) fn shape() -> TileShape {
    TileShape { rows: ROWS, stored: Working::F32, references: 1, columns: COLUMNS }
}

pub(super) fn combine_job() -> CombineJob {
    CombineJob {
        shape: shape(),
        chosen: (0..ROWS as u32).collect(),
        weights: (1..=ROWS).map(|weight| weight as f64).collect(),
        mixing: None,
        reduction: Reduction::WeightedSum,
        norms: Some(vec![true; ROWS]),
        step: None,
    }
}

pub(super) fn pairs_job() -> PairsJob {
    PairsJob {
        shape: shape(),
        mixing: None,
        origin_is_base: true,
        with_median: true,
        with_centre: false,
        differences: true,
        signs: Some(vec![true; ROWS]),
    }
}

/// The columns of a tile. The last tile is short.
fn columns_of(tile: usize) -> usize {
    if tile + 1 == TILES { COLUMNS / 3 } else { COLUMNS }
}

fn value(tile: usize, row: usize, column: usize) -> f32 {
    ((tile * 7_919 + row * 104_729 + column * (31 + row)) % 10_007) as f32 / 5_000.0 - 1.0
}

/// Writes a row of a tile. The base follows the clients' rows.
fn write(tile: usize, row: usize, out: &mut [u8]) {
    for (column, out) in out.chunks_exact_mut(4).enumerate() {
        out.copy_from_slice(&value(tile, row, column).to_le_bytes());
    }
}

pub(super) fn fill(slot: &mut RingSlot, tile: usize) -> Result<(), GpuError> {
    slot.fill(columns_of(tile), |row, out| {
        write(tile, row, out);
        Ok(())
    })
}

/// The merged values of a tile, as bits.
#[derive(PartialEq, Debug)]
pub(super) struct Merged {
    values: Vec<u64>,
    norms: Vec<u64>,
    largest: u32,
}

pub(super) fn merge(
    slot: &mut RingSlot,
    program: &CombineProgram,
    kept: Option<&fedmill::gpu::ResidentTile>,
) -> Result<Merged, GpuError> {
    let mut values = vec![f64::NAN; 3];
    let combined = slot.combine(program, kept, &mut values)?;
    let bits = |values: &[f64]| values.iter().map(|x| x.to_bits()).collect();
    Ok(Merged {
        values: bits(&values),
        norms: bits(&combined.squared_norms),
        largest: combined.largest.to_bits(),
    })
}

/// Merges every tile in one slot, one after the other.
fn one_by_one(gpu: &Gpu, program: &CombineProgram) -> Vec<Merged> {
    let mut slot = RingSlot::for_combine(gpu, program).unwrap();
    let tiles = 0..TILES;
    tiles
        .map(|tile| {
            fill(&mut slot, tile).unwrap();
            merge(&mut slot, program, None).unwrap()
        })
        .collect()
}

/// Runs `work` on every tile, with a thread for each slot. Each thread takes the next tile.
fn share<T: Send>(slots: usize, worker: impl Fn(&AtomicUsize, &mut Vec<(usize, T)>) + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let mut all: Vec<(usize, T)> = thread::scope(|scope| {
        let work = || {
            let mut done = Vec::new();
            worker(&next, &mut done);
            done
        };
        let threads: Vec<_> = (0..slots).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    all.sort_by_key(|(tile, _)| *tile);
    all.into_iter().map(|(_, result)| result).collect()
}

fn next(tiles: &AtomicUsize) -> Option<usize> {
    Some(tiles.fetch_add(1, Ordering::Relaxed)).filter(|tile| *tile < TILES)
}

#[test]
fn slots_of_several_threads_give_the_bits_of_one() {
    for gpu in devices(&Options::default()) {
        let program = CombineProgram::new(&gpu, &combine_job()).unwrap();
        let expected = one_by_one(&gpu, &program);
        assert_eq!(expected[TILES - 1].values.len(), COLUMNS / 3);
        assert_ne!(expected[0], expected[1], "tiles that are all the same would show nothing");
        for round in 0..10 {
            for slots in [1, 2, 3, 5] {
                let found = share(slots, |tiles, done| {
                    let mut slot = RingSlot::for_combine(&gpu, &program).unwrap();
                    while let Some(tile) = next(tiles) {
                        fill(&mut slot, tile).unwrap();
                        done.push((tile, merge(&mut slot, &program, None).unwrap()));
                    }
                });
                assert_eq!(found, expected, "round {round} with {slots} slots");
            }
        }
    }
}

#[test]
fn pairs_in_several_slots_give_the_bits_of_one() {
    for gpu in devices(&Options::default()) {
        let program = PairsProgram::new(&gpu, &pairs_job()).unwrap();
        let look = |slots| {
            share::<PairSums>(slots, |tiles, done| {
                let mut slot = RingSlot::for_pairs(&gpu, &program).unwrap();
                while let Some(tile) = next(tiles) {
                    fill(&mut slot, tile).unwrap();
                    done.push((tile, slot.pairs(&program, None).unwrap()));
                }
            })
        };
        let expected = look(1);
        assert_ne!(expected[0], expected[1]);
        for slots in [2, 3, 5] {
            assert_eq!(look(slots), expected, "{slots} slots");
        }
    }
}

#[test]
fn rows_that_stay_on_the_device_give_the_same_bits_later() {
    for gpu in devices(&Options::default()) {
        let program = CombineProgram::new(&gpu, &combine_job()).unwrap();
        let pairs = PairsProgram::new(&gpu, &pairs_job()).unwrap();
        let expected = one_by_one(&gpu, &program);
        let mut first = RingSlot::for_pairs(&gpu, &pairs).unwrap();
        let (mut sums, mut kept) = (Vec::new(), Vec::new());
        for tile in 0..TILES {
            fill(&mut first, tile).unwrap();
            sums.push(first.pairs(&pairs, None).unwrap());
            kept.push(first.keep().unwrap());
        }
        let mut second = RingSlot::for_combine(&gpu, &program).unwrap();
        for round in 0..3 {
            // In another order than they were sent, and with another tile waiting in the slot.
            for tile in (0..TILES).rev() {
                assert_eq!(kept[tile].tile().columns, columns_of(tile));
                fill(&mut second, (tile + 1) % TILES).unwrap();
                let found = merge(&mut second, &program, Some(&kept[tile])).unwrap();
                assert_eq!(found, expected[tile], "round {round} tile {tile}");
                let waiting = merge(&mut second, &program, None).unwrap();
                assert_eq!(waiting, expected[(tile + 1) % TILES], "round {round} behind tile {tile}");
                assert_eq!(first.pairs(&pairs, Some(&kept[tile])).unwrap(), sums[tile]);
            }
        }
    }
}

#[test]
fn a_slot_runs_again_on_the_rows_it_holds() {
    for gpu in devices(&Options::default()) {
        let program = CombineProgram::new(&gpu, &combine_job()).unwrap();
        let mut slot = RingSlot::for_combine(&gpu, &program).unwrap();
        fill(&mut slot, 1).unwrap();
        let first = merge(&mut slot, &program, None).unwrap();
        assert_eq!(merge(&mut slot, &program, None).unwrap(), first);
        slot.keep().unwrap();
        let empty = merge(&mut slot, &program, None).unwrap();
        assert!(empty.values.is_empty(), "rows that were taken away are not merged");
    }
}

/// The reason for which a row could not be written.
#[derive(PartialEq, Debug)]
enum Unwritten {
    Row(usize),
    Device(GpuError),
}

impl From<GpuError> for Unwritten {
    fn from(error: GpuError) -> Self {
        Self::Device(error)
    }
}

#[test]
fn a_slot_that_could_not_be_filled_can_be_filled_again() {
    for gpu in devices(&Options::default()) {
        let program = CombineProgram::new(&gpu, &combine_job()).unwrap();
        let expected = one_by_one(&gpu, &program);
        let mut slot = RingSlot::for_combine(&gpu, &program).unwrap();
        for broken in [0, 3, ROWS] {
            fill(&mut slot, 0).unwrap();
            let failed = slot.fill(COLUMNS, |row, out| {
                write(5, row, out);
                if row == broken { Err(Unwritten::Row(row)) } else { Ok(()) }
            });
            assert_eq!(failed, Err(Unwritten::Row(broken)));
            let neither = merge(&mut slot, &program, None).unwrap();
            assert!(neither.values.is_empty(), "half a tile is not merged, nor the one before");
            for tile in [2, TILES - 1] {
                fill(&mut slot, tile).unwrap();
                assert_eq!(merge(&mut slot, &program, None).unwrap(), expected[tile]);
            }
        }
    }
}
