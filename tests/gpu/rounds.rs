//! Whole rounds, files to files: the device against the CPU.

use super::REQUIRED;
use crate::harness::{Dir, Model, Update, fedmill, fedmill_after, shortest};
use fedmill::engine::aggregate::error::Error;
use fedmill::engine::aggregate::request::{Inputs, Outputs, Request};
use fedmill::engine::aggregate::run::run;
use fedmill::engine::backend::calibration::{Calibration, Curve, DeviceCalibration, Rates};
use fedmill::engine::backend::request::{BackendName, BackendRequest};
use fedmill::engine::decide::method::Method;
use fedmill::engine::passes::machine::Machine;
use fedmill::gpu::adapters;
use fedmill::gpu::job::Options;
use fedmill::kernels::lanes::Isa;
use fedmill::rules::{self, RULES, pre};
use fedmill::settings::Definition;
use fedmill::telemetry::explain::Explain;
use fedmill::telemetry::progress::Progress;
use fedmill::telemetry::report::Report;
use half::{bf16, f16};
use rayon::ThreadPoolBuilder;

/// A round to merge on every backend.
pub(super) struct Round {
    pub(super) dir: Dir,
    pub(super) with_base: bool,
}

/// A value that looks random.
fn value(client: usize, place: usize) -> f64 {
    let x = (client as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ (place as u64).wrapping_mul(0xd1b5_4a32_d192_ed03);
    let x = (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x >> 40) as f64 / f64::from(1 << 23) - 1.0
}

/// The value that the honest clients of a round have in common.
fn common(place: usize) -> f64 {
    (place as f64 * 0.37).sin()
}

fn stored(dtype: &str, values: &[f64]) -> Vec<u8> {
    let bytes = |x: &f64| match dtype {
        "F64" => x.to_le_bytes().to_vec(),
        "F16" => f16::from_f64(*x).to_le_bytes().to_vec(),
        "BF16" => bf16::from_f64(*x).to_le_bytes().to_vec(),
        _ => (*x as f32).to_le_bytes().to_vec(),
    };
    values.iter().flat_map(bytes).collect()
}

/// Tensors of a dtype, and tensors of f64 and of integers, which the device leaves to the CPU.
fn model(name: &str, dtype: &str, of: impl Fn(usize) -> f64) -> Update {
    let values = |range: std::ops::Range<usize>| -> Vec<f64> { range.map(&of).collect() };
    Update::new(name)
        .raw("body.weight", dtype, &[37, 61], &stored(dtype, &values(0..37 * 61)))
        .raw("none", dtype, &[0, 3], &[])
        .i64("steps", &[2], &[3, of(9) as i64])
        .raw("wide", "F64", &[5], &stored("F64", &values(3000..3005)))
        .raw("scalar", dtype, &[], &stored(dtype, &values(4000..4001)))
        .raw("head.weight", dtype, &[1501], &stored(dtype, &values(5000..6501)))
}

impl Round {
    /// `clients` updates of a dtype. The last `hostile` of them are far away.
    pub(super) fn new(clients: usize, hostile: usize, dtype: &str, with_base: bool) -> Self {
        let dir = Dir::new();
        for client in 0..clients {
            let far = if client + hostile >= clients { 3.0 } else { 0.3 };
            let of = |place: usize| common(place) + far * value(client, place);
            let update = model(&format!("updates/client-{client:03}"), dtype, of);
            update.meta("num_examples", &(10 + client * 7 % 13).to_string()).write(&dir);
        }
        if with_base {
            model("base", dtype, |place| common(place) * 0.9).write(&dir);
        }
        Self { dir, with_base }
    }

    pub(super) fn request(
        &self,
        rule: &str,
        steps: &[&str],
        byzantine: Option<usize>,
        backend: BackendRequest,
    ) -> Request {
        let method = Method {
            pre: steps.iter().map(|step| pre::parse(step).unwrap()).collect(),
            byzantine: byzantine.map(|count| count.to_string().parse().unwrap()),
            ..Method::new(rules::parse(rule, Definition::Paper).unwrap())
        };
        let output = self.dir.path("merged.safetensors");
        let request = Request::new(vec![self.dir.path("updates")], method, output);
        let base = self.with_base.then(|| self.dir.path("base.safetensors"));
        Request {
            inputs: Inputs { base, ..request.inputs },
            outputs: Outputs { report: Some(self.dir.path("report.json")), ..request.outputs },
            backend,
            ..request
        }
    }

    pub(super) fn merge(
        &self,
        rule: &str,
        steps: &[&str],
        byzantine: Option<usize>,
        backend: BackendRequest,
    ) -> (Model, Report) {
        let report = self.try_merge(rule, steps, byzantine, backend).unwrap();
        (Model::read(&self.dir, "merged.safetensors"), report)
    }

    pub(super) fn try_merge(
        &self,
        rule: &str,
        steps: &[&str],
        byzantine: Option<usize>,
        backend: BackendRequest,
    ) -> Result<Report, Error> {
        let pool = ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let request = self.request(rule, steps, byzantine, backend);
        run(request, Machine::new(Isa::detect(), &pool, &Progress::hidden()))
    }
}

pub(super) fn on_cpu() -> BackendRequest {
    BackendRequest { name: BackendName::Cpu, options: Options::default(), calibration: None, explain: false }
}

/// Every adapter, as a backend.
pub(super) fn on_gpus(options: &Options) -> Vec<BackendRequest> {
    let found = adapters();
    assert!(
        !found.is_empty() || std::env::var_os(REQUIRED).is_none(),
        "no adapter was found, and one is required"
    );
    let named = |name: String| Options { adapter: Some(name), ..options.clone() };
    let backend =
        |options| BackendRequest { name: BackendName::Gpu, options, calibration: None, explain: false };
    found.into_iter().map(|adapter| backend(named(adapter.name))).collect()
}

/// Small slots: many tiles, several in flight.
pub(super) fn small_slots() -> Options {
    Options { slot_bytes: 16 << 10, slots: Some(3), ..Options::default() }
}

pub(super) fn floats(model: &Model, tensor: &str) -> Vec<f64> {
    let (dtype, _, bytes) = &model.tensors[tensor];
    match dtype.as_str() {
        "F32" => bytes.chunks(4).map(|x| f64::from(f32::from_le_bytes(x.try_into().unwrap()))).collect(),
        "F64" => bytes.chunks(8).map(|x| f64::from_le_bytes(x.try_into().unwrap())).collect(),
        "F16" => bytes.chunks(2).map(|x| f16::from_le_bytes(x.try_into().unwrap()).to_f64()).collect(),
        "BF16" => bytes.chunks(2).map(|x| bf16::from_le_bytes(x.try_into().unwrap()).to_f64()).collect(),
        other => panic!("{other} is not compared by value"),
    }
}

/// Floats agree up to rounding. Those of f64 come from the CPU, but their coefficients depend on distances.
#[track_caller]
fn assert_agree(device: &Model, cpu: &Model, what: &str) {
    for (name, (dtype, _, bytes)) in &cpu.tensors {
        if dtype == "I64" {
            assert_eq!(&device.tensors[name].2, bytes, "{what}: {name}");
            continue;
        }
        let last_digit = match dtype.as_str() {
            "F32" | "F64" => f64::from(f32::EPSILON),
            "F16" => 2f64.powi(-10),
            _ => 2f64.powi(-7),
        };
        for (i, (a, b)) in floats(device, name).iter().zip(floats(cpu, name)).enumerate() {
            let bound = last_digit * b.abs() + 4e-6;
            assert!((a - b).abs() <= bound, "{what}: {name} at {i}: {a} on the device, {b} on the CPU");
        }
    }
}

#[track_caller]
fn assert_same_kept(device: &Report, cpu: &Report, what: &str) {
    let kept = |report: &Report| report.clients.iter().map(|row| row.kept).collect::<Vec<_>>();
    assert_eq!(kept(device), kept(cpu), "{what}: other clients are kept");
    assert_eq!((device.backend.name, cpu.backend.name), ("gpu", "cpu"), "{what}");
}

/// Steps before a rule.
const STEPS: [(&str, &[&str]); 4] = [
    ("median", &["nnm"]),
    ("trimmed-mean", &["clip:norm=4"]),
    ("meamed", &["bucketing:s=2"]),
    ("distance-trim", &["outliers", "nnm"]),
];

#[test]
fn every_rule_agrees_with_the_cpu() {
    for backend in on_gpus(&small_slots()) {
        for (clients, dtype, with_base) in
            [(9, "F32", true), (21, "BF16", false), (19, "F16", true), (67, "F32", true)]
        {
            let round = Round::new(clients, 2, dtype, with_base);
            let alone = RULES.iter().map(|entry| (shortest(entry, "client-000"), &[][..]));
            let after_steps = STEPS.map(|(rule, steps)| (rule.to_owned(), steps));
            for (rule, steps) in alone.chain(after_steps) {
                let rule = rule.as_str();
                let tolerates = rules::parse(rule, Definition::Paper).unwrap().tolerates(clients) > 0;
                let byzantine = tolerates.then_some(if clients > 11 { 2 } else { 1 });
                let what = format!("{rule} after {steps:?}, {clients} of {dtype}");
                let (cpu, cpu_report) = round.merge(rule, steps, byzantine, on_cpu());
                let (device, report) = round.merge(rule, steps, byzantine, backend.clone());
                assert_same_kept(&report, &cpu_report, &what);
                assert_agree(&device, &cpu, &what);
                if (rule, steps.len()) == ("median", 0) {
                    assert_eq!(device.tensors, cpu.tensors, "{what}: a median agrees in every bit");
                }
            }
        }
    }
}

#[test]
fn slots_and_tiles_change_no_bit() {
    let round = Round::new(12, 2, "F32", true);
    for rule in ["mean", "trimmed-mean", "multi-krum"] {
        let byzantine = (rule != "mean").then_some(2);
        for first in on_gpus(&small_slots()) {
            let (expected, _) = round.merge(rule, &[], byzantine, first.clone());
            for slots in [1, 2, 5] {
                let options = Options { slots: Some(slots), ..first.options.clone() };
                let backend = BackendRequest { options, ..first.clone() };
                for _ in 0..3 {
                    let (model, _) = round.merge(rule, &[], byzantine, backend.clone());
                    assert_eq!(model.tensors, expected.tensors, "{rule} with {slots} slots");
                }
            }
        }
    }
}

#[test]
fn what_fits_the_device_is_read_once() {
    let round = Round::new(12, 2, "F32", false);
    for fits in on_gpus(&Options { resident_bytes: Some(1 << 30), ..small_slots() }) {
        let options = Options { resident_bytes: Some(0), ..fits.options.clone() };
        let streams = BackendRequest { options, ..fits.clone() };
        let (kept, kept_report) = round.merge("multi-krum", &[], Some(2), fits);
        let (streamed, streamed_report) = round.merge("multi-krum", &[], Some(2), streams);
        assert_eq!(kept.tensors, streamed.tensors);
        let contents = round.dir.contents();
        let data = contents.iter().filter(|(name, _)| name.starts_with("updates/c"));
        let data: usize = data.map(|(_, bytes)| bytes.len()).sum();
        // The second pass reads integers and f64 values again.
        assert!(kept_report.bytes.read < data as u64 * 11 / 10, "{} of {data}", kept_report.bytes.read);
        assert!(streamed_report.bytes.read > data as u64 * 3 / 2, "{} of {data}", streamed_report.bytes.read);
    }
}

#[test]
fn a_device_that_is_lost_ends_the_run_and_nothing_is_published() {
    let round = Round::new(9, 2, "F32", false);
    for rule in ["median", "krum"] {
        for lose_after in [0, 1, 3] {
            for backend in on_gpus(&Options { lose_after: Some(lose_after), ..small_slots() }) {
                let before = round.dir.contents();
                let why = round.try_merge(rule, &[], Some(2), backend).unwrap_err();
                assert!(why.to_string().contains("was lost"), "{rule}: {why}");
                assert!(why.hint().is_some());
                round.dir.assert_unchanged_since(&before);
            }
        }
    }
}

#[test]
fn an_adapter_that_is_not_there_is_an_error() {
    let round = Round::new(3, 0, "F32", false);
    let options = Options { adapter: Some("no such adapter".to_owned()), ..Options::default() };
    let backend = BackendRequest { name: BackendName::Gpu, options, calibration: None, explain: false };
    let why = round.try_merge("median", &[], None, backend).unwrap_err().to_string();
    assert!(why.contains("no adapter is called `no such adapter`"), "{why}");
}

#[test]
fn a_value_that_is_not_finite_is_found() {
    let round = Round::new(5, 0, "F32", false);
    let bad = |place: usize| if place == 5003 { f64::NAN } else { common(place) };
    model("updates/client-bad", "F32", bad).meta("num_examples", "3").write(&round.dir);
    for backend in on_gpus(&small_slots()) {
        for rule in ["mean", "median", "krum"] {
            let why = round.try_merge(rule, &[], None, backend.clone()).unwrap_err().to_string();
            let expected = "client-bad.safetensors: tensor `head.weight` holds NaN at flat index 3";
            assert!(why.contains(expected), "{rule}: {why}");
        }
    }
}

/// The CPU computes sums and squares of values near either end of f32.
#[test]
fn values_that_f32_cannot_add_up_are_left_to_the_cpu() {
    for (scale, with_base) in [1e35, 1e25, 1e-19, 1e-22, 1e-30, 1e-38, 1e-44, 1e-41]
        .into_iter()
        .zip([true, false].into_iter().cycle())
    {
        let round = Round { dir: Dir::new(), with_base };
        for client in 0..7 {
            let of = |place: usize| scale * (common(place) + 0.3 * value(client, place));
            model(&format!("updates/client-{client}"), "F32", of).write(&round.dir);
        }
        if with_base {
            model("base", "F32", |place| scale * 0.9 * common(place)).write(&round.dir);
        }
        for backend in on_gpus(&small_slots()) {
            for (rule, steps) in [
                ("mean", &[][..]),
                ("median", &[]),
                ("trimmed-mean:cut=1", &[]),
                ("krum", &[]),
                ("mean", &["nnm"]),
                ("krum", &["nnm"]),
            ] {
                let byzantine = (rule == "krum" || !steps.is_empty()).then_some(1);
                let what = format!("{rule} after {steps:?} at {scale:e}");
                let (cpu, cpu_report) = round.merge(rule, steps, byzantine, on_cpu());
                let (device, report) = round.merge(rule, steps, byzantine, backend.clone());
                assert_same_kept(&report, &cpu_report, &what);
                for tensor in ["body.weight", "head.weight"] {
                    for (a, b) in floats(&device, tensor).iter().zip(floats(&cpu, tensor)) {
                        assert!((a - b).abs() <= 1e-6 * scale, "{what}: {a:e} {b:e}");
                    }
                }
                for (row, expected) in report.clients.iter().zip(&cpu_report.clients) {
                    let (found, expected) = (row.norm.unwrap_or(0.0), expected.norm.unwrap_or(0.0));
                    assert!(
                        (found - expected).abs() <= 1e-5 * expected,
                        "{what}: norm {found:e}, {expected:e}"
                    );
                }
            }
        }
    }
}

/// One client is tiny beside the others, and another is a subnormal away from the base.
#[test]
fn norms_of_tiny_updates_beside_others_are_those_of_the_cpu() {
    for (tiny, base) in [(1e-22, 0.0), (1e-41, 0.0), (1e-40, 1.5e-38)] {
        let round = Round { dir: Dir::new(), with_base: true };
        for client in 0..5 {
            let scale = if client == 2 { tiny } else { 1.0 };
            let of = |place: usize| base + scale * (1.0 + value(client, place).abs());
            model(&format!("updates/client-{client}"), "F32", of).write(&round.dir);
        }
        model("base", "F32", |_| base).write(&round.dir);
        for backend in on_gpus(&small_slots()) {
            for rule in ["mean", "median"] {
                let norm = |report: &Report| report.clients[2].norm.unwrap();
                let (_, cpu) = round.merge(rule, &[], None, on_cpu());
                let (_, device) = round.merge(rule, &[], None, backend.clone());
                let (found, expected) = (norm(&device), norm(&cpu));
                assert!(expected > 0.0, "{rule} at {tiny:e}");
                assert!(
                    (found - expected).abs() <= 1e-5 * expected,
                    "{rule}: {found:e}, expected {expected:e}"
                );
            }
        }
    }
}

/// Two clients have scores that differ by less than the bound. Both backends measure again in f64, and keep the same.
#[test]
fn close_calls_are_settled_in_f64() {
    let round = Round { dir: Dir::new(), with_base: false };
    for client in 0..21 {
        let twin = if client % 2 == 1 { client - 1 } else { client };
        let of = |place: usize| common(place) + value(twin, place) + 1e-6 * value(client + 100, place);
        model(&format!("updates/client-{client:02}"), "F32", of).write(&round.dir);
    }
    for backend in on_gpus(&small_slots()) {
        let (cpu, cpu_report) = round.merge("krum", &[], Some(3), on_cpu());
        let (device, report) = round.merge("krum", &[], Some(3), backend);
        assert_same_kept(&report, &cpu_report, "krum");
        assert_agree(&device, &cpu, "krum");
        let settled = |report: &Report| report.warnings.iter().any(|text| text.contains("again in f64"));
        assert!(settled(&report), "{:?}", report.warnings);
    }
}

/// A host with a GPU whose calibration says that it is faster for every merge.
pub(super) fn wonderful(adapter: &fedmill::gpu::job::Adapter) -> Calibration {
    let mut known = Calibration::default();
    known.read_bytes_per_s = 1e12;
    let rates = known.cpu.clone();
    let slow = || Curve::new(vec![(1, 1.0)]);
    known.cpu = Rates {
        sum_bytes_per_s: slow(),
        median_values_per_s: slow(),
        trimmed_values_per_s: slow(),
        near_values_per_s: slow(),
        pairs_multiply_adds_per_s: slow(),
        mix_multiply_adds_per_s: slow(),
        integer_bytes_per_s: slow(),
        noise_values_per_s: slow(),
    };
    known.device = Some(DeviceCalibration {
        adapter: adapter.name.clone(),
        driver: adapter.driver.clone(),
        is_software: false,
        start_s: 0.0,
        latency_s: 0.0,
        slot_bytes: 1 << 20,
        ingest_bytes_per_s: 1e12,
        upload_bytes_per_s: 1e12,
        resident_bytes: 1 << 30,
        rates,
    });
    known
}

#[test]
fn auto_finishes_on_the_cpu_when_the_device_is_lost() {
    let round = Round::new(12, 2, "F32", true);
    for adapter in adapters() {
        for rule in ["median", "trimmed-mean", "krum"] {
            let (expected, _) = round.merge(rule, &[], Some(2), on_cpu());
            for lose_after in [0, 1, 4, 9] {
                let name = Some(adapter.name.clone());
                // Nothing stays on the device, and the second pass runs on it too.
                let options = Options { adapter: name, lose_after: Some(lose_after), ..small_slots() };
                let calibration = Some(wonderful(&adapter));
                let backend =
                    BackendRequest { name: BackendName::Auto, options, calibration, explain: false };
                let (model, report) = round.merge(rule, &[], Some(2), backend);
                let what = format!("{rule}, lost after {lose_after}");
                assert_agree(&model, &expected, &what);
                assert_eq!(report.backend.name, "cpu", "{what}");
                assert!(report.backend.why.contains("the CPU took over"), "{what}: {}", report.backend.why);
            }
        }
    }
}

#[test]
fn auto_takes_a_device_that_is_worth_it_and_no_other() {
    let round = Round::new(9, 2, "F32", false);
    for adapter in adapters() {
        let auto = |calibration: Option<Calibration>| {
            let options = Options { adapter: Some(adapter.name.clone()), ..small_slots() };
            BackendRequest { name: BackendName::Auto, options, calibration, explain: true }
        };
        let (_, report) = round.merge("median", &[], None, auto(Some(wonderful(&adapter))));
        assert_eq!(report.backend.name, "gpu", "{}", report.backend.why);
        let mut other = wonderful(&adapter);
        other.device.as_mut().unwrap().driver = "another version".to_owned();
        let mut software = wonderful(&adapter);
        software.device.as_mut().unwrap().is_software = true;
        for (calibration, why) in
            [(Calibration::default(), "doctor"), (other, "driver"), (software, "software")]
        {
            let (_, report) = round.merge("median", &[], None, auto(Some(calibration)));
            assert_eq!(report.backend.name, "cpu");
            assert!(report.backend.why.contains(why), "{}", report.backend.why);
        }
    }
}

/// Without a driver, `gpu` is an error that gives advice, and `auto` takes the CPU.
#[test]
fn a_missing_driver_is_reported() {
    let round = Round::new(3, 0, "F32", false);
    let arguments = ["aggregate", "updates", "-o", "merged.safetensors", "--backend"];
    let without = "export VK_DRIVER_FILES=/nonexistent.json VK_ICD_FILENAMES=/nonexistent.json";
    let before = round.dir.contents();
    let run = fedmill_after(&round.dir, without, &[&arguments[..], &["gpu"]].concat());
    run.assert_fails(2, &["no GPU was found", "hint: `fedmill doctor` names what is missing"]);
    round.dir.assert_unchanged_since(&before);
    fedmill_after(&round.dir, without, &[&arguments[..], &["auto"]].concat())
        .assert_merged("merged.safetensors");
}

/// A software adapter is not a GPU, unless the option names it.
#[test]
fn a_software_adapter_has_to_be_named() {
    let round = Round::new(3, 0, "F32", false);
    let found = adapters();
    let arguments = ["aggregate", "updates", "-o", "merged.safetensors", "--backend", "gpu"];
    if found.iter().all(|adapter| adapter.is_software()) {
        let run = fedmill(&round.dir, &arguments);
        let besides: Vec<&str> = found.iter().map(|adapter| adapter.name.as_str()).collect();
        run.assert_fails(2, &[&["no GPU was found"][..], &besides].concat());
    }
    for adapter in found {
        let named = [&arguments[..], &["--adapter", &adapter.name]].concat();
        fedmill(&round.dir, &named).assert_merged("merged.safetensors");
        let exported = format!("export WGPU_ADAPTER_NAME='{}'", adapter.name);
        fedmill_after(&round.dir, &exported, &arguments).assert_merged("merged.safetensors");
    }
}
