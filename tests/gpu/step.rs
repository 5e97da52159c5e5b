//! The server's step on a device, against the CPU's kernel and in rounds of strategies.
//!
//! The bound of each column is that of `StepJob::expected`. The rounds run from files to files.

use super::rounds::{Round, floats, on_cpu, on_gpus};
use super::sample::{Kind, STORED, Sample};
use super::{Combiner, devices, first_wrong, job};
use crate::harness::Model;
use fedmill::engine::aggregate::run::run;
use fedmill::engine::backend::request::BackendRequest;
use fedmill::engine::passes::machine::Machine;
use fedmill::gpu::job::{MOST_MAGNITUDE, Options, Reduction};
use fedmill::gpu::step::{Known, StepJob};
use fedmill::kernels::lanes::Isa;
use fedmill::kernels::server_step::{SecondMoment, ServerStep, server_step};
use fedmill::model::dtype::Working;
use fedmill::settings::Definition;
use fedmill::strategies;
use fedmill::telemetry::progress::Progress;
use rayon::ThreadPoolBuilder;

const fn adaptive(second: SecondMoment) -> ServerStep {
    ServerStep::Adaptive { lr: 0.1, beta1: 0.9, beta2: 0.99, tau: 1e-3, second }
}

const STEPS: [ServerStep; 5] = [
    ServerStep::Average { lr: 0.3 },
    ServerStep::Momentum { lr: 0.7, momentum: 0.9 },
    adaptive(SecondMoment::Adam),
    adaptive(SecondMoment::Yogi),
    adaptive(SecondMoment::Adagrad),
];

const REDUCTIONS: [Reduction; 4] = [
    Reduction::WeightedSum,
    Reduction::Median,
    Reduction::TrimmedMean { cut: 1 },
    Reduction::MeanNearMedian { kept: 3 },
];

/// Rows, a base, and moments, some of them zero.
fn sample(stored: Working, kind: Kind, rows: usize, columns: usize) -> Sample {
    let mut sample = Sample::new(stored, kind, rows, columns).with_references(3);
    for (j, v) in sample.references[2].iter_mut().enumerate() {
        *v = if j % 5 == 0 { 0.0 } else { *v * *v };
    }
    sample
}

fn step_of(step: ServerStep, reduction: Reduction, rows: usize) -> StepJob {
    let scale = if reduction == Reduction::WeightedSum { 1.0 / rows as f64 } else { 1.0 };
    StepJob { step, scale, less_base: 1.0 }
}

/// The results of the CPU's kernel on merged values, with the bounds for the device.
fn expected(job: &StepJob, sample: &Sample, merged: &[f64]) -> Vec<Vec<(f64, f64)>> {
    let reference = |row: usize| sample.references[row].iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
    let (base, m, v) = (reference(0), reference(1), reference(2));
    let delta = |(merged, base): (&f64, &f64)| job.scale * merged - job.less_base * base;
    let mut x: Vec<f64> = merged.iter().zip(&base).map(delta).collect();
    let (mut m_after, mut v_after) = (m.clone(), v.clone());
    server_step(Isa::detect(), &job.step, &mut x, &mut m_after, &mut v_after);
    x.iter_mut().zip(&base).for_each(|(x, base)| *x += base);
    let within = |row: usize, j: usize| {
        let Known { within, .. } = job.expected(merged[j], base[j], &[m[j], v[j]])[row];
        within
    };
    let rows = [x, m_after, v_after].into_iter().take(1 + job.moments()).enumerate();
    rows.map(|(row, values)| values.iter().enumerate().map(|(j, x)| (*x, within(row, j))).collect()).collect()
}

/// The first row that differs from the CPU's, and the difference.
fn wrong(stepped: &[Vec<f32>], want: &[Vec<(f64, f64)>]) -> Option<(usize, String)> {
    if stepped.len() != want.len() {
        return Some((stepped.len(), format!("rows, expected {}", want.len())));
    }
    (0..want.len()).find_map(|row| {
        let got: Vec<f64> = stepped[row].iter().map(|x| f64::from(*x)).collect();
        first_wrong(&got, &want[row]).map(|wrong| (row, wrong))
    })
}

#[test]
fn steps_agree_with_the_kernel() {
    let kinds = [Kind::Smooth, Kind::Ties, Kind::AllEqual, Kind::SignedZeros, Kind::Subnormals];
    for gpu in devices(&Options::default()) {
        for (turn, columns) in [1, 255, 256, 257, 1031].into_iter().enumerate() {
            for (place, reduction) in REDUCTIONS.into_iter().enumerate() {
                for step in STEPS {
                    let rows = [4, 5, 70][(turn + place) % 3];
                    let (stored, kind) = (STORED[place % 3], kinds[(turn + place) % kinds.len()]);
                    let sample = sample(stored, kind, rows, columns);
                    let mut job = job(sample.shape(), reduction);
                    job.step = Some(step_of(step, reduction, rows));
                    let mut combiner = Combiner::new(&gpu, &job);
                    let (merged, found) = combiner.run(&sample);
                    let want = expected(&job.step.unwrap(), &sample, merged);
                    let what =
                        format!("{step} after {reduction:?} of {rows} x {columns} {stored:?} {kind:?}");
                    assert_eq!(wrong(&found.stepped, &want), None, "{what} on {gpu:?}");
                }
            }
        }
    }
}

/// The negative control: the check notices any other step, and a learning rate that is off by a thousandth.
#[test]
fn another_step_is_noticed() {
    for gpu in devices(&Options::default()) {
        for step in STEPS {
            let sample = sample(Working::F32, Kind::Smooth, 5, 257);
            let mut job = job(sample.shape(), Reduction::Median);
            let asked = step_of(step, Reduction::Median, 5);
            job.step = Some(asked);
            let mut combiner = Combiner::new(&gpu, &job);
            let (merged, found) = combiner.run(&sample);
            for other in STEPS {
                let want = expected(&step_of(other, Reduction::Median, 5), &sample, merged);
                assert_eq!(wrong(&found.stepped, &want).is_none(), other == step, "{step}, {other}");
            }
            for off in [StepJob { scale: 1.001, ..asked }, StepJob { less_base: 0.999, ..asked }] {
                assert!(wrong(&found.stepped, &expected(&off, &sample, merged)).is_some(), "{step}");
            }
        }
    }
}

/// If the square of a value overflows f32, the device reports its magnitude, not an infinity in an update.
#[test]
fn a_step_too_large_for_f32_is_reported() {
    for gpu in devices(&Options::default()) {
        let sample = sample(Working::F32, Kind::Huge, 5, 65);
        let mut job = job(sample.shape(), Reduction::WeightedSum);
        job.step = Some(step_of(adaptive(SecondMoment::Adam), Reduction::WeightedSum, 5));
        let (_, found) = Combiner::new(&gpu, &job).run(&sample);
        assert!(found.largest > MOST_MAGNITUDE && found.largest.is_finite(), "{}", found.largest);
    }
}

/// Strategies with a step, each after a rule on updates of a dtype.
const ROUNDS: [(&str, &str, &str); 7] = [
    ("fedavg:lr=0.5", "mean", "F32"),
    ("fedavgm", "median", "F32"),
    ("fedadam", "mean", "BF16"),
    ("fedadam:v0=0", "trimmed-mean:cut=1", "F32"),
    ("fedyogi:tau=0.01", "median", "F16"),
    ("fedadagrad:beta1=0.5", "mean", "F32"),
    ("fedadam:tau=0.01", "multi-krum", "F32"),
];

/// Merges by a strategy. Returns the model, and the state if there is one.
fn merge(round: &Round, rule: &str, strategy: &str, backend: &BackendRequest) -> Vec<Model> {
    let pool = ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let mut request = round.request(rule, &[], None, backend.clone());
    request.method.strategy = strategies::parse(strategy, Definition::Paper).unwrap();
    let keeps = !request.method.strategy.keeps().is_empty();
    request.outputs.state = keeps.then(|| round.dir.path("state.safetensors"));
    let report = run(request, Machine::new(Isa::detect(), &pool, &Progress::hidden())).unwrap();
    assert_eq!(report.backend.name, if backend.options.adapter.is_some() { "gpu" } else { "cpu" });
    let left = ["merged.safetensors", "state.safetensors"];
    left[..1 + usize::from(keeps)].iter().map(|name| Model::read(&round.dir, name)).collect()
}

/// Two rounds on either backend; the second starts from the CPU's output of the first. The CPU takes the step for tiles
/// that stayed on the device.
#[test]
fn rounds_of_every_step_agree_with_the_cpu() {
    let small = Options { slot_bytes: 16 << 10, slots: Some(3), ..Options::default() };
    let backends = [None, Some(1 << 30)]
        .into_iter()
        .flat_map(|resident_bytes| on_gpus(&Options { resident_bytes, ..small.clone() }));
    for backend in backends {
        for (strategy, rule, dtype) in ROUNDS {
            let round = Round::new(7, 1, dtype, true);
            let state = round.dir.path("state.safetensors");
            for number in 0..2 {
                let what = format!("round {number} of {strategy} after {rule} of {dtype}");
                let before = std::fs::read(&state).ok();
                let device = merge(&round, rule, strategy, &backend);
                match before {
                    Some(before) => std::fs::write(&state, before).unwrap(),
                    None => drop(std::fs::remove_file(&state)),
                }
                let cpu = merge(&round, rule, strategy, &on_cpu());
                assert_eq!(cpu.len(), device.len(), "{what}");
                for (cpu, device) in cpu.iter().zip(&device) {
                    assert_agree(device, cpu, &what);
                }
                let base = round.dir.path("base.safetensors");
                std::fs::rename(round.dir.path("merged.safetensors"), base).unwrap();
            }
        }
    }
}

/// Compares floats of the model or state. The bound has an absolute part: a step may change values near zero by much
/// more than rounding.
fn assert_agree(device: &Model, cpu: &Model, what: &str) {
    assert_eq!(device.tensors.len(), cpu.tensors.len(), "{what}");
    for (name, (dtype, _, bytes)) in &cpu.tensors {
        if dtype == "I64" {
            assert_eq!(&device.tensors[name].2, bytes, "{what}: {name}");
            continue;
        }
        let last_digit = match dtype.as_str() {
            "F16" => 2f64.powi(-10),
            "BF16" => 2f64.powi(-7),
            _ => f64::from(f32::EPSILON),
        };
        for (i, (a, b)) in floats(device, name).iter().zip(floats(cpu, name)).enumerate() {
            let bound = last_digit * b.abs() + 1e-4;
            assert!((a - b).abs() <= bound, "{what}: {name} at {i}: {a} on the device, {b} on the CPU");
        }
    }
}
