//! The rules that findings break.

use super::finding::Level;

/// A rule of plans.
#[derive(PartialEq, Eq, Debug)]
pub struct Rule {
    /// Its name in findings.
    pub name: &'static str,
    /// How bad it is to break it.
    pub level: Level,
    /// What it asks for.
    pub about: &'static str,
}

macro_rules! rules {
    ($($rule:ident = $level:ident $name:literal: $about:literal;)*) => {
        $(pub(super) const $rule: Rule = Rule { name: $name, level: Level::$level, about: $about };)*

        /// All rules, in the order of the documentation.
        pub const RULES: &[&Rule] = &[$(&$rule),*];
    };
}

rules! {
    TWICE = Error "twice": "A name of a stage, input, loop, output, option or host stands once.";
    UNKNOWN = Error "unknown": "A name is that of a stage, agent, input, output, case, parameter or capability of the plan.";
    WORK = Error "work": "A stage has exactly one of an agent, a capability, a vote, a kind, or a gate alone.";
    FIELD = Error "field": "A stage has no field that its kind, or the kind of its agent, does not read.";
    MISSING = Error "missing": "A command has arguments, a model has a prompt, a decision has cases and `else`, a reduction has files and one output.";
    PATH = Error "path": "An input has either `path` or `glob`, and no path leaves its folder.";
    NESTED = Error "nested": "A plan inside of a plan lies in its folder, has the names that its stage gives and takes, and exceeds no limit.";
    NEEDS = Error "needs": "A stage has `needs` or `depends`, not both.";
    CYCLE = Error "cycle": "No stages wait for each other, loops and handlers included.";
    NEVER = Warning "never": "Each stage can run.";
    SKIPPED_GATE = Warning "skipped-gate": "A stage behind a gate with `when` or `branch` has the same condition: a gate that is skipped stops nothing.";
    CODE = Warning "code": "A text that a shell or an interpreter runs has no file name and no parameter that is a text.";
    NO_SHELL = Warning "no-shell": "An argument of a program that is no shell is one word, and no redirection, variable or pattern of a shell.";
    NO_FILES = Error "no-files": "A stage reads no files of stages that never run.";
    LOOP = Error "loop": "A loop names a range of stages that no other loop has, and at least one iteration.";
    CARRY = Error "carry": "A loop carries an output of a stage inside it, and its first iteration has a file.";
    UNTIL = Note "until": "A loop without `until` runs `max_iters` iterations.";
    TIMEOUT = Error "timeout": "A stage with a command has a timeout, and times are longer than 0.";
    RETRY = Error "retry": "Retries have 1 to 100 attempts and a factor of at least 1, and `once` stages have none.";
    TEMPLATE = Error "template": "A text with references can be parsed, and each reference has a value at its place.";
    PLAIN = Warning "plain": "The arguments of an agent, and the question of a gate, have no references.";
    FIRST = Warning "first": "`{k}` stands in a loop.";
    SEVERAL = Warning "several": "A reference inside a longer text stands for one file.";
    ORDER = Error "order": "A stage waits for each stage whose files, metrics or outcome it reads.";
    CONDITION = Error "condition": "A condition can be parsed, and comes to true or false.";
    VARIABLE = Error "variable": "A variable of a condition exists, and one of a command has a name without `=`.";
    CASE = Warning "case": "A condition compares a choice with a case or option that there is.";
    METRIC = Error "metric": "A metric is measured by a stage with a file of metrics, and by one stage at a time.";
    VOTE = Error "vote": "A vote has at least two voters and two options, and one option can win.";
    UNANIMOUS = Note "unanimous": "A vote has a winner if one voter does not agree.";
    FALLBACK = Error "fallback": "What a vote does without a winner is declared.";
    LIMIT = Error "limit": "A limit is in its range, and no stage asks for more.";
    IDLE = Warning "idle": "A setting has an effect beside the others.";
    FROZEN = Error "frozen": "A frozen pointer names a value of the plan.";
    TUNE = Error "tune": "A tuned parameter is a number within bounds that shadow runs can judge.";
    NEVER_TUNED = Error "never-tuned": "A tuned value stands whole behind a known name, and nothing that protects clients is tuned.";
    PROGRAM = Error "program": "A program with a slash in its name is there, below the plan's folder if its path is relative.";
    INSTALLED = Warning "installed": "A program without a slash in its name is found in PATH.";
    SECRET = Error "secret": "No secret stands in the plan: a header reads it as `env:NAME`.";
    LIKELY_SECRET = Warning "likely-secret": "No argument or variable that is named like a secret has its value in the plan.";
    ENDPOINT = Error "endpoint": "An endpoint has an http address whose host `limits.hosts` lists, and a reply schema of supported keywords.";
    REPEATABLE = Warning "repeatable": "A model has `seed` and `num_ctx`, so that its answers can be repeated.";
}
