//! The noise of a release, behind one type for all mechanisms.
//!
//! [`Noise::Fresh`] is new for each release. [`Noise::Tree`] and [`Noise::Row`] belong to a series of rounds with
//! correlated noise. The noise of a coordinate depends on the key, the transcript of the round and the coordinate's
//! number, so tiles may come in any order.

use crate::budget::account::Account;
use crate::budget::error::BudgetError;
use crate::budget::request::Grant;
use crate::engine::passes::machine::Machine;
use crate::io::source::SourceFile;
use crate::kernels::chacha20::Stream;
use crate::kernels::discrete_gaussian::{self, Level};
use crate::kernels::integer_sum::add_multiple;
use crate::kernels::lanes::Isa;
use crate::modes::dp::series_noise::{self, Draws, History};
use crate::modes::dp::streams::{self, SignedStream, domain};
use crate::privacy::correlated::MOST_ROUNDS;
use crate::privacy::correlated::banded::Banded;
use crate::privacy::correlated::factor::Factor;
use crate::privacy::correlated::tree::{self, Node};
use crate::privacy::key::Key;
use crate::privacy::ledger::plan::BudgetPlan;

/// The number of coordinates of a kept row that are read at a time: they fit the first-level cache.
const BLOCK_COORDINATES: usize = 1024;

/// The noise of a release.
#[derive(Debug)]
pub enum Noise {
    /// New noise for every release.
    Fresh {
        /// The key of the release.
        key: Key,
        /// The scale of the noise.
        level: Level,
    },
    /// The noise of a round, from the nodes of a tree.
    Tree {
        /// The draws of the series up to the round.
        draws: Draws,
        /// The scale of a node's noise.
        level: Level,
    },
    /// The noise of a round, in a kept row.
    Row(SourceFile),
}

/// The noise of a granted release, for `coordinates` coordinates. Computes and keeps noise that depends on earlier
/// rounds, from draws on the machine's GPU if it has one.
///
/// # Errors
///
/// When a row cannot be written, or a signal asked to stop.
pub fn of_grant(
    account: &Account,
    grant: &Grant,
    coordinates: u64,
    machine: &Machine,
) -> Result<Noise, BudgetError> {
    let (key, level) = (Key::kept(*grant.key.bytes()), grant.mechanism.level);
    let Some((correlated, round)) = account.plan().correlated.zip(grant.round) else {
        return Ok(Noise::Fresh { key, level });
    };
    let draws = Draws { key, transcripts: account.state().transcripts(round.min(MOST_ROUNDS)) };
    match correlated.factor {
        Factor::Tree => Ok(Noise::Tree { draws, level }),
        Factor::Banded { bands } => {
            let (banded, directory) = (Banded::new(bands), &account.books().directory);
            let history = History { directory, banded: &banded, draws: &draws, level, coordinates };
            Ok(Noise::Row(history.row(draws.round(), machine)?))
        }
    }
}

/// No noise on a sum is larger than this, in units of the grid.
pub(crate) fn most(plan: &BudgetPlan, level: Level) -> f64 {
    let drawn = level.largest() as f64;
    match plan.correlated.map(|correlated| correlated.factor) {
        None => drawn,
        // One node comes, and fewer than 32 go.
        Some(Factor::Tree) => 32.0 * drawn,
        // The magnitudes of the coefficients of the inverse add up to less than 2.5.
        Some(factor @ Factor::Banded { .. }) => 2.5 * drawn / factor.unit(),
    }
}

impl Noise {
    /// The streams whose noise adds up to this one, and its level; `None` for a kept row.
    pub(super) fn streams(&self) -> Option<(Level, Vec<SignedStream>)> {
        match self {
            Self::Fresh { key, level } => {
                let key = Key::kept(*key.bytes());
                let domain = domain::COORDINATES;
                Some((*level, vec![SignedStream { key, domain, segment: 0, is_negative: false }]))
            }
            Self::Tree { draws, level } => {
                let of = |node: Node, is_negative| {
                    let key = draws.of(node.comes_in());
                    let (domain, segment) = (domain::NODES + node.level, node.number);
                    SignedStream { key, domain, segment, is_negative }
                };
                let come = of(tree::comes(draws.round()), false);
                let go = tree::go(draws.round()).map(|node| of(node, true));
                Some((*level, [come].into_iter().chain(go).collect()))
            }
            Self::Row(_) => None,
        }
    }

    /// Adds the noise of the coordinates from `first` on to their sums.
    ///
    /// # Errors
    ///
    /// When a kept row cannot be read.
    pub fn add(&self, isa: Isa, first: u64, sums: &mut [i64]) -> Result<(), BudgetError> {
        if let Some((level, streams)) = self.streams() {
            streams::add(isa, level, &streams, first, sums);
        }
        if let Self::Row(row) = self {
            for (block, sums) in (0..).zip(sums.chunks_mut(BLOCK_COORDINATES)) {
                add_row(isa, row, first + block * BLOCK_COORDINATES as u64, sums)?;
            }
        }
        Ok(())
    }
}

/// The noise on the count of a release.
pub(crate) fn of_count(isa: Isa, key: &Key, level: Level) -> i64 {
    let mut noised = [0];
    let stream = Stream { key: key.bytes(), domain: domain::COUNT, segment: 0 };
    discrete_gaussian::noise(isa, stream, level, 0, &mut noised);
    noised[0]
}

fn add_row(isa: Isa, row: &SourceFile, first: u64, sums: &mut [i64]) -> Result<(), BudgetError> {
    let mut kept = [0_i32; BLOCK_COORDINATES];
    let kept = &mut kept[..sums.len()];
    let offset = series_noise::offset(first);
    row.read_exact_at(bytemuck::cast_slice_mut(kept), offset).map_err(BudgetError::at(row.path()))?;
    add_multiple(isa, kept, 1, sums);
    Ok(())
}

#[cfg(test)]
mod tests {
    // Compares noise in any portions, from any kept rows, with the definition, and measures the spread of prefix sums.

    use super::*;
    use crate::budget::directory::Directory;
    use crate::privacy::correlated::Schedule;
    use crate::privacy::correlated::error::PrefixError;
    use crate::record::sha256::Sha256;
    use crate::telemetry::progress::Progress;
    use rayon::ThreadPool;

    const COORDINATES: usize = 10_000;

    fn pool() -> ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap()
    }

    /// The draws of the rounds up to this one.
    fn draws(round: u32) -> Draws {
        let transcripts = (1..=round).map(|round| Sha256::of(round.to_string())).collect();
        Draws { key: Key::of_test_seed(1), transcripts }
    }

    /// The noise of the rounds of a series, in order.
    struct Run {
        directory: tempfile::TempDir,
        factor: Factor,
        level: Level,
        pool: ThreadPool,
    }

    impl Run {
        fn new(factor: Factor) -> Self {
            Self { directory: tempfile::tempdir().unwrap(), factor, level: Level::L3, pool: pool() }
        }

        fn noise(&self, round: u32) -> Noise {
            let Factor::Banded { bands } = self.factor else {
                return Noise::Tree { draws: draws(round), level: self.level };
            };
            let (banded, draws) = (Banded::new(bands), draws(round));
            let history = History {
                directory: &Directory::new(self.directory.path()),
                banded: &banded,
                draws: &draws,
                level: self.level,
                coordinates: COORDINATES as u64,
            };
            let progress = Progress::hidden();
            let machine = Machine::new(Isa::detect(), &self.pool, &progress);
            Noise::Row(history.row(round, &machine).unwrap())
        }

        fn row(&self, round: u32) -> Vec<i64> {
            let mut sums = vec![0; COORDINATES];
            self.noise(round).add(Isa::detect(), 0, &mut sums).unwrap();
            sums
        }

        fn kept(&self) -> Vec<String> {
            let names = std::fs::read_dir(self.directory.path()).unwrap();
            let mut names: Vec<String> =
                names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    #[test]
    fn noise_is_added_in_any_portions() {
        let runs = [Factor::Tree, Factor::Banded { bands: 3 }].map(Run::new);
        let fresh = Noise::Fresh { key: Key::of_test_seed(1), level: Level::L2 };
        for noise in [fresh, runs[0].noise(8), runs[1].noise(8)] {
            let mut whole = vec![5; 3000];
            noise.add(Isa::detect(), 7, &mut whole).unwrap();
            for isa in Isa::available() {
                let mut parts = vec![5; 3000];
                for (place, part) in parts.chunks_mut(701).enumerate() {
                    noise.add(isa, 7 + 701 * place as u64, part).unwrap();
                }
                assert_eq!(whole, parts, "{noise:?} on {isa}");
            }
            assert!(whole.iter().filter(|sum| **sum != 5).count() > 2990);
        }
    }

    /// The noise by the recurrence in i128, from the draws of each round.
    fn expected(bands: u32, rounds: u32, coordinate: u64) -> Vec<i64> {
        let (banded, draws) = (Banded::new(bands), draws(rounds));
        let mut made: Vec<i128> = Vec::new();
        for round in 1..=rounds {
            let key = draws.of(round);
            let stream = Stream { key: key.bytes(), domain: domain::ROUND, segment: round };
            let mut drawn = [0];
            discrete_gaussian::noise(Isa::detect(), stream, Level::L3, coordinate, &mut drawn);
            let earlier = banded.coefficients()[1..].iter().zip(made.iter().rev());
            let taken: i128 = earlier.map(|(c, made)| i128::from(*c) * made).sum();
            made.push((i128::from(drawn[0]) - taken + 128).div_euclid(256));
        }
        made.into_iter().map(|made| made as i64).collect()
    }

    #[test]
    fn rows_follow_the_recurrence_whatever_is_kept() {
        for bands in [1, 2, 5] {
            let run = Run::new(Factor::Banded { bands });
            let rounds: Vec<Vec<i64>> = (1..=9).map(|round| run.row(round)).collect();
            for coordinate in [0, 4095, 4096, 9999] {
                let expected = expected(bands, 9, coordinate as u64);
                let found: Vec<i64> = rounds.iter().map(|row| row[coordinate]).collect();
                assert_eq!(found, expected, "{bands} bands, coordinate {coordinate}");
            }
            // The directory keeps the last row, and those that the next row depends on.
            assert_eq!(run.kept().len(), (bands as usize - 1).max(1), "{:?}", run.kept());
            // Without kept rows, with one row lost, and with skipped rounds.
            let anew = Run::new(Factor::Banded { bands });
            assert_eq!(anew.row(4), rounds[3]);
            assert_eq!(anew.row(7), rounds[6]);
            let lost = anew.kept().pop().unwrap();
            std::fs::remove_file(anew.directory.path().join(lost)).unwrap();
            assert_eq!(anew.row(9), rounds[8]);
            assert_eq!(anew.row(2), rounds[1], "an older one again");
            assert_eq!(anew.row(9), rounds[8]);
        }
    }

    #[test]
    fn rows_are_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let run = Run::new(Factor::Banded { bands: 3 });
        run.row(3);
        for name in run.kept() {
            let mode = std::fs::metadata(run.directory.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    /// Monte Carlo: the variance of prefix sums over coordinates agrees with theory. With 10,000 coordinates its error
    /// is 1.4 % in each round, and rounds are correlated.
    #[test]
    fn prefix_sums_are_as_wide_as_theory_has_it() {
        let schedule = Schedule { rounds: 16, participations: 1, separation: 1 };
        for factor in [Factor::Tree, Factor::Banded { bands: 1 }, Factor::Banded { bands: 4 }] {
            let run = Run::new(factor);
            let mut prefix = vec![0i64; COORDINATES];
            let mut variances = Vec::new();
            for round in 1..=16 {
                prefix.iter_mut().zip(run.row(round)).for_each(|(prefix, noise)| *prefix += noise);
                let squares: f64 = prefix.iter().map(|x| (*x as f64).powi(2)).sum();
                variances.push(squares / COORDINATES as f64);
            }
            // In units of the noise multiplier times the clip bound.
            let unit = run.level.sigma() / (factor.unit() * factor.sensitivity(&schedule));
            let theory = PrefixError::of(factor, &schedule);
            let mean = (variances.iter().sum::<f64>() / 16.0).sqrt() / unit;
            let largest = variances.iter().copied().fold(0.0, f64::max).sqrt() / unit;
            assert!((mean / theory.root_mean_square - 1.0).abs() < 0.03, "{factor}: {mean}, {theory:?}");
            assert!((largest / theory.largest - 1.0).abs() < 0.04, "{factor}: {largest}, {theory:?}");
        }
    }
}
