//! Whole private rounds: a device has the bits of the CPU, and its failure costs no charge.

use super::rounds::{on_cpu, on_gpus, small_slots, wonderful};
use crate::harness::{Dir, Model, Update, fedmill, le, skip};
use fedmill::engine::aggregate::error::Error;
use fedmill::engine::aggregate::request::{Inputs, Outputs, Request};
use fedmill::engine::backend::request::{BackendName, BackendRequest};
use fedmill::engine::decide::method::Method;
use fedmill::engine::passes::machine::Machine;
use fedmill::gpu::adapters;
use fedmill::gpu::job::Options as GpuOptions;
use fedmill::kernels::lanes::Isa;
use fedmill::modes::dp::release::{Options, run};
use fedmill::modes::dp::statistics::DpStatistics;
use fedmill::rules;
use fedmill::settings::Definition;
use fedmill::telemetry::progress::Progress;
use fedmill::telemetry::report::Report;
use half::{bf16, f16};
use rayon::ThreadPoolBuilder;

/// Values of the longest tensor: several tiles of the CPU, and not whole ones.
const LONG: usize = 100_003;

/// A value that looks random.
fn value(client: usize, place: usize) -> f32 {
    let x = (client as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ (place as u64).wrapping_mul(0xd1b5_4a32_d192_ed03);
    let x = (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// Tensors of every float, a statistic and a counter.
fn model(name: &str, of: impl Fn(usize) -> f32) -> Update {
    let values = |first: usize, len: usize| (first..first + len).map(&of).collect::<Vec<f32>>();
    let brain: Vec<u8> = le(values(200_000, 4_099).into_iter().map(|x| bf16::from_f32(x).to_le_bytes()));
    let half: Vec<u8> = le(values(210_000, 33_001).into_iter().map(|x| f16::from_f32(x).to_le_bytes()));
    let wide: Vec<f64> = values(250_000, 501).into_iter().map(|x| f64::from(x) / 3.0).collect();
    Update::new(name)
        .f32("body.weight", &[LONG], &values(0, LONG))
        .raw("brain.weight", "BF16", &[4_099], &brain)
        .raw("half.weight", "F16", &[33_001], &half)
        .f64("wide.weight", &[501], &wide)
        .f32("norm.running_mean", &[77], &values(300_000, 77))
        .i64("steps", &[], &[9])
}

/// A base, clients with weights and deltas of very different norms, one that is not finite, and a budget.
fn round(more: &[&str]) -> Dir {
    let dir = Dir::new();
    let base = |place: usize| value(99, place) * 0.7;
    model("base", base).write(&dir);
    for client in 0..5 {
        let by = [1e-3, 0.1, 1.0, 30.0, 1e-6][client];
        let name = format!("updates/client-{client}");
        match client % 2 {
            0 => model(&name, |place| base(place) + by * value(client, place)).write(&dir),
            _ => model(&name, |place| by * value(client, place)).meta("kind", "delta").write(&dir),
        }
    }
    model("updates/bad", |_| f32::NAN).write(&dir);
    let init = [
        "privacy",
        "init",
        "dp",
        "--population",
        "100",
        "--delta",
        "1e-5",
        "--base",
        "base.safetensors",
        "--epsilon",
        "1e7",
        "--rounds",
        "16",
        "--clip",
        "9",
        "--dp-statistics",
        "release",
        "--denominator",
        "10",
    ];
    let run = fedmill(&dir, &[&init[..], more].concat());
    assert_eq!(run.code, Some(0), "{run:#?}");
    dir
}

/// Releases round 3 by a backend, as a folder that nothing was released from.
fn release(dir: &Dir, backend: BackendRequest, options: &Options) -> Result<(Model, Report), Error> {
    release_round(dir, 3, backend, options)
}

/// Releases a round by a backend.
fn release_round(
    dir: &Dir,
    round: u64,
    backend: BackendRequest,
    options: &Options,
) -> Result<(Model, Report), Error> {
    let method = Method::new(rules::parse("mean", Definition::Paper).unwrap());
    let request = Request::new(vec![dir.path("updates")], method, dir.path("released.safetensors"));
    let request = Request {
        inputs: Inputs { base: Some(dir.path("base.safetensors")), ..request.inputs },
        outputs: Outputs { report: Some(dir.path("report.json")), ..request.outputs },
        policy: fedmill::engine::intake::policy::Policy { round: Some(round), ..request.policy },
        backend,
        ..request
    };
    let pool = ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let report = run(request, options, Machine::new(Isa::detect(), &pool, &Progress::hidden()))?;
    Ok((Model::read(dir, "released.safetensors"), report))
}

/// Options with the noise of a test seed.
fn seeded(dir: &Dir) -> Options {
    Options { test_seed: Some(7), statistics: DpStatistics::Release, ..Options::new(dir.path("dp")) }
}

fn devices(options: &GpuOptions) -> Vec<BackendRequest> {
    let found = on_gpus(options);
    if found.is_empty() {
        skip("no adapter was found; `fedmill doctor` says what is missing");
    }
    found
}

/// Mechanisms of independent noise of both levels, and of correlated noise.
const MECHANISMS: [&[&str]; 4] = [
    &["--sampling", "all", "--noise-multiplier", "1"],
    &["--sampling", "all", "--noise-multiplier", "1e-3"],
    &["--mechanism", "dp-ftrl:tree", "--noise-multiplier", "1"],
    &["--mechanism", "dp-ftrl:bands=3", "--noise-multiplier", "1"],
];

#[test]
fn a_round_on_a_device_has_the_bits_of_the_cpu() {
    for mechanism in MECHANISMS {
        let dir = round(mechanism);
        let before = dir.contents();
        let (cpu, _) = release(&dir, on_cpu(), &seeded(&dir)).unwrap();
        // Whole batches of clients in one tile, and one client at a time.
        for options in [GpuOptions::default(), small_slots()] {
            for backend in devices(&options) {
                dir.restore(&before);
                let (device, report) = release(&dir, backend, &seeded(&dir)).unwrap();
                for (tensor, expected) in &cpu.tensors {
                    assert!(device.tensors[tensor] == *expected, "{tensor} by {mechanism:?}");
                }
                assert_eq!(report.backend.name, "gpu", "{:?}", report.backend);
                // The negative control: the noise moved the model.
                assert!(
                    Model::read(&dir, "base.safetensors").tensors["body.weight"]
                        != cpu.tensors["body.weight"]
                );
            }
        }
    }
}

/// The files of a budget that hold rows of noise.
fn rows(dir: &Dir) -> Vec<(String, Vec<u8>)> {
    let contents = dir.contents().into_iter();
    contents
        .filter(|(name, _)| name.starts_with("dp/noise-"))
        .map(|(name, bytes)| (name, bytes.to_vec()))
        .collect()
}

/// Rounds of a series: in order, with one left out, and after the loss of rows, which draws several rounds again. The
/// rows have the bytes of the CPU, so later rounds may run on either.
#[test]
fn a_series_of_rounds_on_a_device_has_the_bytes_of_the_cpu() {
    for factor in ["tree", "bands=1", "bands=2", "bands=5", "bands=64"] {
        let mechanism = format!("dp-ftrl:{factor}");
        let dir = round(&["--mechanism", &mechanism, "--noise-multiplier", "1", "--participations", "16"]);
        let before = dir.contents();
        let series = |backend: &BackendRequest| {
            dir.restore(&before);
            let released = [1, 2, 4, 5].map(|round| {
                if round == 5 {
                    // The rounds from the first on are drawn again.
                    rows(&dir).iter().for_each(|(name, _)| std::fs::remove_file(dir.path(name)).unwrap());
                }
                let (model, report) = release_round(&dir, round, backend.clone(), &seeded(&dir)).unwrap();
                (model.tensors, rows(&dir), report.backend.name)
            });
            released.into_iter().collect::<Vec<_>>()
        };
        let cpu = series(&on_cpu());
        for backend in devices(&GpuOptions::default()) {
            for (number, (found, expected)) in series(&backend).into_iter().zip(&cpu).enumerate() {
                assert_eq!(found.2, "gpu", "{factor}");
                assert!(found.0 == expected.0, "{factor}: model {number}");
                assert!(found.1 == expected.1, "{factor}: rows {number}");
            }
        }
        // The negative control: rounds and their rows differ.
        assert!(
            cpu.windows(2).all(|pair| pair[0].0 != pair[1].0 && (factor == "tree" || pair[0].1 != pair[1].1))
        );
        assert_eq!(cpu.iter().all(|round| round.1.is_empty()), factor == "tree");
    }
}

/// A device that is lost at its first work after the charge: the CPU draws the noise, with the same bytes. So the device
/// does draw noise, also that of rows.
#[test]
fn a_device_draws_the_noise_of_every_mechanism() {
    for mechanism in MECHANISMS {
        let dir = round(mechanism);
        let before = dir.contents();
        let (cpu, _) = release(&dir, on_cpu(), &seeded(&dir)).unwrap();
        let cpu = (cpu.tensors, rows(&dir));
        for backend in devices(&small_slots()) {
            let lost_after = |runs| {
                dir.restore(&before);
                let options = GpuOptions { lose_after: Some(runs), ..backend.options.clone() };
                release(&dir, BackendRequest { options, ..backend.clone() }, &seeded(&dir))
            };
            // The fewest runs with which the device gets past the charge.
            let (mut fails, mut passes) = (0, 512);
            assert!(lost_after(fails).is_err() && lost_after(passes).is_ok());
            while passes - fails > 1 {
                let middle = (fails + passes) / 2;
                match lost_after(middle) {
                    Ok(_) => passes = middle,
                    Err(_) => fails = middle,
                }
            }
            let (found, report) = lost_after(passes).unwrap();
            assert_ne!(report.backend.name, "gpu", "{mechanism:?}: no noise was drawn on the device");
            assert!((found.tensors, rows(&dir)) == cpu, "{mechanism:?}");
        }
    }
}

/// `auto`, on a host whose calibration says that the device is faster.
fn auto(options: &GpuOptions) -> Vec<BackendRequest> {
    let of = |adapter: fedmill::gpu::job::Adapter| BackendRequest {
        options: GpuOptions { adapter: Some(adapter.name.clone()), ..options.clone() },
        calibration: Some(wonderful(&adapter)),
        ..BackendRequest::new(BackendName::Auto)
    };
    adapters().into_iter().map(of).collect()
}

/// A device may be lost at any run. Before the charge, that ends a run with `--backend gpu`, and nothing is charged; after
/// it, the CPU draws the noise that is left. A run with `auto` goes on in either case.
#[test]
fn a_lost_device_costs_no_charge_and_changes_no_bit() {
    let dir = round(MECHANISMS[0]);
    let before = dir.contents();
    let (cpu, _) = release(&dir, on_cpu(), &seeded(&dir)).unwrap();
    let (mut failed, mut went_on, mut went_through) = (0, 0, 0);
    for lose_after in [0, 9, 30, 41, 44, 47, 50, 10_000] {
        let lossy = GpuOptions { lose_after: Some(lose_after), ..small_slots() };
        for backend in devices(&lossy).into_iter().chain(auto(&lossy)) {
            dir.restore(&before);
            let is_auto = backend.name == BackendName::Auto;
            match release(&dir, backend, &seeded(&dir)) {
                Ok((found, report)) => {
                    assert!(found.tensors == cpu.tensors, "lost after {lose_after}");
                    match report.backend.name {
                        "gpu" => went_through += 1,
                        _ => went_on += 1,
                    }
                }
                Err(why) => {
                    assert!(!is_auto && why.to_string().contains("was lost"), "{why}");
                    assert_eq!(
                        dir.read("dp/ledger.jsonl"),
                        before["dp/ledger.jsonl"],
                        "lost after {lose_after}"
                    );
                    assert!(!dir.exists("released.safetensors"));
                    failed += 1;
                }
            }
        }
    }
    let found = adapters().len();
    println!("{failed} failed, {went_on} went on without the device, {went_through} with it");
    assert!(failed >= found && went_through >= 2 * found);
    // All failures of `auto` go on, and those of `--backend gpu` that come after the charge.
    assert!(went_on > 7 * found - failed.min(7 * found), "{failed} failed, {went_on} went on");
}

#[test]
fn auto_takes_a_device_that_is_predicted_to_be_faster() {
    let dir = round(MECHANISMS[0]);
    for backend in auto(&GpuOptions::default()) {
        let before = dir.contents();
        let (_, report) = release(&dir, backend, &seeded(&dir)).unwrap();
        assert_eq!(report.backend.name, "gpu", "{:?}", report.backend);
        assert!(report.backend.why.contains("times as fast"), "{}", report.backend.why);
        dir.restore(&before);
    }
}

/// The commands of edges: a clipped sum by a device is that of the CPU, file for file.
#[test]
fn the_sum_of_an_edge_has_the_bytes_of_the_cpu() {
    let dir = round(MECHANISMS[0]);
    let clip = |output: &str, backend: &[&str]| {
        let args =
            ["privacy", "clip", "dp", "updates", "--base", "base.safetensors", "--round", "3", "-o", output];
        let run = fedmill(&dir, &[&args[..], &["--dp-statistics", "release"], backend].concat());
        assert_eq!(run.code, Some(0), "{run:#?}");
        dir.read(output)
    };
    let expected = clip("cpu.safetensors", &["--backend", "cpu"]);
    for backend in devices(&GpuOptions::default()) {
        let adapter = backend.options.adapter.unwrap();
        let found = clip("gpu.safetensors", &["--backend", "gpu", "--adapter", &adapter]);
        assert!(found == expected, "{adapter}");
    }
}
