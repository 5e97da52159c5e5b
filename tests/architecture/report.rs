//! What a check finds, and how a failing test prints it: the rule, then a line for each violation.

use super::sources::House;
use crate::harness::source_tree;
use std::fmt;

/// One place that breaks a rule.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Violation {
    /// File and line, as an editor opens them: `src/rules/krum.rs:12`.
    pub place: String,
    /// What stands there, and what to write in its place if the rule alone does not say that.
    pub found: String,
}

impl Violation {
    /// A violation at a line of a file, or of the whole file at line 1.
    pub(crate) fn new(file: &str, line: usize, found: impl Into<String>) -> Self {
        Self { place: format!("{file}:{line}"), found: found.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.found)
    }
}

/// Violations as a failing test prints them.
pub(crate) fn texts(found: &[Violation]) -> Vec<String> {
    found.iter().map(ToString::to_string).collect()
}

/// A rule of the house.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    /// What holds.
    pub says: &'static str,
    /// What to do where it does not hold.
    pub instead: &'static str,
}

impl Rule {
    /// Fails with all violations that a check finds in the sources, sorted by file, unless there are none.
    #[track_caller]
    pub(crate) fn holds(self, check: impl FnOnce(&House) -> Vec<Violation>) {
        let Some(_) = source_tree() else { return };
        let mut violations = check(super::house());
        violations.sort();
        violations.dedup();
        assert!(violations.is_empty(), "{}", self.message(&violations));
    }

    fn message(self, violations: &[Violation]) -> String {
        let lines: String = violations.iter().map(|violation| format!("\n  {violation}")).collect();
        let Self { says, instead } = self;
        format!("{} violations\nrule: {says}\ndo instead: {instead}{lines}\n", violations.len())
    }
}

/// A limit that one place may break, with the reason. The list of them may only shrink.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exception {
    /// The file, folder, function, struct or room, as a violation names it.
    pub what: &'static str,
    /// Why it may break the limit.
    pub why: &'static str,
}

/// Drops the subjects that an exception names, and adds a violation for each exception that no subject needs.
pub(crate) fn without_exceptions(
    found: Vec<(String, Violation)>,
    exceptions: &[Exception],
    list: &str,
) -> Vec<Violation> {
    let needed = |exception: &&Exception| !found.iter().any(|(subject, _)| subject == exception.what);
    let stale: Vec<Violation> = exceptions
        .iter()
        .filter(needed)
        .map(|exception| Violation {
            place: list.to_owned(),
            found: format!("`{}` keeps the limit now: delete its exception", exception.what),
        })
        .collect();
    let excused = |subject: &String| exceptions.iter().any(|exception| exception.what == subject);
    let rest = found.into_iter().filter(|(subject, _)| !excused(subject));
    rest.map(|(_, violation)| violation).chain(stale).collect()
}

#[test]
fn a_message_names_the_rule_the_remedy_and_every_place() {
    let rule = Rule { says: "rooms keep apart", instead: "move the code" };
    let found = [Violation::new("src/a.rs", 3, "names b"), Violation::new("src/b.rs", 5, "names c")];
    let message = rule.message(&found);
    for part in
        ["2 violations", "rooms keep apart", "move the code", "src/a.rs:3: names b", "src/b.rs:5: names c"]
    {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn an_exception_excuses_its_subject_and_no_other_and_leaves_when_it_is_not_needed() {
    let found = |subject: &str| (subject.to_owned(), Violation::new(subject, 1, "too long"));
    let list = [Exception { what: "src/a.rs", why: "a table" }];
    let left = without_exceptions(vec![found("src/a.rs"), found("src/b.rs")], &list, "the list");
    assert_eq!(left, [Violation::new("src/b.rs", 1, "too long")]);
    let left = without_exceptions(Vec::new(), &list, "the list");
    assert_eq!(left[0].to_string(), "the list: `src/a.rs` keeps the limit now: delete its exception");
}
