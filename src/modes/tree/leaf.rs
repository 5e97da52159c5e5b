//! Writes the partial of a node below the root of a tree.
//!
//! A partial is a safetensors file of sums, their rounding errors, and the edges. Its tensors have the names of the
//! model's tensors, with a prefix.

use crate::engine::aggregate::error::{Error, Stopped, Unsupported};
use crate::engine::aggregate::mode::Mode;
use crate::engine::aggregate::request::Request;
use crate::engine::aggregate::session::Session;
use crate::engine::aggregate::{metadata, publish, report};
use crate::engine::intake::agreed::{Agreement, agreed};
use crate::engine::intake::taken::Taken;
use crate::engine::passes::combine::reducer::Reducer;
use crate::engine::passes::drive::Clock;
use crate::engine::passes::error::PassError;
use crate::engine::passes::machine::Machine;
use crate::engine::passes::pass::{TilePass, for_element};
use crate::engine::passes::plan::{Tile, TilePlan};
use crate::engine::passes::reader::TileReader;
use crate::io::collision::publish_text;
use crate::io::digest::seal;
use crate::io::interrupt::Section;
use crate::io::model_writer::ModelWriter;
use crate::kernels::element::Element;
use crate::kernels::exact_sum::settle;
use crate::model::dtype::{Dtype, Working};
use crate::model::layout::{Layout, Piece, TensorSpec};
use crate::modes::tree::Partial;
use crate::modes::tree::admission::{ERROR, SUM, edge_prefix};
use crate::modes::tree::description::{Description, PartialMember};
use crate::modes::tree::purpose::Purpose;
use crate::modes::tree::root::Node;
use crate::modes::tree::sums::TreeSum;
use crate::strategies::ClientMetadata;
use crate::telemetry::report::Report;
use crate::telemetry::warnings;
use crate::updates::metadata::{PARTIAL_KEY, UpdateKind};
use crate::updates::set::{UpdateSet, ValueKind};
use std::collections::BTreeMap;
use std::slice;
use std::time::Instant;

/// Sums updates and partials, and publishes the partial and the report. Returns the report.
///
/// # Errors
///
/// The errors of an aggregate run, and an option that sums do not support.
pub fn run(request: Request, machine: Machine) -> Result<Report, Error> {
    let purpose = Purpose::of_leaf(&request)?;
    let mut session = Session::open(request, machine)?;
    let mut node = Node { writes: Some(purpose), ..Node::default() };
    let done =
        session.until_sound(&mut node, |session, node, taken| publish_partial(session, node, purpose, taken));
    let report = session.with_report(done)?;
    session.machine.progress.finish();
    Ok(report)
}

fn publish_partial(
    session: &mut Session,
    node: &Node,
    purpose: Purpose,
    taken: &Taken,
) -> Result<Report, Stopped> {
    let (set, started) = (&taken.set, Instant::now());
    check_opaque(set)?;
    let clients = taken.cohort.clients.len();
    let (low, high) = purpose.edges(clients);
    let sum = match purpose {
        Purpose::Mean => TreeSum::weighted(set, &node.partials, &taken.cohort.weights),
        Purpose::TrimmedMean(_) => TreeSum::trimmed(set, &node.partials, low, high),
    };
    let metadata = partial_metadata(session, node, taken, purpose, (low, high))?;
    let layout = partial_layout(set, &sum, low, high);
    let outputs = &session.request.outputs;
    let sealed = seal::with_room(metadata.clone());
    let writer = ModelWriter::create(&outputs.model, &layout, &sealed, outputs.max_shard_bytes)?;
    let bytes = set.bytes_of_one() * (set.clients.len() + node.partials.len()) as u64;
    session.machine.progress.start("summing", bytes);
    session.machine.take_meter();
    let rows = sum.rows_at_once();
    let all = 0..set.layout.parameters();
    let all = slice::from_ref(&all);
    let plan = TilePlan::with_rows(set, &sum.other_rows(), rows, all);
    let machine = &session.machine;
    machine.run(&PartialPass { machine, set, plan, sum: &sum, edges: low + high, writer: &writer })?;
    let clock = session.machine.take_meter().clock;
    session.check_unchanged(taken)?;
    session.bytes.read += bytes;
    session.timings.pass_s += started.elapsed().as_secs_f64();
    session.add_clock(clock);
    session.machine.pool.install(|| writer.seal())?;
    publish::sync(session, &writer, &mut None)?;

    let report = partial_report(session, node, taken, &layout, &writer, metadata);
    let staged = publish::stage_report(session, &report)?;
    let _whole = Section::enter();
    writer.publish()?;
    publish_text(staged)?;
    tracing::info!("summed {clients} updates for {} ({} rejected)", purpose.rule(), taken.rejected.len());
    Ok(report)
}

/// Refuses opaque tensors without a base: a partial holds sums, and the root would have nothing to copy.
fn check_opaque(set: &UpdateSet) -> Result<(), Unsupported> {
    match (set.opaque.first(), &set.base) {
        (Some(spec), None) => Err(Unsupported {
            option: format!("--partial with the opaque tensor `{}`", spec.name),
            mode: None,
            why: "cannot be done without --base: partials hold sums, and packed weights cannot be summed"
                .to_owned(),
            hint: Some("pass the same --base to all nodes: the root copies its opaque tensors"),
        }),
        _ => Ok(()),
    }
}

fn partial_metadata(
    session: &Session,
    node: &Node,
    taken: &Taken,
    purpose: Purpose,
    (low, high): (usize, usize),
) -> Result<BTreeMap<String, String>, Error> {
    let set = &taken.set;
    let members = taken.cohort.clients.iter().zip(&taken.cohort.weights);
    let member =
        |(client, weight): (&ClientMetadata, &f64)| PartialMember { id: client.id.clone(), weight: *weight };
    let mut clients: Vec<PartialMember> = members.map(member).collect();
    clients.sort_by(|a, b| a.id.cmp(&b.id));
    let description = Description {
        rule: purpose.rule(),
        kind: kind_of(set),
        base: base_of(session, &node.partials, set)?,
        round: session.request.policy.round.or(node.round),
        weights: taken.weights_source.to_owned(),
        clients,
        low,
        high,
        dtypes: set.layout.tensors().iter().map(|spec| (spec.name.clone(), spec.dtype)).collect(),
    };
    let mut metadata = metadata::inherited(&set.metadata);
    metadata::carry_test_noise(taken, &mut metadata);
    metadata.insert(PARTIAL_KEY.to_owned(), description.text());
    Ok(metadata)
}

/// The digest of the base. Without `--base`, the digest that most updates and partials name; `None` if most name none.
fn base_of(session: &Session, partials: &[Partial], set: &UpdateSet) -> Result<Option<String>, Error> {
    if let Some(digest) = session.base_digest()? {
        return Ok(Some(digest.to_owned()));
    }
    let updates = set.clients.iter().map(|client| client.metadata.base.clone());
    let partials = partials.iter().map(|partial| partial.description.base.clone());
    match agreed(updates.chain(partials)) {
        Agreement::On(digest) => Ok(Some(digest)),
        Agreement::None | Agreement::Tied(..) => Ok(None),
    }
}

fn partial_report(
    session: &Session,
    node: &Node,
    taken: &Taken,
    layout: &Layout,
    writer: &ModelWriter,
    metadata: BTreeMap<String, String>,
) -> Report {
    let mut report = report::without_judgement(session, taken);
    for row in &mut report.clients {
        row.kept = true;
        row.reason = "its values are in the partial".to_owned();
    }
    node.report(taken, &mut report);
    report.published = true;
    report.warnings = warnings::with_printed(report.warnings, true);
    report.output = Some(report::output(layout, writer, metadata, None));
    report
}

/// The kind of the sums: deltas, if rows are or become deltas.
fn kind_of(set: &UpdateSet) -> UpdateKind {
    match set.value_kind {
        ValueKind::AsSent => set.merged_kind,
        ValueKind::Deltas | ValueKind::Mixed => UpdateKind::Delta,
    }
}

/// The tensors of a partial: all sums, all errors, then each edge.
fn partial_layout(set: &UpdateSet, sum: &TreeSum, low: usize, high: usize) -> Layout {
    let mut tensors = Vec::new();
    let mut add = |prefix: &str, dtype: &dyn Fn(usize) -> Dtype| {
        tensors.extend(set.layout.tensors().iter().enumerate().map(|(i, spec)| TensorSpec {
            name: format!("{prefix}{}", spec.name),
            dtype: dtype(i),
            ..spec.clone()
        }));
    };
    let working = set.working_with(&sum.other_rows());
    add(SUM, &|_| Dtype::F64);
    add(ERROR, &|_| Dtype::F64);
    for edge in 0..low + high {
        add(&edge_prefix(edge, low), &|tensor| match working[tensor] {
            Working::BF16 => Dtype::BF16,
            Working::F16 => Dtype::F16,
            Working::F32 => Dtype::F32,
            Working::F64 => Dtype::F64,
        });
    }
    Layout::new(tensors)
}

/// The pass that sums updates and partials into the partial's file.
struct PartialPass<'a> {
    machine: &'a Machine<'a>,
    set: &'a UpdateSet,
    plan: TilePlan,
    sum: &'a TreeSum<'a>,
    /// The number of values outside the sum at each coordinate.
    edges: usize,
    writer: &'a ModelWriter,
}

/// Buffers of one thread.
struct PartialWorker<'a> {
    reader: TileReader<'a>,
    sums: Vec<f64>,
    errors: Vec<f64>,
    edges: Vec<Vec<f64>>,
}

impl TilePass for PartialPass<'_> {
    type Worker<'p>
        = PartialWorker<'p>
    where
        Self: 'p;
    type Part = ();
    type Sum = ();

    fn plan(&self) -> &TilePlan {
        &self.plan
    }

    fn worker(&self) -> PartialWorker<'_> {
        PartialWorker {
            reader: TileReader::new(self.machine.isa, self.set, &self.plan),
            sums: Vec::new(),
            errors: Vec::new(),
            edges: vec![vec![0.0; self.plan.most_columns()]; self.edges],
        }
    }

    fn tile(&self, worker: &mut PartialWorker, tile: &Tile) -> Result<(), PassError> {
        for_element!(tile.working, E => self.sum_tile::<E>(worker, tile))
    }

    fn start(&self) {}

    fn add(&self, (): &mut (), _: &Tile, (): ()) {}

    fn clock(&self, worker: &PartialWorker) -> Clock {
        worker.reader.clock
    }
}

impl PartialPass<'_> {
    fn sum_tile<E: Element>(&self, worker: &mut PartialWorker, tile: &Tile) -> Result<(), PassError> {
        let PartialWorker { reader, sums, errors, edges } = worker;
        let columns = tile.coordinates.len();
        if self.set.value_kind == ValueKind::Mixed {
            reader.read_finite_base(tile)?;
        }
        let (before, started) = (reader.clock.read, Instant::now());
        for values in [&mut *sums, &mut *errors] {
            values.clear();
            values.resize(columns, 0.0);
        }
        self.sum.add_tile::<E>(self.machine.isa, reader, tile, (&mut *sums, &mut *errors), edges)?;
        settle(sums, errors);
        let read = reader.clock.read - before;
        reader.clock.compute += started.elapsed().saturating_sub(read);
        let edges =
            edges.iter().map(|edge| &bytemuck::cast_slice::<f64, u8>(edge)[..columns * size_of::<E>()]);
        let rows =
            [bytemuck::cast_slice::<f64, u8>(sums), bytemuck::cast_slice(errors)].into_iter().chain(edges);
        let tensors = self.set.layout.tensors().len();
        let write = || {
            rows.enumerate().try_for_each(|(part, bytes)| {
                let pieces = self.set.layout.pieces(tile.coordinates.clone());
                let there = |piece: Piece| Piece { tensor: part * tensors + piece.tensor, ..piece };
                self.writer.write(pieces.map(there), bytes)
            })
        };
        reader.clock.time(|clock| &mut clock.write, write)?;
        self.machine.progress.advance(self.set.layout.bytes_of(tile.coordinates.clone()));
        Ok(())
    }
}
