//! The partial that a node below the root publishes: a safetensors file of sums, what rounding took from them, and the
//! values that stand apart, in tensors named after the model's.

use crate::engine::aggregate::assemble::Round;
use crate::engine::aggregate::error::MergeError;
use crate::engine::aggregate::publish::publish_report;
use crate::engine::aggregate::session::{Run, check_unchanged};
use crate::engine::intake::admit::{Frame, UpdateSet};
use crate::engine::passes::combine::CombineError;
use crate::engine::passes::drive::{Clock, for_each_tile};
use crate::engine::passes::plan::{Tile, TilePlan};
use crate::engine::passes::reader::Workspace;
use crate::io::model_writer::{ModelWriter, WriteError};
use crate::kernels::element::Element;
use crate::kernels::lanes::Isa;
use crate::model::dtype::{Dtype, Working};
use crate::model::layout::{Layout, Piece, TensorSpec};
use crate::modes::tree::NO_METRICS;
use crate::modes::tree::admission::{ERROR, SUM, edge_prefix};
use crate::modes::tree::description::{Description, KEY, Member};
use crate::modes::tree::purpose::Purpose;
use crate::modes::tree::sums::Addends;
use crate::telemetry::progress::Progress;
use crate::telemetry::report::{Output, Report};
use crate::updates::metadata::{UPDATE_KEYS, UpdateKind};
use half::{bf16, f16};
use rayon::ThreadPool;
use std::collections::BTreeMap;
use std::time::Instant;

/// The pass that sums a round's updates and partials.
struct Pass<'a> {
    isa: Isa,
    set: &'a UpdateSet,
    addends: Addends,
    /// Values that stand apart at each coordinate.
    edges: usize,
    writer: &'a ModelWriter,
    progress: &'a Progress,
}

/// What a worker needs.
struct Worker<'a> {
    space: Workspace<'a>,
    sums: Vec<f64>,
    errors: Vec<f64>,
    edges: Vec<Vec<f64>>,
}

impl Run {
    /// Sums a round's updates and partials and publishes the partial, and the report.
    pub(crate) fn publish_partial(
        &mut self,
        round: &Round,
        purpose: Purpose,
        pool: &ThreadPool,
        progress: &Progress,
    ) -> Result<Report, MergeError> {
        let (set, started) = (&round.set, Instant::now());
        let clients = round.cohort.clients.len();
        let (low, high) = match purpose {
            Purpose::Mean => (0, 0),
            // As many as there are, where all of them may end up cut at the root.
            Purpose::TrimmedMean(cut) => (cut.min(clients), cut.min(clients - cut.min(clients))),
        };
        let addends = match purpose {
            Purpose::Mean => Addends::weighted(set, &round.cohort.weights),
            Purpose::TrimmedMean(_) => Addends::trimmed(set, low, high),
        };
        let metadata = self.partial_metadata(round, purpose, low, high)?;
        let layout = partial_layout(set, low, high);
        let writer = ModelWriter::create(&self.job.output, &layout, &metadata, self.job.max_shard_bytes)?;
        progress.start("summing", set.data_bytes());
        let pass = Pass { isa: self.job.isa, set, addends, edges: low + high, writer: &writer, progress };
        let clock = pass.run(pool)?;
        check_unchanged(set)?;
        self.bytes.read += set.data_bytes();
        self.bytes.written = writer.bytes();
        self.timings.pass_s += started.elapsed().as_secs_f64();
        self.timings.compute_s = clock.compute.as_secs_f64() / self.threads as f64;
        self.timings.read_s = clock.read.as_secs_f64() / self.threads as f64;
        self.timings.write_s = clock.write.as_secs_f64() / self.threads as f64;
        self.timings.sync_s = writer.sync()?.as_secs_f64();

        let report = self.partial_report(round, &layout, &writer, metadata);
        let staged = self.stage_report(&report)?;
        writer.publish()?;
        if let Some((path, staged)) = staged {
            publish_report(&path, staged)?;
        }
        tracing::info!("summed {clients} updates for {} ({} rejected)", purpose.rule(), round.rejected.len());
        Ok(report)
    }

    fn partial_metadata(
        &self,
        round: &Round,
        purpose: Purpose,
        low: usize,
        high: usize,
    ) -> Result<BTreeMap<String, String>, MergeError> {
        let set = &round.set;
        let members = round.cohort.clients.iter().zip(&round.cohort.weights);
        let mut clients: Vec<Member> =
            members.map(|(client, weight)| Member { id: client.id.clone(), weight: *weight }).collect();
        clients.sort_by(|a, b| a.id.cmp(&b.id));
        let description = Description {
            rule: purpose.rule(),
            kind: kind_of(set),
            base: self.base_of(set)?,
            round: self
                .job
                .expected
                .round
                .or(set.partials.iter().find_map(|partial| partial.description.round)),
            weights: round.weights_source.to_owned(),
            clients,
            low,
            high,
            dtypes: set.layout.tensors().iter().map(|spec| (spec.name.clone(), spec.dtype)).collect(),
        };
        let mut metadata = set.metadata.clone();
        metadata.retain(|key, _| !UPDATE_KEYS.contains(&key.as_str()) && !key.starts_with("fedmill"));
        metadata.insert("fedmill.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        metadata.insert(KEY.to_owned(), description.text());
        Ok(metadata)
    }

    /// The digest of the base, or what all who name one name.
    fn base_of(&self, set: &UpdateSet) -> Result<Option<String>, MergeError> {
        if let Some(digest) = self.base_digest()? {
            return Ok(Some(digest.to_owned()));
        }
        let updates = set.clients.iter().map(|client| client.metadata.base.as_ref());
        let partials = set.partials.iter().map(|partial| partial.description.base.as_ref());
        let mut named = updates.chain(partials).flatten();
        let Some(first) = named.next() else { return Ok(None) };
        Ok(named.all(|other| other == first).then(|| first.clone()))
    }

    fn partial_report(
        &self,
        round: &Round,
        layout: &Layout,
        writer: &ModelWriter,
        metadata: BTreeMap<String, String>,
    ) -> Report {
        let mut report = self.report_rows(round);
        for row in &mut report.clients {
            row.kept = true;
            row.reason = "its values are in the partial".to_owned();
        }
        report.clients.sort_by(|a, b| a.id.cmp(&b.id));
        report.warnings.push(NO_METRICS.to_owned());
        report.published = true;
        report.output = Some(Output {
            path: writer.path().display().to_string(),
            files: writer.files().map(|path| path.display().to_string()).collect(),
            tensors: layout.tensors().len(),
            parameters: layout.parameters(),
            metadata,
        });
        report
    }
}

/// What the sums are of: deltas, where rows are or become deltas.
fn kind_of(set: &UpdateSet) -> UpdateKind {
    match set.frame {
        Frame::AsSent => set.merged_kind(),
        Frame::Deltas | Frame::Mixed => UpdateKind::Delta,
    }
}

/// The tensors of a partial: all sums, all errors, then edge by edge.
fn partial_layout(set: &UpdateSet, low: usize, high: usize) -> Layout {
    let mut tensors = Vec::new();
    let mut add = |prefix: &str, dtype: &dyn Fn(usize) -> Dtype| {
        tensors.extend(set.layout.tensors().iter().enumerate().map(|(i, spec)| TensorSpec {
            name: format!("{prefix}{}", spec.name),
            dtype: dtype(i),
            ..spec.clone()
        }));
    };
    let working = set.working();
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

impl Pass<'_> {
    fn run(&self, pool: &ThreadPool) -> Result<Clock, CombineError> {
        let plan = TilePlan::new(self.set, self.addends.rows_at_once(self.set));
        let new_worker = || Worker {
            space: Workspace::new(self.isa, self.set, &plan),
            sums: Vec::new(),
            errors: Vec::new(),
            edges: vec![vec![0.0; plan.most_columns()]; self.edges],
        };
        let workers = for_each_tile(pool, &plan, new_worker, |worker, tile| match tile.working {
            Working::BF16 => self.sum_tile::<bf16>(worker, tile),
            Working::F16 => self.sum_tile::<f16>(worker, tile),
            Working::F32 => self.sum_tile::<f32>(worker, tile),
            Working::F64 => self.sum_tile::<f64>(worker, tile),
        })?;
        Ok(workers.iter().map(|worker| worker.space.clock).fold(Clock::default(), Clock::and))
    }

    fn sum_tile<E: Element>(&self, worker: &mut Worker, tile: &Tile) -> Result<(), CombineError> {
        let Worker { space, sums, errors, edges } = worker;
        if self.set.frame == Frame::Mixed {
            space.read_finite_base(tile)?;
        }
        let (before, started) = (space.clock.read, Instant::now());
        self.addends.add_tile::<E>((self.isa, self.set), space, tile, (&mut *sums, &mut *errors), edges)?;
        let read = space.clock.read - before;
        space.clock.compute += started.elapsed().saturating_sub(read);
        let columns = tile.coordinates.len();
        let edges =
            edges.iter().map(|edge| &bytemuck::cast_slice::<f64, u8>(edge)[..columns * size_of::<E>()]);
        let rows =
            [bytemuck::cast_slice::<f64, u8>(sums), bytemuck::cast_slice(errors)].into_iter().chain(edges);
        let tensors = self.set.layout.tensors().len();
        space
            .clock
            .time(
                |clock| &mut clock.write,
                || {
                    rows.enumerate().try_for_each(|(part, bytes)| {
                        let pieces = self.set.layout.pieces(tile.coordinates.clone());
                        let there = |piece: Piece| Piece { tensor: part * tensors + piece.tensor, ..piece };
                        self.writer.write(pieces.map(there), bytes)
                    })
                },
            )
            .map_err(|why: WriteError| CombineError::from(why))?;
        self.progress.advance(self.set.layout.bytes_of(tile.coordinates.clone()));
        Ok(())
    }
}
