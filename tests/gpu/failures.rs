//! Devices that are lost before or during runs, missing, or out of memory.
//!
//! Every call ends soon with an error. It never returns values that were not computed.

use super::devices;
use super::ring::{combine_job, fill, merge, pairs_job};
use fedmill::gpu::job::{CombineJob, GpuError, Options, TileShape};
use fedmill::gpu::{CombineProgram, Gpu, PairsProgram, RingSlot, adapters};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// The time limit of a call on a lost device.
const SOON: Duration = Duration::from_secs(20);

/// Runs `work` on a new thread, so that a call that hangs fails the test.
fn soon(work: impl FnOnce() + Send + 'static) {
    let (done, waiting) = mpsc::channel();
    let thread = thread::spawn(move || {
        work();
        let _ = done.send(());
    });
    match waiting.recv_timeout(SOON) {
        Err(RecvTimeoutError::Timeout) => panic!("a call on a lost device hangs"),
        // A panic of `work` closes the channel.
        _ => thread.join().unwrap(),
    }
}

/// Fails unless every operation of a device returns an error.
#[track_caller]
fn assert_unusable(gpu: &Gpu) {
    let is_error = |what: &str, error: Option<GpuError>| {
        let error = error.unwrap_or_else(|| panic!("{what} works on a lost device"));
        assert!(!error.to_string().is_empty() && error.hint().is_some());
    };
    is_error("a program", CombineProgram::new(gpu, &combine_job()).err());
    is_error("a program of pairs", PairsProgram::new(gpu, &pairs_job()).err());
}

#[test]
fn a_device_that_was_lost_before_a_run_is_an_error() {
    for gpu in devices(&Options::default()) {
        soon(move || {
            let program = CombineProgram::new(&gpu, &combine_job()).unwrap();
            let mut slot = RingSlot::for_combine(&gpu, &program).unwrap();
            let mut idle = RingSlot::for_combine(&gpu, &program).unwrap();
            fill(&mut slot, 0).unwrap();
            gpu.lose();
            let lost = |result: Result<_, GpuError>| {
                assert!(matches!(result, Err(GpuError::Lost { .. })), "{result:?}");
            };
            lost(merge(&mut slot, &program, None));
            lost(fill(&mut slot, 1).and_then(|()| merge(&mut slot, &program, None)));
            lost(fill(&mut idle, 1).and_then(|()| merge(&mut idle, &program, None)));
            assert!(idle.keep().is_err());
            assert!(RingSlot::for_combine(&gpu, &program).is_err());
            assert_unusable(&gpu);
        });
    }
}

#[test]
fn rows_kept_on_a_device_are_lost_with_it() {
    for gpu in devices(&Options::default()) {
        soon(move || {
            let program = CombineProgram::new(&gpu, &combine_job()).unwrap();
            let mut slot = RingSlot::for_combine(&gpu, &program).unwrap();
            fill(&mut slot, 0).unwrap();
            merge(&mut slot, &program, None).unwrap();
            let kept = slot.keep().unwrap();
            gpu.lose();
            assert!(matches!(merge(&mut slot, &program, Some(&kept)), Err(GpuError::Lost { .. })));
        });
    }
}

#[test]
fn a_device_that_is_lost_while_slots_run_is_an_error_in_each() {
    for gpu in devices(&Options::default()) {
        for pause in [0, 1, 7, 23, 60] {
            let name = gpu.adapter().name.clone();
            soon(move || lose_after(&name, Duration::from_millis(pause)));
        }
    }
}

/// Runs three slots until they fail, and destroys the device under them.
fn lose_after(name: &str, pause: Duration) {
    let options = Options { adapter: Some(name.to_owned()), ..Options::default() };
    let gpu = Gpu::open(&options).unwrap();
    let program = CombineProgram::new(&gpu, &combine_job()).unwrap();
    let expected = {
        let mut slot = RingSlot::for_combine(&gpu, &program).unwrap();
        fill(&mut slot, 0).unwrap();
        merge(&mut slot, &program, None).unwrap()
    };
    let run = || -> GpuError {
        let slot = RingSlot::for_combine(&gpu, &program);
        slot.map_or_else(
            |error| error,
            |mut slot| loop {
                match fill(&mut slot, 0).and_then(|()| merge(&mut slot, &program, None)) {
                    Ok(merged) => assert_eq!(merged, expected, "what a run gives is right or an error"),
                    Err(error) => return error,
                }
            },
        )
    };
    thread::scope(|scope| {
        let runs: Vec<_> = (0..3).map(|_| scope.spawn(run)).collect();
        thread::sleep(pause);
        gpu.lose();
        for run in runs {
            let error = run.join().unwrap();
            assert!(error.to_string().contains(name), "{error}");
        }
    });
    assert_unusable(&gpu);
    drop(gpu);
    let gpu = Gpu::open(&options).unwrap();
    let program = CombineProgram::new(&gpu, &combine_job()).unwrap();
    let mut slot = RingSlot::for_combine(&gpu, &program).unwrap();
    fill(&mut slot, 0).unwrap();
    assert_eq!(merge(&mut slot, &program, None).unwrap(), expected);
}

#[test]
fn an_adapter_that_is_not_there_is_named_beside_those_that_are() {
    let wanted = "no such adapter";
    let error = Gpu::open(&Options { adapter: Some(wanted.to_owned()), ..Options::default() }).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(wanted) && error.hint().is_some(), "{text}");
    for adapter in adapters() {
        assert!(text.contains(&adapter.name), "{text}");
    }
}

#[test]
fn a_software_adapter_is_taken_only_if_it_is_named() {
    let (software, real): (Vec<_>, Vec<_>) = adapters().into_iter().partition(|one| one.is_software());
    if real.is_empty() {
        let error = Gpu::open(&Options::default()).unwrap_err();
        assert!(matches!(error, GpuError::NoAdapter { .. }), "{error}");
        assert!(software.iter().all(|one| error.to_string().contains(&one.name)), "{error}");
    }
    for adapter in software {
        // A part of the name, in other letter case.
        let part = adapter.name.chars().take(6).collect::<String>().to_uppercase();
        let gpu = Gpu::open(&Options { adapter: Some(part), ..Options::default() }).unwrap();
        assert!(gpu.adapter().is_software());
    }
}

#[test]
fn a_slot_beyond_what_can_be_bound_is_an_error() {
    for gpu in devices(&Options { binding_bytes: Some(1 << 20), ..Options::default() }) {
        let job =
            |columns| CombineJob { shape: TileShape { columns, ..combine_job().shape }, ..combine_job() };
        let fits = CombineProgram::new(&gpu, &job(1 << 14)).unwrap();
        fill(&mut RingSlot::for_combine(&gpu, &fits).unwrap(), 0).unwrap();

        let large = CombineProgram::new(&gpu, &job(1 << 20)).unwrap();
        let error = RingSlot::for_combine(&gpu, &large).and_then(|mut slot| fill(&mut slot, 0)).unwrap_err();
        let GpuError::OutOfMemory { bytes, .. } = &error else { panic!("{error}") };
        assert!(*bytes > 1 << 20);
        assert!(error.to_string().contains("1048576"), "{error}");

        // The device itself is sound: jobs that fit still work.
        fill(&mut RingSlot::for_combine(&gpu, &fits).unwrap(), 0).unwrap();
    }
}
