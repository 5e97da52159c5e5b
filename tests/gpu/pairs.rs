//! Sums over pairs of points: products, squared differences, signs.

use super::sample::{Kind, STORED, Sample};
use super::{FLUSHED, UNIT, devices, first_wrong, ways};
use fedmill::gpu::job::{Options, PAIRS_RELATIVE_ERROR, PairSums, PairsJob};
use fedmill::gpu::{Gpu, PairsProgram, RingSlot};
use fedmill::model::dtype::Working;

/// A job with all results.
fn job(sample: &Sample) -> PairsJob {
    let references = sample.references.len();
    PairsJob {
        shape: sample.shape(),
        mixing: None,
        origin_is_base: references > 0,
        with_median: true,
        with_centre: references > 1,
        differences: true,
        signs: Some((0..sample.rows.len()).map(|i| references > 0 && i % 3 != 1).collect()),
    }
}

fn run(gpu: &Gpu, job: &PairsJob, sample: &Sample) -> PairSums {
    let program = PairsProgram::new(gpu, job).unwrap();
    let mut slot = RingSlot::for_pairs(gpu, &program).unwrap();
    sample.fill(&mut slot);
    slot.pairs(&program, None).unwrap()
}

/// The points as a device centres them, in f32: rows, zero delta, median, centre.
fn panel(sample: &Sample, job: &PairsJob) -> Vec<Vec<f32>> {
    let (n, columns) = (sample.rows.len(), sample.columns);
    let origin = |j: usize| if job.origin_is_base { sample.references[0][j] } else { 0.0 };
    let mut points = sample.rows.clone();
    points.push((0..columns).map(origin).collect());
    let middle = |j: usize| {
        let mut column: Vec<f32> = sample.rows.iter().map(|row| row[j]).collect();
        column.sort_by(f32::total_cmp);
        (column[(n - 1) / 2], column[n / 2])
    };
    let middles: Vec<(f32, f32)> = (0..columns).map(middle).collect();
    if job.with_median {
        points.push(middles.iter().map(|(lower, upper)| lower * 0.5 + upper * 0.5).collect());
    }
    if job.with_centre {
        let centre = sample.references.last().unwrap();
        points.push((0..columns).map(|j| origin(j) + centre[j]).collect());
    }
    for point in &mut points {
        point.iter_mut().zip(&middles).for_each(|(x, (lower, _))| *x -= lower);
    }
    points
}

/// Sums over all columns of a term of two points, in the upper triangle. Any value is right below it.
fn sums(points: &[Vec<f32>], term: impl Fn(f64, f64) -> f64) -> Vec<(f64, f64)> {
    let mut all = Vec::new();
    for (i, a) in points.iter().enumerate() {
        for (j, b) in points.iter().enumerate() {
            let terms = a.iter().zip(b).map(|(a, b)| term(f64::from(*a), f64::from(*b)));
            let (sum, magnitude) = terms.fold((0.0, 0.0), |(sum, of), x| (sum + x, of + f64::abs(x)));
            let flushed = FLUSHED * a.len() as f64;
            let bound = if i <= j { PAIRS_RELATIVE_ERROR * magnitude + flushed } else { f64::INFINITY };
            all.push((sum, bound));
        }
    }
    all
}

/// The difference between the numbers of positive and negative deltas, added up over all columns.
fn signs(sample: &Sample, less_base: &[bool]) -> u64 {
    let sign = |i: usize, j: usize| {
        let zero = if less_base[i] { sample.references[0][j] } else { 0.0 };
        let x = sample.rows[i][j];
        i64::from(x > zero) - i64::from(x < zero)
    };
    let of_column = |j: usize| (0..sample.rows.len()).map(|i| sign(i, j)).sum::<i64>().unsigned_abs();
    (0..sample.columns).map(of_column).sum()
}

/// The upper triangle of `got`, with zeros below it, where kernels write nothing of meaning.
fn upper(got: &[f64], points: usize) -> Vec<f64> {
    let place = |k: usize| if k / points <= k % points { got[k] } else { 0.0 };
    (0..got.len()).map(place).collect()
}

/// The first difference from the expected results.
fn wrong(found: &PairSums, sample: &Sample, job: &PairsJob) -> Option<String> {
    let points = panel(sample, job);
    let n = sample.rows.len();
    let products = sums(&points, |a, b| a * b);
    let squares = sums(&points[..n], |a, b| (a - b) * (a - b));
    let largest_of = |point: &Vec<f32>| {
        let largest = f64::from(point.iter().fold(0.0f32, |most, x| most.max(x.abs())));
        (largest, 2.0 * UNIT * largest + FLUSHED)
    };
    let largest: Vec<(f64, f64)> = points.iter().map(largest_of).collect();
    let got_largest: Vec<f64> = found.largest_of_point.iter().map(|x| f64::from(*x)).collect();
    let all: Vec<u32> = (0..n as u32).collect();
    first_wrong(&upper(&found.products, points.len()), &products)
        .map(|wrong| format!("products: {wrong}"))
        .or_else(|| first_wrong(&upper(&found.squares, n), &squares).map(|wrong| format!("squares: {wrong}")))
        .or_else(|| first_wrong(&got_largest, &largest).map(|wrong| format!("points: {wrong}")))
        .or_else(|| (found.largest != sample.largest(&all)).then(|| format!("largest: {}", found.largest)))
        .or_else(|| {
            let want = signs(sample, job.signs.as_ref()?);
            (found.signs != want).then(|| format!("signs: {}, expected {want}", found.signs))
        })
}

fn check(gpu: &Gpu, sample: &Sample, what: &str) {
    let job = job(sample);
    let found = run(gpu, &job, sample);
    let (n, columns, stored) = (sample.rows.len(), sample.columns, sample.stored);
    let references = sample.references.len();
    assert_eq!(
        wrong(&found, sample, &job),
        None,
        "{what} {n} x {columns} {stored:?}, {references} references, on {gpu:?}"
    );
}

#[test]
fn every_number_of_points() {
    for gpu in devices(&Options::default()) {
        for (place, n) in
            [1, 2, 3, 7, 8, 13, 14, 15, 16, 29, 30, 31, 33, 61, 62, 63, 64, 65, 130].into_iter().enumerate()
        {
            let columns = [1, 63, 64, 65, 257, 1031][place % 6];
            let kind = [Kind::Smooth, Kind::Ties, Kind::AllEqual, Kind::SignedZeros][place % 4];
            check(&gpu, &Sample::new(Working::F32, kind, n, columns).with_references(place % 3), "");
        }
    }
}

/// Numbers of columns around a chunk of every square, and of every dtype.
#[test]
fn every_number_of_columns() {
    for gpu in devices(&Options::default()) {
        for (n, columns) in [(3, 16_383), (3, 16_385), (20, 4097), (50, 1023), (50, 1025), (4, 50_001)] {
            for (references, stored) in STORED.into_iter().enumerate() {
                let sample = Sample::new(stored, Kind::Smooth, n, columns).with_references(references);
                check(&gpu, &sample, "");
            }
        }
    }
}

#[test]
fn with_checks_and_without_subgroups() {
    for options in ways() {
        for gpu in devices(&options) {
            for n in [2, 20, 40, 70] {
                check(&gpu, &Sample::new(Working::F32, Kind::Smooth, n, 300).with_references(2), "");
            }
        }
    }
}

/// Mixtures are points; the signs are those of the updates as sent.
#[test]
fn mixtures_are_points() {
    for gpu in devices(&Options::default()) {
        for n in [4, 70] {
            let sample = Sample::new(Working::BF16, Kind::Smooth, n, 300).with_references(1);
            let mut job = job(&sample);
            let unit = |m: usize| (0..=n).map(|i| f64::from(m == i)).collect();
            job.mixing = Some((0..n).map(unit).collect());
            let found = run(&gpu, &job, &sample);
            assert_eq!(wrong(&found, &sample, &job), None, "{n} on {gpu:?}");
        }
    }
}

/// The device reports only the requested results.
#[test]
fn fewer_points() {
    for gpu in devices(&Options::default()) {
        let sample = Sample::new(Working::F32, Kind::Smooth, 9, 100).with_references(1);
        let job = PairsJob {
            origin_is_base: false,
            with_median: false,
            differences: false,
            signs: None,
            ..job(&sample)
        };
        let found = run(&gpu, &job, &sample);
        let points = panel(&sample, &job);
        assert_eq!(first_wrong(&upper(&found.products, 10), &sums(&points, |a, b| a * b)), None);
        assert!(found.squares.is_empty() && found.signs == 0);
    }
}

/// The negative control: the check notices a sum that is off by more than its bound, a sign, and a magnitude.
#[test]
fn wrong_pairs_are_noticed() {
    for gpu in devices(&Options::default()) {
        let sample = Sample::new(Working::F32, Kind::Smooth, 9, 300).with_references(2);
        let job = job(&sample);
        let right = run(&gpu, &job, &sample);
        assert_eq!(wrong(&right, &sample, &job), None);
        let off = 1.0 + 2.5 * PAIRS_RELATIVE_ERROR;
        let spoil: [fn(&mut PairSums, f64); 6] = [
            |sums, off| sums.products[13] *= off,
            |sums, off| sums.squares[1] *= off,
            |sums, _| sums.largest_of_point[3] *= 1.00001,
            |sums, _| sums.largest = sums.largest.next_up(),
            |sums, _| sums.signs += 1,
            |sums, _| sums.products[0] = f64::NAN,
        ];
        for spoil in spoil {
            let mut spoiled = right.clone();
            spoil(&mut spoiled, off);
            assert!(wrong(&spoiled, &sample, &job).is_some());
        }
    }
}
