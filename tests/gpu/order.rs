//! Order statistics: exact medians; otherwise an exact choice of values, and sums within bounds.

use super::sample::{ADDED, Kind, Random, STORED, Sample};
use super::{Combiner, FLUSHED, UNIT, devices, first_other_bits, first_wrong, job, ways};
use crate::reference::nearest::{nearest_to_median, sign_of_sum};
use fedmill::gpu::Gpu;
use fedmill::gpu::job::{Options, Reduction, TileShape};
use fedmill::model::dtype::Working;

/// Column counts around a workgroup of every kernel, the largest first.
const COLUMNS: [usize; 9] = [1031, 1, 63, 64, 65, 127, 255, 256, 257];
/// Row counts on both sides of every network.
const FEW: [usize; 26] =
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 16, 17, 20, 21, 24, 28, 31, 32, 33, 40, 47, 48, 56, 63, 64];
/// Row counts around the number of rows that a lane holds, with and without subgroups.
const MANY: [usize; 13] = [65, 96, 100, 128, 129, 256, 300, 320, 321, 1000, 1280, 1281, 2000];

/// Values of a tile: few enough that the whole suite takes seconds on a software adapter.
const MOST_VALUES: usize = 60_000;

/// The number of roundings of a kept value, as the shaders state it. It is 64 in the registers of an invocation. For
/// many rows it is the rows of a lane, the depth of the tree over lanes, and five.
fn roundings(gpu: &Gpu, rows: usize) -> f64 {
    if rows <= 64 {
        return 64.0;
    }
    let (least, most) = gpu.adapter().subgroup;
    let subgroup = (gpu.options().subgroups && least == most && (4..=64).contains(&least)).then_some(least);
    let mut lanes = subgroup.into_iter().chain([32, 256]).map(|lanes| lanes as usize);
    let lanes = lanes.find(|lanes| rows <= 40 * lanes).unwrap();
    // KEYS is this number or slightly more. A lane never adds the values after its last row.
    rows.div_ceil(lanes) as f64 + f64::from(lanes.ilog2()) + 5.0
}

/// The mean of the kept values of a column, and its bound.
fn expected(reduction: Reduction, column: &[f64], roundings: f64) -> (f64, f64) {
    let kept = match reduction {
        Reduction::TrimmedMean { cut } => {
            let mut sorted = column.to_vec();
            sorted.sort_by(f64::total_cmp);
            sorted[cut..column.len() - cut].to_vec()
        }
        Reduction::MeanNearMedian { kept } => nearest_to_median(column, kept),
        Reduction::WeightedSum | Reduction::Median => panic!("{reduction:?} has another bound"),
    };
    let count = kept.len() as f64;
    let magnitude: f64 = kept.iter().map(|x| x.abs()).sum();
    let bound = roundings * UNIT * magnitude / count + FLUSHED;
    (kept.iter().sum::<f64>() / count, bound)
}

/// Fails unless a run on the chosen rows gives the expected values.
fn check(
    gpu: &Gpu,
    combiner: &mut Combiner,
    sample: &Sample,
    chosen: &[u32],
    reduction: Reduction,
    what: &str,
) {
    let (merged, combined) = combiner.run(sample);
    let wrong = match reduction {
        Reduction::Median => first_other_bits(merged, &sample.median(chosen)),
        _ => {
            let roundings = roundings(gpu, chosen.len());
            let want: Vec<(f64, f64)> = (0..sample.columns)
                .map(|j| expected(reduction, &sample.column(chosen, j), roundings))
                .collect();
            first_wrong(merged, &want)
        }
    };
    assert_eq!(wrong, None, "{what}");
    assert_eq!(combined.largest, sample.largest(chosen), "the largest magnitude: {what}");
}

/// The statistics to try on this number of rows.
fn reductions(n: usize) -> Vec<Reduction> {
    let cuts = [0, 1, n / 5, (n - 1) / 2].into_iter().filter(|cut| 2 * cut < n);
    let kept = [1, n / 3 + 1, n / 2 + 1, n].into_iter();
    let mut all = vec![Reduction::Median];
    all.extend(cuts.map(|cut| Reduction::TrimmedMean { cut }));
    all.extend(kept.map(|kept| Reduction::MeanNearMedian { kept }));
    all.dedup();
    all
}

/// Tests a number of rows: every statistic on a few widths and kinds of values, which depend on the number.
fn check_rows(gpu: &Gpu, stored: Working, n: usize, turns: usize) {
    let columns = COLUMNS.map(|columns| columns.min((MOST_VALUES / n).max(1)));
    let shape = TileShape { rows: n, stored, references: 0, columns: columns[0] };
    let all: Vec<u32> = (0..n as u32).collect();
    for (place, reduction) in reductions(n).into_iter().enumerate() {
        let mut combiner = Combiner::new(gpu, &job(shape, reduction));
        for turn in 0..turns {
            let number = n + place + turn;
            let kind = match reduction {
                Reduction::Median if number % 7 == 6 => Kind::Extremes,
                _ => ADDED[number % ADDED.len()],
            };
            let columns = columns[number % columns.len()];
            let what = format!("{reduction:?} of {n} x {columns} {stored:?} {kind:?} on {gpu:?}");
            check(gpu, &mut combiner, &Sample::new(stored, kind, n, columns), &all, reduction, &what);
        }
    }
}

#[test]
fn few_rows() {
    for gpu in devices(&Options::default()) {
        FEW.into_iter().for_each(|n| check_rows(&gpu, Working::F32, n, 4));
    }
}

#[test]
fn few_narrow_rows() {
    for gpu in devices(&Options::default()) {
        for stored in [Working::BF16, Working::F16] {
            [1, 2, 3, 8, 11, 17, 33].into_iter().for_each(|n| check_rows(&gpu, stored, n, 6));
        }
    }
}

#[test]
fn many_rows() {
    for gpu in devices(&Options::default()) {
        MANY.into_iter().for_each(|n| check_rows(&gpu, Working::F32, n, 2));
    }
}

#[test]
fn many_rows_without_subgroups() {
    for gpu in devices(&Options { subgroups: false, ..Options::default() }) {
        MANY.into_iter().for_each(|n| check_rows(&gpu, Working::F32, n, 2));
    }
}

#[test]
fn many_narrow_rows() {
    for options in ways() {
        for gpu in devices(&options) {
            for stored in [Working::BF16, Working::F16] {
                [65, 130, 321].into_iter().for_each(|n| check_rows(&gpu, stored, n, 6));
            }
        }
    }
}

#[test]
fn rows_with_checks() {
    for gpu in devices(&Options { checked: true, ..Options::default() }) {
        [1, 2, 5, 16, 31, 65, 257, 1281].into_iter().for_each(|n| check_rows(&gpu, Working::F32, n, 2));
    }
}

#[test]
fn ten_thousand_rows() {
    for gpu in devices(&Options::default()) {
        check_rows(&gpu, Working::F32, 10_240, 1);
    }
}

/// The rows of a subset, in an order other than that of the tile.
#[test]
fn some_rows() {
    for gpu in devices(&Options::default()) {
        for (n, step) in [(9, 2), (70, 3), (200, 7), (400, 11)] {
            let chosen: Vec<u32> = (0..n).map(|i| i * step % n).filter(|i| i % 5 != 1).collect();
            for stored in STORED {
                let sample = Sample::new(stored, Kind::Smooth, n as usize, 65);
                let kept = chosen.len() / 2;
                for reduction in
                    [Reduction::Median, Reduction::TrimmedMean { cut: 2 }, Reduction::MeanNearMedian { kept }]
                {
                    let mut job = job(sample.shape(), reduction);
                    job.chosen = chosen.clone();
                    let what = format!("{reduction:?} of some of {n} {stored:?} on {gpu:?}");
                    check(&gpu, &mut Combiner::new(&gpu, &job), &sample, &chosen, reduction, &what);
                }
            }
        }
    }
}

/// Two middle values, and two ends that are equally or almost equally far from their midpoint.
type Tie = ([f32; 2], f32, f32);

/// Ties, and near ties that f32, and in some cases f64, would decide wrongly.
fn ties() -> Vec<Tie> {
    let (tiny, step) = (f32::from_bits(1), f32::EPSILON);
    let mut ties = vec![([1.0, 1e30], 0.0, 1e30), ([1e-30, 1.0], -1e30, 1e30)];
    let mut around = |middle: [f32; 2], far: f32| {
        let others =
            [far, far.next_up(), far.next_down(), far * (1.0 + 9.0 * step), far * (1.0 - 9.0 * step)];
        ties.extend(others.map(|high| (middle, -far, high)));
    };
    for middle in
        [[0.0, 0.0], [tiny, tiny], [0.0, tiny], [1.0, 1.0], [1.0, 1.0 + step], [-0.0, 0.0], [-1.0, 1.0]]
    {
        [16.0, 16.0 + 16.0 * step, 1e20, 1e30, 3e37].into_iter().for_each(|far| around(middle, far));
    }
    for middle in [[0.0, 0.0], [0.0, tiny], [tiny, tiny], [-tiny, 0.0], [1e-38, 1e-38]] {
        [1e-36, 1e-32, 5e-31, 2e-30, 1e-20].into_iter().for_each(|far| around(middle, far));
    }
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut below = |most: u64| (random.next() >> 20) % most;
    for _ in 0..300 {
        let scale = 2.0f32.powi(below(180) as i32 - 120);
        let mut value = || (below(1 << 24) as f32 / (1 << 23) as f32 - 1.0) * scale;
        let (a, b) = (value(), value());
        let far = scale * 2.0f32.powi(below(36) as i32 - 4);
        let (a, b) = (a.min(b), a.max(b));
        let bits = (b + far).to_bits() + below(7) as u32 - 3;
        ties.push(([a, b], a - far, f32::from_bits(bits).max(b)));
    }
    ties
}

/// All values but one are kept. The sum shows clearly which end was left out.
#[test]
fn near_ties_are_decided_exactly() {
    let ties = ties();
    for n in [4, 7, 16, 33, 66, 67, 400] {
        let mut sample = Sample::new(Working::F32, Kind::AllEqual, n, ties.len());
        for (i, row) in sample.rows.iter_mut().enumerate() {
            let value = |(middle, low, high): &Tie| match i {
                0 => *low,
                1 => *high,
                _ => middle[i % 2],
            };
            *row = ties.iter().map(value).collect();
        }
        let all: Vec<u32> = (0..n as u32).collect();
        let reduction = Reduction::MeanNearMedian { kept: n - 1 };
        for options in ways() {
            for gpu in devices(&options) {
                let mut combiner = Combiner::new(&gpu, &job(sample.shape(), reduction));
                check(&gpu, &mut combiner, &sample, &all, reduction, &format!("{n} rows on {gpu:?}"));
            }
        }
    }
}

/// Most of the random ties are near ones, and they are decided either way.
#[test]
fn ties_are_near() {
    let mut found = [0; 3];
    for ([a, b], low, high) in ties() {
        let terms = [a, b, -low, -high].map(f64::from);
        found[(sign_of_sum(&terms) as i8 + 1) as usize] += 1;
    }
    assert!(found.iter().all(|count| *count > 30), "{found:?}");
}

/// The negative control: the check notices every other statistic, even with a cut that differs by one.
#[test]
fn wrong_statistics_are_noticed() {
    for gpu in devices(&Options::default()) {
        for n in [9, 70] {
            let sample = Sample::new(Working::F32, Kind::Smooth, n, 65);
            let all: Vec<u32> = (0..n as u32).collect();
            let wrong = |got: &[f64], reduction| {
                let roundings = roundings(&gpu, n);
                let want: Vec<(f64, f64)> =
                    (0..65).map(|j| expected(reduction, &sample.column(&all, j), roundings)).collect();
                first_wrong(got, &want).is_some()
            };
            let trimmed = |cut| Reduction::TrimmedMean { cut };
            let mut combiner = Combiner::new(&gpu, &job(sample.shape(), trimmed(2)));
            let (merged, _) = combiner.run(&sample);
            assert!(!wrong(merged, trimmed(2)) && wrong(merged, trimmed(1)) && wrong(merged, trimmed(3)));
            let near = |kept| Reduction::MeanNearMedian { kept };
            let mut combiner = Combiner::new(&gpu, &job(sample.shape(), near(5)));
            let (merged, _) = combiner.run(&sample);
            assert!(!wrong(merged, near(5)) && wrong(merged, near(4)) && wrong(merged, near(6)));
            let mut combiner = Combiner::new(&gpu, &job(sample.shape(), Reduction::Median));
            let mut median = combiner.run(&sample).0.to_vec();
            assert_eq!(first_other_bits(&median, &sample.median(&all)), None);
            median[64] = median[64].next_up();
            assert!(first_other_bits(&median, &sample.median(&all)).is_some());
        }
    }
}
