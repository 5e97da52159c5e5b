//! Checks a budget: lines by their digests, epsilons by the events, models by their charges.

use crate::budget::books::Books;
use crate::budget::error::BudgetError;
use crate::budget::stamp::{Stamp, StampedModel};
use crate::io::source::identity_of;
use crate::privacy::ledger::budget::{self, epsilon_text};
use crate::privacy::ledger::replay::{ChargeRecord, Fate, State};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Largest difference between a recorded epsilon and the one computed now. Epsilons are rounded, and the last bits of
/// an FFT differ between machines.
const CLOSE: f64 = 3e-6;

/// The result of one check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// The check passed.
    Fine(String),
    /// A fact the operator should know; not a fault.
    Note(String),
    /// The check failed.
    Fault(String),
}

impl Finding {
    /// Whether the check failed.
    pub fn is_fault(&self) -> bool {
        matches!(self, Self::Fault(_))
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fine(text) => write!(f, "ok     {text}"),
            Self::Note(text) => write!(f, "note   {text}"),
            Self::Fault(text) => write!(f, "FAULT  {text}"),
        }
    }
}

/// Checks a state directory, and these models against it.
///
/// # Errors
///
/// When the ledger cannot be read, or its chain, its plan or its end is wrong: no other check is possible then.
pub fn verify(path: &Path, models: &[PathBuf]) -> Result<Vec<Finding>, BudgetError> {
    let books = Books::read(path)?;
    let mut findings = vec![check_chain(&books), check_plan(&books)];
    findings.extend(check_end(&books));
    findings.extend(check_epsilons(&books)?);
    findings.extend(check_budget(&books.state)?);
    findings.extend(orphans(&books.state));
    findings.extend(contradictions(&books.state));
    let outputs = outputs(&books)?;
    let named = models.iter().map(|path| StampedModel::open(path)).collect::<Result<Vec<_>, _>>()?;
    let is_named =
        |model: &StampedModel| named.iter().any(|named| identity_of(&named.path) == identity_of(&model.path));
    let others: Vec<&StampedModel> = outputs.iter().filter(|model| !is_named(model)).collect();
    for model in others.into_iter().chain(&named) {
        findings.push(check_model(&books, model)?);
    }
    Ok(findings)
}

fn check_chain(books: &Books) -> Finding {
    let (ledger, records) = (books.directory.ledger(), books.records.len());
    Finding::Fine(format!(
        "{}: {records} records in an unbroken chain that ends with {}",
        ledger.display(),
        books.state.head
    ))
}

fn check_plan(books: &Books) -> Finding {
    Finding::Fine(format!(
        "{}: the plan has the digest that the ledger names, {}",
        books.directory.plan().display(),
        books.state.init.plan_sha256
    ))
}

fn check_end(books: &Books) -> Option<Finding> {
    let bytes = books.torn.len();
    let text = || format!("{bytes} bytes after the last line are an unfinished line, which does not count");
    (bytes > 0).then(|| Finding::Note(text()))
}

/// Computes the epsilons of the last charge again.
fn check_epsilons(books: &Books) -> Result<Option<Finding>, BudgetError> {
    let Some(last) = books.state.charges.last() else { return Ok(None) };
    let end = usize::try_from(last.head.seq).map_or(0, |seq| seq + 1);
    let path = books.directory.ledger();
    let replay = |error| BudgetError::Replay { path, error };
    let Some(state) = State::replay(&books.records[..end]).map_err(replay)? else { return Ok(None) };
    let spent = budget::spent(&state)?;
    let (seq, charge) = (last.head.seq, &last.charge);
    let mut pairs = vec![("eps_rdp", charge.eps_rdp, spent.rdp)];
    pairs.extend(charge.eps_pld.zip(spent.pld).map(|(recorded, now)| ("eps_pld", recorded, now)));
    for (what, recorded, now) in pairs {
        if recorded.get() < now * (1.0 - CLOSE) - CLOSE {
            let (recorded, now) = (recorded.get(), epsilon_text(now));
            return Ok(Some(Finding::Fault(format!(
                "charge {seq}: {what} is {recorded}, but the events up to it cost {now}"
            ))));
        }
    }
    Ok(Some(Finding::Fine(format!("charge {seq}: its epsilons match the events up to it"))))
}

fn check_budget(state: &State) -> Result<Vec<Finding>, BudgetError> {
    let mut findings = Vec::new();
    let spent = budget::spent(state)?.epsilon(state.plan().accountant);
    let budget = state.plan().epsilon;
    let text = format!("{} of epsilon {budget} are spent", epsilon_text(spent));
    // False for NaN too.
    let fits = spent <= budget;
    findings.push(if fits { Finding::Fine(text) } else { Finding::Fault(text) });
    if state.tests() > 0 {
        let text =
            format!("{} charges were made with a test seed: their releases are NOT private", state.tests());
        findings.push(Finding::Note(text));
    }
    Ok(findings)
}

fn orphans(state: &State) -> impl Iterator<Item = Finding> {
    state.orphans().map(|charge| {
        let seq = charge.head.seq;
        Finding::Note(format!(
            "charge {seq}: its release was not recorded; `fedmill privacy recover` explains it"
        ))
    })
}

fn contradictions(state: &State) -> impl Iterator<Item = Finding> {
    state.contradictions().map(|(seq, found)| Finding::Note(format!("charge {seq}: {found}")))
}

/// The models of this ledger that exist at the output paths of charges, or where a release was filed.
fn outputs(books: &Books) -> Result<Vec<StampedModel>, BudgetError> {
    let paths: BTreeSet<PathBuf> =
        books.state.charges.iter().flat_map(|charge| books.paths_of(charge)).collect();
    let mut models = BTreeMap::new();
    for path in paths {
        // Another model may be at the path by now.
        let model = StampedModel::published(&path)?;
        let known = model.filter(|model| model.stamp.as_ref().is_some_and(|stamp| books.knows(stamp)));
        // The index of a model in shards may be named too.
        models.extend(known.map(|model| (model.path.clone(), model)));
    }
    Ok(models.into_values().collect())
}

fn check_model(books: &Books, model: &StampedModel) -> Result<Finding, BudgetError> {
    let path = model.path.display();
    let Some(stamp) = &model.stamp else {
        return Ok(Finding::Fault(format!("{path}: names no charge; it was not released from a budget")));
    };
    if !books.knows(stamp) {
        return Ok(Finding::Fault(format!(
            "{path}: was released from another ledger, as {}",
            stamp.release_id
        )));
    }
    books.check_stamp(&model.path, stamp)?;
    let Some(charge) = books.state.charges.iter().find(|charge| charge.head == stamp.charge) else {
        return Ok(Finding::Fault(format!("{path}: names record {}, which is no charge", stamp.charge.seq)));
    };
    Ok(check_release(model, stamp, charge, &model.sha256()?.to_string()))
}

fn check_release(model: &StampedModel, stamp: &Stamp, charge: &ChargeRecord, found: &str) -> Finding {
    let (path, seq) = (model.path.display(), stamp.charge.seq);
    match &charge.fate {
        Fate::Released { output_sha256, .. } if output_sha256.to_string() == found => {
            Finding::Fine(format!("{path}: matches the release of charge {seq}"))
        }
        Fate::Released { output_sha256, .. } => {
            Finding::Fault(format!("{path}: sha256 is {found}, charge {seq} released {output_sha256}"))
        }
        Fate::Open => Finding::Note(format!(
            "{path}: was made with charge {seq}, whose release was not recorded; `fedmill privacy recover` explains it"
        )),
        Fate::Voided { attest } => Finding::Fault(format!(
            "{path}: was made with charge {seq}, which was voided: `{attest}`; but the model exists, so its cost is spent"
        )),
        Fate::External => Finding::Fault(format!("{path}: names charge {seq}, which was spent elsewhere")),
    }
}
