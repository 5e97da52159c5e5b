//! Limits of all kernels: values that are not finite, many workgroups, small bindings, reruns.

use super::sample::{Kind, STORED, Sample};
use super::{Combiner, devices, first_other_bits, first_wrong, job, ways};
use fedmill::gpu::job::{CombineJob, GpuError, Options, PairsJob, Reduction, TileShape};
use fedmill::gpu::{CombineProgram, Gpu, PairsProgram, RingSlot};
use fedmill::model::dtype::Working;

/// A job for every reduction that accepts this number of rows.
fn jobs(shape: TileShape) -> Vec<CombineJob> {
    let n = shape.rows;
    let mut jobs = vec![
        job(shape, Reduction::WeightedSum),
        job(shape, Reduction::Median),
        job(shape, Reduction::TrimmedMean { cut: (n - 1) / 3 }),
        job(shape, Reduction::MeanNearMedian { kept: n / 2 + 1 }),
    ];
    let mut mixed = job(shape, Reduction::Median);
    mixed.mixing = Some(vec![vec![1.0 / n as f64; n + 1]; 3]);
    jobs.push(mixed);
    jobs
}

fn pairs_job(shape: TileShape) -> PairsJob {
    PairsJob {
        shape,
        mixing: None,
        origin_is_base: false,
        with_median: true,
        with_centre: false,
        differences: true,
        signs: None,
    }
}

/// NaN and infinity of either sign, in any position, make the largest magnitude infinite.
#[test]
fn what_is_not_finite_is_found() {
    let bad = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    for options in ways() {
        for gpu in devices(&options) {
            for (n, columns) in [(1, 1), (5, 65), (64, 63), (65, 257), (321, 9), (1300, 3)] {
                let stored = STORED[n % 3];
                let sound = Sample::new(stored, Kind::Smooth, n, columns);
                let mut combiners: Vec<_> =
                    jobs(sound.shape()).iter().map(|job| Combiner::new(&gpu, job)).collect();
                let pairs = PairsProgram::new(&gpu, &pairs_job(sound.shape())).unwrap();
                let mut slot = RingSlot::for_pairs(&gpu, &pairs).unwrap();
                for (turn, place) in [0, n * columns / 2, n * columns - 1].into_iter().enumerate() {
                    let mut sample = Sample::new(stored, Kind::Smooth, n, columns);
                    let value = bad[(turn + n) % 4];
                    sample.rows[place / columns][place % columns] = value;
                    let what = format!("{value} at {place} of {n} x {columns} {stored:?} on {gpu:?}");
                    for combiner in &mut combiners {
                        assert_eq!(combiner.run(&sample).1.largest, f32::INFINITY, "{what}");
                        assert!(combiner.run(&sound).1.largest <= 0.5, "{what}");
                    }
                    // Pairs of many rows would take long.
                    if n <= 65 {
                        sample.fill(&mut slot);
                        assert_eq!(slot.pairs(&pairs, None).unwrap().largest, f32::INFINITY, "{what}");
                    }
                }
            }
        }
    }
}

/// More workgroups of 64 columns than fit one dimension.
#[test]
fn four_million_columns() {
    for gpu in devices(&Options::default()) {
        let columns = 65_536 * 64 + 65;
        let sample = Sample::new(Working::F32, Kind::Smooth, 2, columns);
        let mut combiner = Combiner::new(&gpu, &job(sample.shape(), Reduction::Median));
        let (merged, combined) = combiner.run(&sample);
        assert_eq!(first_other_bits(merged, &sample.median(&[0, 1])), None);
        assert_eq!(combined.largest, sample.largest(&[0, 1]));
    }
}

/// The same for kernels in which a workgroup bisects eight columns.
#[test]
fn half_a_million_columns_of_many_rows() {
    for gpu in devices(&Options { subgroups: false, ..Options::default() }) {
        let columns = 65_536 * 8 + 9;
        let row = Sample::new(Working::BF16, Kind::Smooth, 1, columns).rows.remove(0);
        let mut sample = Sample::new(Working::BF16, Kind::AllEqual, 65, 1);
        // Few distinct rows, each many times: the median is that of three.
        let negated: Vec<f32> = row.iter().map(|x| -x).collect();
        let half: Vec<f32> = row.iter().map(|x| x / 2.0).collect();
        sample.rows = (0..65).map(|i| [&row, &negated, &half][i % 3].clone()).collect();
        sample.columns = columns;
        let mut combiner = Combiner::new(&gpu, &job(sample.shape(), Reduction::Median));
        let (merged, _) = combiner.run(&sample);
        let want: Vec<f64> = half.iter().map(|x| f64::from(*x)).collect();
        assert_eq!(first_other_bits(merged, &want), None);
    }
}

/// A tile may fill a binding. A larger one is refused with a message that says what is too large.
#[test]
fn small_bindings() {
    for gpu in devices(&Options { binding_bytes: Some(1 << 20), ..Options::default() }) {
        for stored in STORED {
            let columns = (1 << 20) / (4 * stored.bytes());
            let fits = Sample::new(stored, Kind::Smooth, 4, columns);
            let mut combiner = Combiner::new(&gpu, &job(fits.shape(), Reduction::Median));
            let (merged, _) = combiner.run(&fits);
            assert_eq!(first_other_bits(merged, &fits.median(&[0, 1, 2, 3])), None);
            assert!(
                refusal(&gpu, stored, columns + 4, Reduction::TrimmedMean { cut: 1 }).contains("`input`")
            );
        }
        // Two middle values of a column take the memory of two rows.
        assert!(refusal(&gpu, Working::F32, (1 << 17) + 4, Reduction::Median).contains("`output`"));
        assert!(chunks_too_large(&gpu).contains("`scratch`"));
    }
}

/// The reason for which a tile of four rows is refused.
fn refusal(gpu: &Gpu, stored: Working, columns: usize, reduction: Reduction) -> String {
    let sample = Sample::new(stored, Kind::AllEqual, 4, columns);
    let program = CombineProgram::new(gpu, &job(sample.shape(), reduction)).unwrap();
    let filled = RingSlot::for_combine(gpu, &program).and_then(|mut slot| sample.try_fill(&mut slot));
    match filled {
        Err(GpuError::OutOfMemory { bytes, why, .. }) if bytes > 1 << 20 => why,
        other => panic!("{other:?}"),
    }
}

/// The reason for which a panel of many points is refused.
fn chunks_too_large(gpu: &Gpu) -> String {
    let shape = TileShape { rows: 2, stored: Working::F32, references: 0, columns: 100_000 };
    let program = PairsProgram::new(gpu, &pairs_job(shape)).unwrap();
    match RingSlot::for_pairs(gpu, &program).map(|_| ()) {
        Err(GpuError::OutOfMemory { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

/// More rows than the kernels can sort are refused, and the message has the numbers.
#[test]
fn too_many_rows_to_order() {
    for gpu in devices(&Options::default()) {
        let shape = TileShape { rows: 10_241, stored: Working::F32, references: 0, columns: 1 };
        for job in &jobs(shape)[1..4] {
            let refused = CombineProgram::new(&gpu, job).map(|_| ()).unwrap_err();
            assert!(matches!(refused, GpuError::TooMany { found: 10_241, most: 10_240, .. }), "{refused}");
        }
        assert!(CombineProgram::new(&gpu, &jobs(shape)[0]).is_ok(), "sums may have any number of rows");
    }
}

/// One tile gives the same bits ten times, in one slot and in several.
#[test]
fn reruns_give_the_same_bits() {
    for options in ways() {
        for gpu in devices(&options) {
            for n in [9, 70, 400] {
                let sample = Sample::new(Working::F32, Kind::Smooth, n, 300);
                for job in jobs(sample.shape()) {
                    let first = Combiner::new(&gpu, &job).run(&sample).0.to_vec();
                    let mut combiner = Combiner::new(&gpu, &job);
                    for _ in 0..9 {
                        assert_eq!(first_other_bits(combiner.run(&sample).0, &first), None, "{job:?}");
                    }
                }
                let program = PairsProgram::new(&gpu, &pairs_job(sample.shape())).unwrap();
                let mut slot = RingSlot::for_pairs(&gpu, &program).unwrap();
                let mut runs = (0..if n > 100 { 2 } else { 10 }).map(|_| {
                    sample.fill(&mut slot);
                    slot.pairs(&program, None).unwrap()
                });
                let first = runs.next().unwrap();
                let upper = |sums: &[f64], points: usize| -> Vec<u64> {
                    let upper = (0..sums.len()).filter(|k| k / points <= k % points);
                    upper.map(|k| sums[k].to_bits()).collect()
                };
                for run in runs {
                    assert_eq!(upper(&run.products, n + 2), upper(&first.products, n + 2));
                    assert_eq!(upper(&run.squares, n), upper(&first.squares, n));
                }
            }
        }
    }
}

/// Subgroups and checks change no bits, except in sums that are added in another order.
#[test]
fn ways_agree() {
    for n in [9, 70, 400] {
        let sample = Sample::new(Working::F32, Kind::Smooth, n, 300);
        for job in jobs(sample.shape()) {
            let mut results: Vec<Vec<f64>> = Vec::new();
            for options in ways() {
                for gpu in devices(&options) {
                    results.push(Combiner::new(&gpu, &job).run(&sample).0.to_vec());
                }
            }
            let Some(first) = results.first() else { return };
            let want: Vec<(f64, f64)> = first.iter().map(|x| (*x, 1e-6)).collect();
            for result in &results {
                assert_eq!(first_wrong(result, &want), None, "{job:?}");
                if job.reduction == Reduction::Median && job.mixing.is_none() {
                    assert_eq!(first_other_bits(result, first), None);
                }
            }
        }
    }
}

/// A tile that stays on the device gives the result that it gave when it was uploaded, even after other tiles.
#[test]
fn kept_tiles() {
    for gpu in devices(&Options::default()) {
        let sample = Sample::new(Working::F16, Kind::Smooth, 7, 257).with_references(1);
        let other = Sample::new(Working::F16, Kind::Ties, 7, 100).with_references(1);
        let mut combiner = Combiner::new(&gpu, &job(sample.shape(), Reduction::Median));
        let first = combiner.run(&sample).0.to_vec();
        let kept = combiner.slot.keep().unwrap();
        assert_eq!(kept.tile().columns, 257);
        combiner.run(&other);
        let mut again = Vec::new();
        combiner.slot.combine(&combiner.program, Some(&kept), &mut again).unwrap();
        assert_eq!(first_other_bits(&again, &first), None);
    }
}
