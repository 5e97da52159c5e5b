//! The answers of helpers: combined by interpolation at zero, and held against each other.
//!
//! All true answers lie on one polynomial of degree t - 1 in every lane. With more than t answers a wrong one is detected,
//! and with t + 2 the largest set of answers that agree names it: t + 1 of them share a polynomial with no wrong answer.

use crate::engine::passes::machine::Machine;
use crate::io::interrupt;
use crate::kernels::field::{P, add_multiple, all_below, subtract};
use crate::kernels::lanes::Isa;
use crate::modes::secure::folder::SessionFolder;
use crate::modes::secure::keys::sharing::{factors, subsets};
use crate::modes::secure::manifest::Manifest;
use crate::modes::secure::mask_stream::add_multiples;
use crate::modes::secure::set::FrozenSet;
use crate::modes::secure::unmask::Transcript;
use crate::parties::error::SecureError;
use crate::parties::fault::MessageFault;
use crate::parties::identity::Stage;
use crate::parties::signed_lanes::{LanesFile, LanesReader};
use rayon::prelude::*;

/// Lanes that are combined at once.
const LANES_AT_ONCE: usize = 1 << 18;

/// The answer of one helper.
pub struct Answer {
    /// The number of the helper.
    pub number: usize,
    /// Its id.
    pub helper: String,
    /// Its file.
    pub file: LanesFile,
}

/// The answers of a session that count.
pub struct Answers {
    /// Answers that agree with each other.
    pub sound: Vec<Answer>,
    /// Helpers whose answers are wrong.
    pub wrong: Vec<String>,
}

impl Answers {
    /// Reads the answers of a session over its frozen set, and finds those that agree.
    ///
    /// # Errors
    ///
    /// When there are too few, or they contradict each other and none can be named as wrong.
    pub fn read(
        folder: &SessionFolder,
        manifest: &Manifest,
        frozen: &FrozenSet,
        machine: &Machine,
    ) -> Result<Self, SecureError> {
        let all = open_all(folder, manifest, frozen, machine)?;
        let threshold = manifest.committee.threshold();
        if all.len() < threshold {
            let why =
                format!("{} answers of helpers over this set, expected at least {threshold}", all.len());
            return Err(SecureError::refused(
                why,
                Some("wait for more helpers: each runs `fedmill secagg help`"),
            ));
        }
        if all.len() == threshold {
            tracing::warn!("{threshold} answers suffice, and with no more a wrong one is not detected");
            return Ok(Self { sound: all, wrong: Vec::new() });
        }
        let first: Vec<usize> = (0..threshold).collect();
        if agreeing(&all, std::slice::from_ref(&first), machine)?[0].len() == all.len() {
            return Ok(Self { sound: all, wrong: Vec::new() });
        }
        largest_agreement(all, threshold, machine)
    }

    /// Leaves out answers that a transcript does not list: they came after it.
    pub fn only_of(&mut self, transcript: &Transcript) {
        self.sound.retain(|answer| transcript.answers.contains_key(&answer.helper));
        self.wrong.retain(|helper| transcript.wrong.contains(helper));
    }

    /// The sum of the masks of a group at some lanes.
    ///
    /// # Errors
    ///
    /// When an answer cannot be read, or the GPU fails.
    pub fn masks(
        &self,
        machine: &Machine,
        threshold: usize,
        first: usize,
        sums: &mut [u32],
    ) -> Result<(), SecureError> {
        let answers = &self.sound[..threshold];
        let points: Vec<usize> = answers.iter().map(|answer| answer.number).collect();
        let rows = machine.pool.install(|| read_rows(answers, first, sums.len()))?;
        let rows: Vec<(u32, &[u32])> = factors(&points, 0)
            .into_iter()
            .zip(&rows)
            .map(|(factor, row)| (factor, row.as_slice()))
            .collect();
        sums.fill(0);
        Ok(add_multiples(machine, &rows, sums)?)
    }
}

/// The files of all helpers that are sound, with lanes that have their digest. Others do not count.
fn open_all(
    folder: &SessionFolder,
    manifest: &Manifest,
    frozen: &FrozenSet,
    machine: &Machine,
) -> Result<Vec<Answer>, SecureError> {
    let reader = LanesReader::default();
    let mut answers = Vec::new();
    for (number, helper) in (1..).zip(&manifest.terms.helpers) {
        interrupt::check()?;
        let path = folder.answer(&helper.id);
        if !crate::io::folder::exists(&path) {
            continue;
        }
        let statement = manifest.statement(Stage::Help, &helper.id, Some(frozen.digest));
        let opened = reader.open(&path, &statement, manifest.sums_shape(), &helper.ed25519);
        match opened.and_then(|file| machine.pool.install(|| audit(&file, machine.isa)).map(|()| file)) {
            Ok(file) => answers.push(Answer { number, helper: helper.id.clone(), file }),
            Err(fault) => tracing::warn!("{}: {fault}: the answer does not count", path.display()),
        }
    }
    Ok(answers)
}

/// Checks that lanes have their digest and are in the field. All threads of the current pool share the work.
///
/// # Errors
///
/// When they do not, or cannot be read.
pub fn audit(file: &LanesFile, isa: Isa) -> Result<(), MessageFault> {
    let all = file.shape().rows * file.shape().lanes;
    let mut audit = file.audit();
    let mut lanes = vec![0; LANES_AT_ONCE.min(all)];
    for first in (0..all).step_by(LANES_AT_ONCE) {
        let lanes = &mut lanes[..LANES_AT_ONCE.min(all - first)];
        file.read(first, lanes)?;
        audit.add_shared(lanes);
        if !all_below(isa, lanes) {
            let place = lanes.iter().position(|lane| *lane >= P).unwrap_or(0);
            return Err(MessageFault::OutsideField { lane: (first + place) as u64, found: lanes[place] });
        }
    }
    audit.end(file)
}

/// For each choice of answers, by place, the places of all answers on the polynomial through them.
fn agreeing(
    all: &[Answer],
    choices: &[Vec<usize>],
    machine: &Machine,
) -> Result<Vec<Vec<usize>>, SecureError> {
    let lanes = all.first().map_or(0, |answer| answer.file.shape().rows * answer.file.shape().lanes);
    let starts: Vec<usize> = (0..lanes).step_by(LANES_AT_ONCE).collect();
    let everything = || choices.iter().map(|_| vec![true; all.len()]).collect::<Vec<_>>();
    let of_part = |first: &usize| {
        interrupt::check()?;
        let rows = read_rows(all, *first, LANES_AT_ONCE.min(lanes - first))?;
        Ok::<_, SecureError>(
            choices.iter().map(|chosen| on_polynomial(machine.isa, all, &rows, chosen)).collect(),
        )
    };
    let both = |mut one: Vec<Vec<bool>>, other: Vec<Vec<bool>>| {
        for (one, other) in one.iter_mut().zip(other) {
            one.iter_mut().zip(other).for_each(|(one, other)| *one &= other);
        }
        Ok(one)
    };
    let agree = machine.pool.install(|| starts.par_iter().map(of_part).try_reduce(everything, both))?;
    let places = |agree: Vec<bool>| (0..agree.len()).filter(|place| agree[*place]).collect();
    Ok(agree.into_iter().map(places).collect())
}

fn read_rows(all: &[Answer], first: usize, len: usize) -> Result<Vec<Vec<u32>>, SecureError> {
    let row = |answer: &Answer| {
        let mut row = vec![0; len];
        answer.file.read(first, &mut row).map_err(SecureError::file(answer.file.path()))?;
        Ok(row)
    };
    all.par_iter().map(row).collect()
}

/// Which rows lie on the polynomial through the chosen ones in every lane.
fn on_polynomial(isa: Isa, all: &[Answer], rows: &[Vec<u32>], chosen: &[usize]) -> Vec<bool> {
    let points: Vec<usize> = chosen.iter().map(|place| all[*place].number).collect();
    let lies = |place: usize| {
        if chosen.contains(&place) {
            return true;
        }
        let mut expected = vec![0; rows[place].len()];
        for (chosen, factor) in chosen.iter().zip(factors(&points, all[place].number)) {
            add_multiple(isa, factor, &rows[*chosen], &mut expected);
        }
        expected == rows[place]
    };
    (0..all.len()).map(lies).collect()
}

/// The largest set of answers that agree; the others are wrong. With more than t answers, of which some contradict, a
/// set of t is never the only largest one: every choice of t answers agrees with itself.
fn largest_agreement(all: Vec<Answer>, threshold: usize, machine: &Machine) -> Result<Answers, SecureError> {
    let places: Vec<usize> = (0..all.len()).collect();
    let agreeing = agreeing(&all, &subsets(&places, threshold), machine)?;
    let most = agreeing.iter().map(Vec::len).max().unwrap_or(0);
    let mut largest: Vec<&Vec<usize>> = agreeing.iter().filter(|agree| agree.len() == most).collect();
    largest.sort();
    largest.dedup();
    let [sound] = largest.as_slice() else {
        return Err(contradiction(&all, most, threshold));
    };
    let sound: Vec<usize> = (*sound).clone();
    let (mut kept, mut wrong) = (Vec::new(), Vec::new());
    for (place, answer) in all.into_iter().enumerate() {
        if sound.contains(&place) {
            kept.push(answer);
        } else {
            tracing::warn!(
                "{}: the answer of helper `{}` contradicts those of {most} others: it does not count",
                answer.file.path().display(),
                answer.helper
            );
            wrong.push(answer.helper);
        }
    }
    Ok(Answers { sound: kept, wrong })
}

fn contradiction(all: &[Answer], most: usize, threshold: usize) -> SecureError {
    let helpers: Vec<&str> = all.iter().map(|answer| answer.helper.as_str()).collect();
    let why = format!(
        "the answers of {} contradict each other: at most {most} agree, expected {} of them to name the wrong one",
        helpers.join(", "),
        threshold + 1
    );
    SecureError::refused(why, Some("nothing is published; wait for the answers of more helpers"))
}

/// Subtracts masks from masked sums, lane by lane, on all threads.
pub fn without_masks(masked: &mut [u32], masks: &[u32]) {
    masked.par_iter_mut().zip(masks).for_each(|(sum, mask)| *sum = subtract(*sum, *mask));
}
