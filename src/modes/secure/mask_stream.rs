//! Sums of mask streams and multiples of rows, on all threads or on a GPU, with the same bits.

use crate::engine::passes::error::PassError;
use crate::engine::passes::machine::Machine;
use crate::kernels::field::{add_elements, add_multiple};
use crate::kernels::masks::add_masks;
use crate::modes::secure::keys::seeds::Seed;
use rayon::prelude::*;

/// Lanes that a thread works on at once: two rows of them fit the second-level cache.
const PART: usize = 1 << 15;

/// Adds the streams of all seeds at the lanes from `first` on to `lanes`, modulo p.
///
/// # Errors
///
/// When the GPU fails.
pub fn add_streams(
    machine: &Machine,
    seeds: &[Seed],
    first: u64,
    lanes: &mut [u32],
) -> Result<(), PassError> {
    if let Some(ring) = machine.gpu() {
        add_elements(machine.isa, &ring.gpu().masks(seeds, first, lanes.len())?, lanes);
        return Ok(());
    }
    let isa = machine.isa;
    machine.pool.install(|| {
        lanes.par_chunks_mut(PART).enumerate().for_each(|(part, lanes)| {
            add_masks(isa, seeds, first + (part * PART) as u64, lanes);
        });
    });
    Ok(())
}

/// Adds the sum over the sets A of factor f_A times the streams of the seeds of A to `lanes`, modulo p.
///
/// # Errors
///
/// When the GPU fails.
pub fn add_share(
    machine: &Machine,
    seeds: &[(u32, Vec<Seed>)],
    first: u64,
    lanes: &mut [u32],
) -> Result<(), PassError> {
    if let Some(ring) = machine.gpu() {
        let rows = seeds.iter().map(|(_, seeds)| ring.gpu().masks(seeds, first, lanes.len()));
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        let rows: Vec<(u32, &[u32])> =
            seeds.iter().zip(&rows).map(|((factor, _), row)| (*factor, row.as_slice())).collect();
        return add_multiples(machine, &rows, lanes);
    }
    let isa = machine.isa;
    let part_of_share = |room: &mut Vec<u32>, (part, lanes): (usize, &mut [u32])| {
        let sums = &mut room[..lanes.len()];
        for (factor, seeds) in seeds {
            sums.fill(0);
            add_masks(isa, seeds, first + (part * PART) as u64, sums);
            add_multiple(isa, *factor, sums, lanes);
        }
        sums.fill(0);
    };
    machine.pool.install(|| {
        lanes.par_chunks_mut(PART).enumerate().for_each_init(|| vec![0; PART], part_of_share);
    });
    Ok(())
}

/// Adds rows, each times its factor, to `lanes`, modulo p.
///
/// # Errors
///
/// When the GPU fails.
pub fn add_multiples(machine: &Machine, rows: &[(u32, &[u32])], lanes: &mut [u32]) -> Result<(), PassError> {
    if let Some(ring) = machine.gpu() {
        let (factors, rows): (Vec<u32>, Vec<&[u32]>) = rows.iter().copied().unzip();
        add_elements(machine.isa, &ring.gpu().sum_multiples(&factors, &rows)?, lanes);
        return Ok(());
    }
    let isa = machine.isa;
    machine.pool.install(|| {
        lanes.par_chunks_mut(PART).enumerate().for_each(|(part, lanes)| {
            for (factor, row) in rows {
                add_multiple(isa, *factor, &row[part * PART..][..lanes.len()], lanes);
            }
        });
    });
    Ok(())
}

/// Adds rows to `lanes`, modulo p.
///
/// # Errors
///
/// When the GPU fails.
pub fn add_rows(machine: &Machine, rows: &[&[u32]], lanes: &mut [u32]) -> Result<(), PassError> {
    match machine.gpu() {
        Some(ring) => add_elements(machine.isa, &ring.gpu().sum_elements(rows)?, lanes),
        None => rows.iter().for_each(|row| add_elements(machine.isa, row, lanes)),
    }
    Ok(())
}
