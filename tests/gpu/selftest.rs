//! The self-test of `fedmill doctor`, on every adapter.

use super::devices;
use fedmill::gpu::job::Options;
use fedmill::gpu::self_test;

fn assert_passes(options: &Options) {
    for gpu in devices(options) {
        let findings = self_test(&gpu);
        assert!(findings.len() > 15);
        let failed: Vec<_> = findings.iter().filter(|finding| finding.difference.is_some()).collect();
        assert!(failed.is_empty(), "{}: {failed:#?}", gpu.adapter().name);
    }
}

#[test]
fn every_kernel_passes_the_self_test() {
    assert_passes(&Options::default());
}

#[test]
fn every_kernel_passes_with_checks_and_without_subgroups() {
    assert_passes(&Options { checked: true, subgroups: false, ..Options::default() });
}

#[test]
fn the_self_test_of_a_lost_device_fails_everywhere() {
    for gpu in devices(&Options::default()) {
        gpu.lose();
        for finding in self_test(&gpu) {
            assert!(finding.difference.is_some(), "{finding:?}");
        }
    }
}
