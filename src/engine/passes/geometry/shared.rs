//! The geometry pass for many clients: all threads work on one tile, and share one set of sums.
//!
//! With ten thousand clients the sums take 400 MB, so threads cannot have their own. A tile is one block of columns.
//! Threads read its rows, centre them, and add up the pairs, each for some of the rows. The order of additions in the
//! sum of a pair depends on no thread.

use crate::engine::passes::blocks::blocks;
use crate::engine::passes::drive::Clock;
use crate::engine::passes::error::PassError;
use crate::engine::passes::geometry::sums::{SectionSums, Triangles};
use crate::engine::passes::geometry::{
    BlockGeometry, Centred, GeometryPass, Panels, count_signs, find_centre, note_non_finite,
};
use crate::engine::passes::machine::Machine;
use crate::engine::passes::pass::for_element;
use crate::engine::passes::plan::{Tile, TilePlan};
use crate::engine::passes::reader::TileReader;
use crate::engine::passes::sections::{SectionAdder, SectionTree, section_of};
use crate::engine::passes::survey::Measured;
use crate::io::interrupt;
use crate::kernels::element::Element;
use crate::kernels::gram::{BLOCK, GROUP, Product, SquaredDifference, add_pair_sums, add_wide_pair_sums};
use crate::model::class::TensorClass;
use crate::model::dtype::Kind;
use crate::model::tile::{Rows, TileBuffer};
use crate::parallel;
use crate::rules::numeric::triangle;
use crate::rules::{GeometryRequest, Precision};
use rayon::prelude::*;
use std::ops::Range;
use std::time::Instant;

/// The fewest updates for which threads share tiles: the sums of each thread would take 2 MB more.
const MANY: usize = 700;

/// The tiles of a pass, and the buffers that the threads share.
pub(super) struct SharedTiles<'a> {
    pass: &'a GeometryPass<'a>,
    machine: &'a Machine<'a>,
    plan: TilePlan,
    /// One for each thread, for some of the clients.
    readers: Vec<TileReader<'a>>,
    /// All clients' rows of a tile.
    rows: TileBuffer,
    panels: Panels,
    clock: Clock,
}

impl<'a> SharedTiles<'a> {
    /// Whether threads should share tiles. Mixtures of updates are made by each thread.
    pub(super) fn suit(request: &GeometryRequest) -> bool {
        request.updates >= MANY && request.mixing.is_none()
    }

    /// The tiles of some ranges of coordinates.
    pub(super) fn new(pass: &'a GeometryPass<'a>, machine: &'a Machine<'a>, ranges: &[Range<usize>]) -> Self {
        let set = pass.set;
        let plan = TilePlan::of_blocks(set, 0, ranges);
        let reader = |_| TileReader::new(machine.isa, set, &plan);
        Self {
            pass,
            machine,
            readers: (0..machine.threads()).map(reader).collect(),
            rows: TileBuffer::new(set.clients.len(), plan.most_row_bytes()),
            panels: Panels {
                narrow: TileBuffer::new(pass.request.points(), BLOCK * size_of::<f32>()),
                wide: None,
            },
            plan,
            clock: Clock::default(),
        }
    }

    /// Measures all tiles.
    ///
    /// # Errors
    ///
    /// When an update cannot be read.
    pub(super) fn run(mut self) -> Result<SectionTree<Option<SectionSums>>, PassError> {
        let (pass, machine) = (self.pass, self.machine);
        let mut sums = SectionAdder::starting_at(pass.sections.start);
        machine.pool.install(|| {
            for number in 0..self.plan.tiles() {
                interrupt::check()?;
                let tile = self.plan.tile(number);
                let section = section_of(tile.coordinates.start);
                let sum = sums.sum_of(section, || SectionSums::none(&pass.request));
                if tile.dtype.kind() == Kind::Float {
                    for_element!(tile.working, E => self.measure::<E>(&tile, sum))?;
                }
                let bytes = pass.set.clients.len() * tile.coordinates.len() * tile.dtype.bytes();
                machine.progress.advance(bytes as u64);
            }
            Ok::<(), PassError>(())
        })?;
        machine.add_clock(self.readers.iter().map(|reader| reader.clock).fold(self.clock, Clock::and));
        Ok(sums.finish(pass.sections.end))
    }

    /// Adds the products of one tile to the sums of its section.
    fn measure<E: Element>(&mut self, tile: &Tile, sums: &mut SectionSums) -> Result<(), PassError> {
        self.read::<E>(tile)?;
        let started = Instant::now();
        let Self { pass, machine, readers, rows, panels, .. } = self;
        let (request, isa, columns) = (&pass.request, machine.isa, tile.coordinates.len());
        let rows = rows.rows::<E>(pass.set.clients.len(), columns);
        let reader = &readers[0];
        let block = BlockGeometry {
            isa,
            request,
            origin: pass.origin(reader, &(0..columns)),
            centre: reader.centre(),
            first: tile.coordinates.start,
        };
        let SectionSums { parameters, statistics, measured, signs, floats } = sums;
        let of_class = if tile.class == TensorClass::Parameter { parameters } else { statistics };
        let pairs = of_class.get_or_insert_with(|| Triangles::none(request));
        block.add_shared::<E>(&rows, panels, pairs, measured);
        if request.with_signs {
            *signs += count_signs(isa, reader, &rows, &(0..columns));
        }
        *floats += columns as u64;
        self.clock.compute += started.elapsed() * self.readers.len() as u32;
        Ok(())
    }

    /// Reads the rows of a tile as deltas.
    fn read<E: Element>(&mut self, tile: &Tile) -> Result<(), PassError> {
        let clients = self.pass.set.clients.len();
        let each = clients.div_ceil(self.readers.len());
        let parts = self.rows.parts_mut(each);
        let read = self.readers.par_iter_mut().zip(parts).enumerate().map(|(part, (reader, mut rows))| {
            let clients: Vec<usize> = (part * each..clients.min((part + 1) * each)).collect();
            reader.read_finite_base(tile)?;
            reader.read_centre(tile)?;
            reader.read_into::<E>(tile, &clients, &mut rows)?;
            reader.subtract_base_from::<E>(tile, &clients, &mut rows);
            Ok(())
        });
        // The error of the first client that cannot be read, as on one thread.
        read.collect::<Vec<Result<(), PassError>>>().into_iter().collect()
    }
}

impl BlockGeometry<'_> {
    /// Adds the block's products to the sums of its section, on all threads.
    fn add_shared<E: Element>(
        &self,
        rows: &Rows<E>,
        panels: &mut Panels,
        sums: &mut Triangles,
        measured: &mut [Measured],
    ) {
        let (isa, columns, request) = (self.isa, rows.columns(), self.request);
        let points = self.centred(rows);
        let each = rows.len().div_ceil(4 * rayon::current_num_threads());
        let parts = panels.narrow.parts_mut(each).into_par_iter().enumerate();
        let fits = parts
            .filter(|(part, _)| part * each < rows.len())
            .map(|(part, mut panel)| points.fill(isa, rows, part * each, 0..columns, &mut panel));
        let fits = fits.reduce(|| true, |a, b| a && b);
        let narrow = request.precision == Precision::Usual && fits;
        if narrow && points.fill_references(rows.len(), request.references, &mut panels.narrow) {
            let panel = panels.narrow.rows::<f32>(request.points(), columns);
            let updates = panels.narrow.rows::<f32>(rows.len(), columns);
            for_each_part(panel.len(), &mut sums.products, |part, sums| {
                add_pair_sums::<Product>(isa, &panel, part, sums);
            });
            for_each_part(rows.len(), &mut sums.squares, |part, sums| {
                add_pair_sums::<SquaredDifference>(isa, &updates, part, sums);
            });
        } else if !note_non_finite(isa, rows, self.first, measured) {
            let panel = panels
                .wide
                .get_or_insert_with(|| TileBuffer::new(request.points(), BLOCK * size_of::<f64>()));
            points.fill_wide(rows, request.references, panel);
            let all = panel.rows::<f64>(request.points(), columns);
            let updates = panel.rows::<f64>(rows.len(), columns);
            for_each_part(all.len(), &mut sums.products, |part, sums| {
                add_wide_pair_sums::<Product>(isa, &all, part, sums);
            });
            for_each_part(rows.len(), &mut sums.squares, |part, sums| {
                add_wide_pair_sums::<SquaredDifference>(isa, &updates, part, sums);
            });
        }
    }

    /// The middle of the rows and the references.
    fn centred<E: Element>(&self, rows: &Rows<E>) -> Centred<'_, E::Mixed> {
        let columns = rows.columns();
        let mut points = Centred {
            middle: vec![E::Mixed::default(); columns],
            origin: self.origin,
            centre: self.centre,
            median: vec![0.0; if self.request.references.median { columns } else { 0 }],
        };
        let parts: Vec<Range<usize>> = blocks::<E>(rows.len(), columns).collect();
        let found = parts.par_iter().map(|part| {
            let mut middle = vec![E::Mixed::default(); part.len()];
            let mut median = vec![0.0; if points.median.is_empty() { 0 } else { part.len() }];
            find_centre(self.isa, self.request, &rows.at(part.clone()), &mut middle, &mut median);
            (middle, median)
        });
        for (part, (middle, median)) in parts.iter().zip(found.collect::<Vec<_>>()) {
            let (all_middle, all_median) = points.columns_mut(part.clone());
            all_middle.copy_from_slice(&middle);
            all_median.copy_from_slice(&median);
        }
        points
    }
}

/// Calls `of` for parts of the rows of a triangle, and their sums, on all threads. Without sums it does nothing.
fn for_each_part(size: usize, mut sums: &mut [f64], of: impl Fn(Range<usize>, &mut [f64]) + Sync) {
    if sums.is_empty() {
        return;
    }
    // Small parts, so that threads end together; a part of few groups reads the other rows as often.
    let most = size / (8 * rayon::current_num_threads());
    let each = most.next_multiple_of(GROUP).clamp(GROUP, MOST_GROUPS * GROUP);
    let mut parts = Vec::new();
    for start in (0..size).step_by(each) {
        let part = start..(start + each).min(size);
        let (own, rest) = sums.split_at_mut(triangle::start(size, part.end) - triangle::start(size, start));
        parts.push((part, own));
        sums = rest;
    }
    parallel::for_each(parts, each * size / 2, |_, (part, sums)| of(part, sums));
}

/// The most groups of rows in a part.
const MOST_GROUPS: usize = 4;
