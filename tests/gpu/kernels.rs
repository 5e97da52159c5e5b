//! Every shader against the CPU's kernel.

use super::devices;
use fedmill::gpu::job::{CombineJob, GpuError, Options, PairsJob, Reduction, TileShape};
use fedmill::gpu::{CombineProgram, Gpu, PairsProgram, Slot};
use fedmill::model::dtype::Working;

fn values(rows: usize, columns: usize) -> Vec<Vec<f32>> {
    (0..rows)
        .map(|i| {
            (0..columns)
                .map(|j| (((i * 7919 + j * 104_729 + i * j * 31) % 10_007) as f32 / 5_000.0) - 1.0)
                .collect()
        })
        .collect()
}

fn fill(slot: &mut Slot, rows: &[Vec<f32>]) {
    slot.fill::<GpuError>(rows[0].len(), |row, out| {
        out.copy_from_slice(bytemuck::cast_slice(&rows[row]));
        Ok(())
    })
    .unwrap();
}

fn combine(gpu: &Gpu, rows: &[Vec<f32>], reduction: Reduction) -> Vec<f64> {
    let (n, columns) = (rows.len(), rows[0].len());
    let shape = TileShape { rows: n, stored: Working::F32, references: 0, columns };
    let job = CombineJob {
        shape,
        chosen: (0..n as u32).collect(),
        weights: vec![1.0; n],
        mixing: None,
        reduction,
        norms: None,
    };
    let program = CombineProgram::new(gpu, &job).unwrap();
    let mut slot = Slot::for_combine(gpu, &program).unwrap();
    fill(&mut slot, rows);
    let mut merged = Vec::new();
    slot.combine(&program, None, &mut merged).unwrap();
    println!("{:?}", slot.time());
    merged
}

#[test]
fn first_light() {
    for gpu in devices(&Options::default()) {
        for n in [1, 2, 3, 5, 17, 33, 64] {
            let rows = values(n, 1000);
            let column = |j: usize| {
                let mut c: Vec<f32> = rows.iter().map(|row| row[j]).collect();
                c.sort_by(f32::total_cmp);
                c
            };
            let merged = combine(&gpu, &rows, Reduction::Median);
            for (j, got) in merged.iter().enumerate() {
                let c = column(j);
                assert_eq!(*got, (f64::from(c[(n - 1) / 2]) + f64::from(c[n / 2])) / 2.0, "n {n} column {j}");
            }
            let merged = combine(&gpu, &rows, Reduction::TrimmedMean { cut: (n - 1) / 3 });
            for (j, got) in merged.iter().enumerate() {
                let c = column(j);
                let cut = (n - 1) / 3;
                let want: f64 =
                    c[cut..n - cut].iter().map(|x| f64::from(*x)).sum::<f64>() / (n - 2 * cut) as f64;
                assert!((got - want).abs() < 1e-5, "n {n} column {j} {got} {want}");
            }
            let merged = combine(&gpu, &rows, Reduction::WeightedSum);
            for (j, got) in merged.iter().enumerate() {
                let want: f64 = column(j).iter().map(|x| f64::from(*x)).sum::<f64>();
                assert!((got - want).abs() < 1e-4, "n {n} column {j} {got} {want}");
            }
        }
    }
}

#[test]
fn first_pairs() {
    for gpu in devices(&Options::default()) {
        for n in [2, 15, 16, 31, 40, 64] {
            let rows = values(n, 3000);
            let shape = TileShape { rows: n, stored: Working::F32, references: 0, columns: 3000 };
            let job = PairsJob {
                shape,
                mixing: None,
                origin_is_base: false,
                with_median: true,
                with_centre: false,
                differences: true,
                signs: Some(vec![false; n]),
            };
            if n > 64 {
                continue;
            }
            let program = PairsProgram::new(&gpu, &job).unwrap();
            let mut slot = Slot::for_pairs(&gpu, &program).unwrap();
            fill(&mut slot, &rows);
            let sums = slot.pairs(&program, None).unwrap();
            println!("{:?}", slot.time());
            for i in 0..n {
                for j in i..n {
                    let want: f64 = rows[i].iter().zip(&rows[j]).map(|(a, b)| f64::from(a - b).powi(2)).sum();
                    let got = sums.squares[i * n + j];
                    assert!((got - want).abs() < 1e-4 * want.max(1e-9), "{n} {i} {j} {got} {want}");
                }
            }
            assert!(sums.signs > 0);
        }
    }
}
