//! The GPU backend: shaders, kernels against the CPU and the oracle, the ring, failing devices.
//!
//! Tests of devices run on every adapter. Without an adapter they print so and pass, or fail if `FEDMILL_REQUIRE_GPU`
//! is set.

mod codecs;
mod compress;
mod decompress;
mod failures;
mod inspect;
mod limits;
mod order;
mod pairs;
mod private;
mod private_rounds;
mod ring;
mod rounds;
mod sample;
mod secure;
mod selftest;
pub(crate) mod shaders;
mod step;
mod sums;

use fedmill::gpu::job::{CombineJob, Combined, Options, Reduction, TileShape};
use fedmill::gpu::{CombineProgram, Gpu, RingSlot, adapters};
use sample::Sample;

/// 2^-24: half the distance of 1 from the next f32.
pub(crate) const UNIT: f64 = f32::EPSILON as f64 / 2.0;
/// The smallest normal f32. A device may treat smaller values as zero.
pub(crate) const FLUSHED: f64 = f32::MIN_POSITIVE as f64;

/// The environment variable that makes a missing adapter a failure.
pub(crate) const REQUIRED: &str = "FEDMILL_REQUIRE_GPU";

/// A device for every adapter, software adapters too, opened anew for each test. It fills memory with a pattern before
/// each run, so that results that depend on fresh memory fail.
pub(crate) fn devices(options: &Options) -> Vec<Gpu> {
    let found = adapters();
    if found.is_empty() {
        assert!(std::env::var_os(REQUIRED).is_none(), "no adapter was found, and one is required");
        crate::harness::skip("no adapter was found; `fedmill doctor` says what is missing");
    }
    let named = |name: String| Options { adapter: Some(name), spoils: true, ..options.clone() };
    found.into_iter().map(|adapter| Gpu::open(&named(adapter.name)).unwrap()).collect()
}

/// The ways to open a device that change the code that runs on it.
pub(crate) fn ways() -> [Options; 3] {
    let usual = Options::default();
    [usual.clone(), Options { subgroups: false, ..usual.clone() }, Options { checked: true, ..usual }]
}

/// A job on all rows, unchanged.
pub(crate) fn job(shape: TileShape, reduction: Reduction) -> CombineJob {
    let n = shape.rows;
    CombineJob {
        shape,
        chosen: (0..n as u32).collect(),
        weights: vec![1.0; n],
        mixing: None,
        reduction,
        norms: None,
        step: None,
    }
}

/// A compiled job and the slot it runs in.
pub(crate) struct Combiner<'g> {
    pub(crate) program: CombineProgram,
    pub(crate) slot: RingSlot<'g>,
    merged: Vec<f64>,
}

impl<'g> Combiner<'g> {
    pub(crate) fn new(gpu: &'g Gpu, job: &CombineJob) -> Self {
        let program = CombineProgram::new(gpu, job).unwrap();
        let slot = RingSlot::for_combine(gpu, &program).unwrap();
        Self { program, slot, merged: vec![f64::NAN; 3] }
    }

    /// Runs on a tile.
    pub(crate) fn run(&mut self, sample: &Sample) -> (&[f64], Combined) {
        sample.fill(&mut self.slot);
        let combined = self.slot.combine(&self.program, None, &mut self.merged).unwrap();
        (&self.merged, combined)
    }
}

/// The first value that differs from the expected one by more than its bound.
pub(crate) fn first_wrong(got: &[f64], want: &[(f64, f64)]) -> Option<String> {
    if got.len() != want.len() {
        return Some(format!("{} values, expected {}", got.len(), want.len()));
    }
    let wrong = |(got, (want, bound)): (&f64, &(f64, f64))| {
        let fine = (got - want).abs() <= *bound;
        (!fine).then(|| format!("got {got:e}, expected {want:e} to {bound:e}"))
    };
    let mut found = got.iter().zip(want).map(wrong).enumerate();
    found.find_map(|(j, wrong)| wrong.map(|wrong| format!("at {j}: {wrong}")))
}

/// The first value whose bits differ from the expected ones.
pub(crate) fn first_other_bits(got: &[f64], want: &[f64]) -> Option<String> {
    if got.len() != want.len() {
        return Some(format!("{} values, expected {}", got.len(), want.len()));
    }
    let j = got.iter().zip(want).position(|(got, want)| got.to_bits() != want.to_bits())?;
    Some(format!("at {j}: got {:e}, expected {:e}", got[j], want[j]))
}

/// The negative control: the checks notice values that are off by more than their bounds or by one bit, missing values,
/// and NaN.
#[test]
fn wrong_is_noticed() {
    let want = [(1.0, 1e-6), (-2.0, 1e-6)];
    assert_eq!(first_wrong(&[1.0 + 0.9e-6, -2.0 - 0.9e-6], &want), None);
    for got in
        [&[1.0 + 1.1e-6, -2.0][..], &[1.0, -2.0 - 1.1e-6], &[1.0], &[f64::NAN, -2.0], &[1.0, -2.0, 0.0]]
    {
        assert!(first_wrong(got, &want).is_some(), "{got:?}");
    }
    assert_eq!(first_other_bits(&[1.0, -0.0], &[1.0, -0.0]), None);
    for got in [&[1.0f64.next_up(), -0.0][..], &[1.0, 0.0], &[1.0]] {
        assert!(first_other_bits(got, &[1.0, -0.0]).is_some(), "{got:?}");
    }
}
