//! Holds everything that is known of a budget against everything else: lines against their digests, numbers against what
//! events come to, models against their charges.

use crate::budget::directory::{Books, BudgetError};
use crate::budget::stamp::{Stamp, StampedModel};
use crate::io::source::identity_of;
use crate::privacy::ledger::budget::{self, told};
use crate::privacy::ledger::replay::{Charged, Fate, State};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// How far an epsilon may be below what is computed now: it was rounded, and the last bits of FFTs differ.
const CLOSE: f64 = 3e-6;

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// All is well with it.
    Fine(String),
    /// Worth knowing.
    Note(String),
    /// Something is wrong.
    Fault(String),
}

impl Finding {
    /// Whether something is wrong.
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

/// Checks a state directory, and models against it.
///
/// # Errors
///
/// When the ledger cannot be read, or its chain, its plan or its end is wrong: then nothing else can be told.
pub fn verify(path: &Path, models: &[PathBuf]) -> Result<Vec<Finding>, BudgetError> {
    let books = Books::read(path)?;
    let mut found = vec![chain(&books), plan(&books)];
    found.extend(torn(&books));
    found.extend(numbers(&books)?);
    found.extend(spent(&books.state)?);
    found.extend(orphans(&books.state));
    let stand = standing(&books)?;
    let named = models.iter().map(|path| StampedModel::open(path)).collect::<Result<Vec<_>, _>>()?;
    let is_named = |marked: &StampedModel| {
        named.iter().any(|named| identity_of(&named.path) == identity_of(&marked.path))
    };
    let stand: Vec<&StampedModel> = stand.iter().filter(|marked| !is_named(marked)).collect();
    for marked in stand.into_iter().chain(&named) {
        found.push(model(&books, marked)?);
    }
    Ok(found)
}

fn chain(books: &Books) -> Finding {
    let (ledger, records) = (books.directory.ledger(), books.records.len());
    Finding::Fine(format!(
        "{}: {records} records, each names the one before; ends with {}",
        ledger.display(),
        books.state.head
    ))
}

fn plan(books: &Books) -> Finding {
    Finding::Fine(format!(
        "{}: is the plan of the ledger, {}",
        books.directory.plan().display(),
        books.state.init.plan_sha256
    ))
}

fn torn(books: &Books) -> Option<Finding> {
    let bytes = books.torn.len();
    let told = || format!("{bytes} bytes behind the last line were never finished; nothing counts on them");
    (bytes > 0).then(|| Finding::Note(told()))
}

/// Computes the epsilons of the last charge again.
fn numbers(books: &Books) -> Result<Option<Finding>, BudgetError> {
    let Some(last) = books.state.charges.last() else { return Ok(None) };
    let then = usize::try_from(last.head.seq).map_or(0, |seq| seq + 1);
    let path = books.directory.ledger();
    let replay = |error| BudgetError::Replay { path, error };
    let Some(state) = State::replay(&books.records[..then]).map_err(replay)? else { return Ok(None) };
    let spent = budget::spent(&state)?;
    let (seq, charge) = (last.head.seq, &last.charge);
    let mut pairs = vec![("eps_rdp", charge.eps_rdp, spent.rdp)];
    pairs.extend(charge.eps_pld.zip(spent.pld).map(|(told, now)| ("eps_pld", told, now)));
    for (what, said, now) in pairs {
        if said.get() < now * (1.0 - CLOSE) - CLOSE {
            let (said, now) = (said.get(), told(now));
            return Ok(Some(Finding::Fault(format!(
                "charge {seq}: {what} is {said}, its events come to {now}"
            ))));
        }
    }
    Ok(Some(Finding::Fine(format!("charge {seq}: its epsilons are those of the events up to it"))))
}

fn spent(state: &State) -> Result<Vec<Finding>, BudgetError> {
    let mut found = Vec::new();
    let spent = budget::spent(state)?.epsilon(state.plan().accountant);
    let budget = state.plan().epsilon;
    let text = format!("{} of epsilon {budget} are spent", told(spent));
    // What is no number is more than any budget.
    let fits = spent <= budget;
    found.push(if fits { Finding::Fine(text) } else { Finding::Fault(text) });
    if state.tests() > 0 {
        let text =
            format!("{} charges were made with a test seed: their releases are NOT private", state.tests());
        found.push(Finding::Note(text));
    }
    Ok(found)
}

fn orphans(state: &State) -> impl Iterator<Item = Finding> {
    state.orphans().map(|charged| {
        let seq = charged.head.seq;
        Finding::Note(format!(
            "charge {seq}: its release was not recorded; `fedmill privacy recover` explains it"
        ))
    })
}

/// The outputs of charges that still stand where they were to be.
fn standing(books: &Books) -> Result<Vec<StampedModel>, BudgetError> {
    let mechanisms = books.state.charges.iter().filter_map(|charged| charged.charge.mechanism.as_ref());
    let outputs: BTreeSet<&str> = mechanisms.map(|mechanism| mechanism.output.as_str()).collect();
    let mut found = Vec::new();
    for output in outputs {
        // Another model may have its place by now.
        found.extend(
            StampedModel::published(Path::new(output))?
                .filter(|marked| marked.marks.as_ref().is_some_and(|marks| books.knows(marks))),
        );
    }
    Ok(found)
}

fn model(books: &Books, marked: &StampedModel) -> Result<Finding, BudgetError> {
    let path = marked.path.display();
    let Some(marks) = &marked.marks else {
        return Ok(Finding::Fault(format!("{path}: names no charge; it was not released from a budget")));
    };
    if !books.knows(marks) {
        return Ok(Finding::Fault(format!(
            "{path}: was released from another ledger, as {}",
            marks.release_id
        )));
    }
    books.check_marks(&marked.path, marks)?;
    let Some(charged) = books.state.charges.iter().find(|charged| charged.head == marks.charge) else {
        return Ok(Finding::Fault(format!("{path}: names record {}, which is no charge", marks.charge.seq)));
    };
    Ok(fate(marked, marks, charged, &marked.sha256()?.to_string()))
}

fn fate(marked: &StampedModel, marks: &Stamp, charged: &Charged, found: &str) -> Finding {
    let (path, seq) = (marked.path.display(), marks.charge.seq);
    match &charged.fate {
        Fate::Released { output_sha256, .. } if output_sha256.to_string() == found => {
            Finding::Fine(format!("{path}: is what was released with charge {seq}"))
        }
        Fate::Released { output_sha256, .. } => Finding::Fault(format!(
            "{path}: sha256 is {found}, what was released with charge {seq} is {output_sha256}"
        )),
        Fate::Open => Finding::Note(format!(
            "{path}: was made with charge {seq}, whose release was not recorded; `fedmill privacy recover` explains it"
        )),
        Fate::Voided { attest } => Finding::Fault(format!(
            "{path}: was made with charge {seq}, which was taken back: `{attest}`; it is spent all the same"
        )),
        Fate::External => Finding::Fault(format!("{path}: names charge {seq}, which was spent elsewhere")),
    }
}
