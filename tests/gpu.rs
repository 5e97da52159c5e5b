//! The GPU backend: shaders without a device, kernels against the CPU and the oracle on every adapter, the ring, what
//! happens when a device fails. Where there is no adapter these tests say so and pass, unless
//! `FEDMILL_REQUIRE_GPU` is set.

mod failures;
mod kernels;
mod ring;
mod rounds;
mod shaders;

use fedmill::gpu::job::Options;
use fedmill::gpu::{Gpu, adapters};

/// Set where a missing adapter is a failure.
pub(crate) const REQUIRED: &str = "FEDMILL_REQUIRE_GPU";

/// A device for every adapter there is, software ones too; opened anew for each test.
pub(crate) fn devices(options: &Options) -> Vec<Gpu> {
    let found = adapters();
    if found.is_empty() {
        assert!(std::env::var_os(REQUIRED).is_none(), "no adapter was found, and one is required");
        eprintln!("SKIPPED: no adapter was found; `fedmill doctor` says what is missing");
    }
    let named = |name: String| Options { adapter: Some(name), ..options.clone() };
    found.into_iter().map(|adapter| Gpu::open(&named(adapter.name)).unwrap()).collect()
}
