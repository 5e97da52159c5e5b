//! Which parameters a loop may tune, and where their values may stand.
//!
//! The linter and the runner both ask here.
//! A value that changes may stand only in places that are known to be harmless: whole, behind a name of known words or
//! of `tune.sink`. Everything else is refused, so that a new spelling of what protects clients is refused too.

use super::protected::{is_known, is_of_rules, protects, set_by, with_settings};
use super::template::{Part, Reference, Template};
use crate::schema::Plan;
use crate::schema::agent::{Agent, able};
use crate::schema::looped::Tune;
use crate::schema::policy::SideEffects;
use crate::schema::stage::Stage;
use crate::schema::value::Scalar;
use serde_json::Value;

/// Options of `fedmill` whose whole value may change.
pub const OPTIONS: [&str; 4] = ["--decay", "--max-nmse", "--mix", "--target"];

/// Options of `fedmill` that may take one of the declared `values`.
pub const CHOICES: [&str; 2] = ["--rule", "--strategy"];

/// Settings of `--strategy` that may change.
pub const SETTINGS: [&str; 11] =
    ["beta1", "beta2", "gmf", "local-lr", "lr", "momentum", "mu", "q", "steps", "tau", "v0"];

/// Programs that run what their arguments say.
const WRAPPERS: [&str; 24] = [
    "awk", "busybox", "bun", "chroot", "deno", "doas", "env", "gawk", "make", "mawk", "nice", "nohup",
    "parallel", "sed", "setsid", "srun", "ssh", "stdbuf", "sudo", "taskset", "time", "timeout", "toybox",
    "xargs",
];

/// Programs that run a script, or a text that one of many options names: the script must be the first argument.
const INTERPRETERS: [&str; 32] = [
    "ash", "bash", "csh", "dash", "elixir", "erl", "expect", "fish", "groovy", "guile", "irb", "jruby",
    "julia", "ksh", "lua", "luajit", "mksh", "node", "nodejs", "nu", "octave", "perl", "php", "pwsh", "pypy",
    "python", "r", "rscript", "ruby", "sh", "tcsh", "zsh",
];

/// Characters beside letters, digits and references that the arguments around a tuned value may have: those of options,
/// paths and words. A text that a program runs, and that takes a value, needs others.
const PLAIN: &str = " %+,-./:=@_{}";

/// Fields of a stage that are conditions: they read parameters, and set nothing.
const CONDITIONS: [&str; 4] = ["cases", "depends", "success_when", "when"];

/// Whether a program of this name runs a script or a text, as `sh -c TEXT` does. Digits of a version may follow.
pub fn is_interpreter(program: &str) -> bool {
    let name = program.rsplit('/').next().unwrap_or_default();
    INTERPRETERS.contains(&name.trim_end_matches(|letter: char| letter.is_ascii_digit() || letter == '.'))
}

/// Whether a program of this name runs another command that its arguments say, as `env` does.
pub fn is_wrapper(program: &str) -> bool {
    WRAPPERS.contains(&program.rsplit('/').next().unwrap_or_default())
}

/// Why a loop may not tune its parameter: it protects clients, it stands at a place that may, or the plan freezes it.
pub enum Forbidden {
    /// What the parameter sets.
    Protects(String),
    /// A place of a stage, and what is wrong with it.
    Place(String, String),
    /// The pointer of `safety.frozen` that covers it.
    Frozen(String),
}

impl Forbidden {
    /// What was found and what was expected.
    pub fn why(&self, name: &str) -> String {
        match self {
            Self::Protects(what) => {
                format!("found `{name}`, which sets {what}: what protects clients is never tuned")
            }
            Self::Place(at, why) => format!("found `{name}` in {at}: {why}"),
            Self::Frozen(pointer) => format!("found `{name}`, which is frozen by `{pointer}`"),
        }
    }
}

/// The name of the parameter that a loop tunes; `None` if its pointer names no parameter.
pub fn parameter(tune: &Tune) -> Option<&str> {
    tune.param.strip_prefix("/params/").filter(|name| !name.is_empty() && !name.contains('/'))
}

/// Why a loop may not tune its parameter.
pub fn forbidden(plan: &Plan, tune: &Tune) -> Option<Forbidden> {
    let name = parameter(tune)?;
    let itself = protects(name).then(|| name.to_owned());
    if let Some(what) = itself.or_else(|| tune.values.iter().find_map(set_by)) {
        return Some(Forbidden::Protects(what));
    }
    let sink = Sink { plan, name, names: &tune.sink, values: &tune.values };
    if let Some(found) = plan.stages.iter().find_map(|stage| sink.fault_of(stage)) {
        return Some(found);
    }
    frozen_by(&plan.safety.frozen, tune).cloned().map(Forbidden::Frozen)
}

/// The first of these pointers of `safety.frozen` that covers the parameter of a tuning.
pub fn frozen_by<'f>(frozen: &'f [String], tune: &Tune) -> Option<&'f String> {
    let covers = |pointer: &&String| {
        let whole = pointer.trim_end_matches('/');
        tune.param == whole || tune.param.starts_with(&format!("{whole}/"))
    };
    frozen.iter().find(covers)
}

/// What to say of a loop whose parameter an earlier loop tunes too.
pub fn tuned_before(plan: &Plan, place: usize) -> Option<String> {
    let param = |place: usize| Some(&plan.loops.get(place)?.tune.as_ref()?.param);
    let own = param(place)?;
    let first = (0..place).find(|earlier| param(*earlier) == Some(own))?;
    Some(format!(
        "found `{own}`, which $.loops[{first}].tune.param tunes too, expected one loop for each parameter"
    ))
}

/// Why the shadow runs of a loop's tuning may not repeat a stage.
pub fn not_repeatable(stage: &Stage) -> Option<&'static str> {
    if stage.side_effects != SideEffects::None {
        return Some("has side effects, expected none in a shadow run");
    }
    let works = stage.works()
        && stage.plan.is_none()
        && !stage.decides()
        && stage.consensus.is_none()
        && stage.gate.is_none();
    (!works)
        .then_some("runs a plan, decides, votes or waits for a person, expected work alone in a shadow run")
}

/// Where the value of a tuned parameter may stand.
struct Sink<'p> {
    plan: &'p Plan,
    name: &'p str,
    /// Names that the plan adds to the known ones.
    names: &'p [String],
    /// The values that the plan declares, if it declares each.
    values: &'p [Scalar],
}

impl Sink<'_> {
    /// The first use of the parameter in a stage that is not known to be harmless.
    fn fault_of(&self, stage: &Stage) -> Option<Forbidden> {
        let fields = serde_json::to_value(stage).ok()?;
        for (field, value) in fields.as_object()? {
            if CONDITIONS.contains(&field.as_str()) {
                continue;
            }
            let mut texts = Vec::new();
            collect(value, &mut vec![field.clone()], &mut texts);
            for (path, text) in texts {
                if !self.stands_in(text) {
                    continue;
                }
                let found = match path.as_slice() {
                    [field, place] if field == "argv" => {
                        let place = place.parse().ok()?;
                        self.commands(stage).iter().try_for_each(|argv| self.argument(argv, stage, place))
                    }
                    [field, variable] if field == "env" => self.variable(stage, variable, text),
                    [field, ..] if field == "body" => self.member(value, &path[1..], text),
                    _ => Err(Fault::Place(
                        "expected the value of an option, of a variable or of a field of `body`".to_owned(),
                    )),
                };
                if let Err(fault) = found {
                    return Some(fault.of(stage, &path));
                }
            }
        }
        None
    }

    /// Whether the parameter stands in a text.
    fn stands_in(&self, text: &str) -> bool {
        match Template::parse(text) {
            Ok(template) => template.references().any(|reference| self.is_it(reference)),
            Err(_) => text.contains(&format!("params.{}", self.name)),
        }
    }

    fn is_it(&self, reference: &Reference) -> bool {
        matches!(reference, Reference::Param(name) if name.as_str() == self.name)
    }

    /// Whether a part of a text is the parameter and nothing else.
    fn is_alone(&self, part: &Part) -> bool {
        matches!(part, Part::Ref(alternatives) if matches!(alternatives.as_slice(), [one] if self.is_it(one)))
    }

    /// The arguments of the commands that may do the work of a stage.
    fn commands(&self, stage: &Stage) -> Vec<&[String]> {
        let pool = stage.pool().map(|(capability, _)| std::slice::from_ref(capability));
        let agents: Vec<&Agent> = match &stage.agent {
            Some(name) => self.plan.agents.get(name).into_iter().collect(),
            None => {
                let needs = pool.unwrap_or(&stage.needs_capability);
                able(&self.plan.agents, needs).into_iter().map(|(_, agent)| agent).collect()
            }
        };
        let commands = agents.into_iter().filter_map(|agent| match agent {
            Agent::Command(agent) => Some(agent.argv.as_slice()),
            Agent::Http(_) | Agent::Ollama(_) => None,
        });
        commands.collect()
    }

    fn argument(&self, program: &[String], stage: &Stage, place: usize) -> Result<(), Fault> {
        let whole: Vec<&str> = program.iter().chain(&stage.argv).map(String::as_str).collect();
        expect_program(program, &stage.argv)?;
        let text = whole.get(program.len() + place).copied().unwrap_or_default();
        let before = (program.len() + place).checked_sub(1).and_then(|before| whole.get(before).copied());
        let template = Template::parse(text).map_err(|why| Fault::Place(why.to_string()))?;
        let is_fedmill = base_name(whole.first().copied().unwrap_or_default()) == "fedmill";
        let (option, rest): (String, Vec<Part>) = match template.parts.as_slice() {
            [Part::Text(head), rest @ ..] if head.starts_with('-') && head.contains('=') => {
                let (option, begin) = head.split_once('=').unwrap_or((head, ""));
                let begin = (!begin.is_empty()).then(|| Part::Text(begin.to_owned()));
                (option.to_owned(), begin.into_iter().chain(rest.iter().cloned()).collect())
            }
            parts => (before.unwrap_or_default().to_owned(), parts.to_vec()),
        };
        if !option.starts_with('-') || option.contains('=') {
            let why =
                format!("found no option before it, expected one such as `--rate {{params.{}}}`", self.name);
            return Err(Fault::Place(why));
        }
        match rest.as_slice() {
            [part] if self.is_alone(part) => match is_fedmill {
                true if !self.values.is_empty() && CHOICES.contains(&option.as_str()) => {
                    self.expect_names(&option)
                }
                true if OPTIONS.contains(&option.as_str()) => Ok(()),
                true if protects(&option) => Err(Fault::Protects(option)),
                true => Err(Fault::Place(format!(
                    "found the option `{option}`, expected one of {}, or a setting of --strategy",
                    OPTIONS.join(", ")
                ))),
                false => self.expect_known(&option),
            },
            _ if is_fedmill && option == "--strategy" => self.settings(&rest),
            _ if protects(&option) => Err(Fault::Protects(option)),
            _ => Err(Fault::not_whole()),
        }
    }

    /// A strategy with settings, `name:key=value,key=value`.
    fn settings(&self, parts: &[Part]) -> Result<(), Fault> {
        for (place, part) in parts.iter().enumerate() {
            let Part::Ref(alternatives) = part else { continue };
            if !alternatives.iter().any(|reference| self.is_it(reference)) {
                continue;
            }
            let before = place.checked_sub(1).and_then(|before| parts.get(before));
            let Some(Part::Text(before)) = before else { return Err(Fault::not_whole()) };
            let key = before.strip_suffix('=').and_then(|text| text.rsplit([':', ',']).next());
            let ends = match parts.get(place + 1) {
                None => true,
                Some(Part::Text(next)) => next.starts_with(','),
                Some(Part::Ref(_)) => false,
            };
            match key {
                Some(key) if protects(key) => return Err(Fault::Protects(key.to_owned())),
                Some(key) if ends && self.is_alone(part) && SETTINGS.contains(&key) => {}
                _ => {
                    let known = SETTINGS.join(", ");
                    return Err(Fault::Place(format!(
                        "expected the whole value of one of the settings {known}"
                    )));
                }
            }
        }
        Ok(())
    }

    fn variable(&self, stage: &Stage, variable: &str, text: &str) -> Result<(), Fault> {
        for argv in self.commands(stage) {
            expect_program(argv, &stage.argv)?;
        }
        if variable.starts_with("FEDMILL") && !protects(variable) {
            return Err(Fault::Place("found a variable of fedmill, expected one of the program".to_owned()));
        }
        self.expect_whole(variable, text)
    }

    /// A text of a JSON body: what protects clients may stand neither on the way to it nor beside it.
    fn member(&self, body: &Value, path: &[String], text: &str) -> Result<(), Fault> {
        let mut at = body;
        let mut name = None;
        for step in path {
            if let Some(key) =
                at.as_object().and_then(|object| object.keys().find(|key| protects(key) && *key == step))
            {
                return Err(Fault::Protects(key.clone()));
            }
            let beside = |value: &&Value| value.as_str().is_some_and(protects);
            if let Some(Value::String(word)) = at.as_object().and_then(|object| object.values().find(beside))
            {
                return Err(Fault::Protects(word.clone()));
            }
            if let Value::Array(list) = at {
                let mut texts = Vec::new();
                list.iter().for_each(|value| collect(value, &mut Vec::new(), &mut texts));
                if let Some((_, word)) = texts.into_iter().find(|(_, text)| protects(text)) {
                    return Err(Fault::Protects(word.to_owned()));
                }
            }
            if at.is_object() {
                expect_ascii(step)?;
                name = Some(step.as_str());
            }
            at = match at {
                Value::Array(list) => step.parse::<usize>().ok().and_then(|place| list.get(place)),
                other => other.get(step),
            }
            .unwrap_or(&Value::Null);
        }
        self.expect_whole(name.unwrap_or_default(), text)
    }

    fn expect_whole(&self, name: &str, text: &str) -> Result<(), Fault> {
        let template = Template::parse(text).map_err(|why| Fault::Place(why.to_string()))?;
        match template.parts.as_slice() {
            _ if protects(name) => Err(Fault::Protects(name.to_owned())),
            [part] if self.is_alone(part) => self.expect_known(name),
            _ => Err(Fault::not_whole()),
        }
    }

    /// Values of `--rule` are names of rules alone: some settings of rules turn their protection off.
    fn expect_names(&self, option: &str) -> Result<(), Fault> {
        match with_settings(self.values).filter(|_| option == "--rule") {
            Some(text) => Err(Fault::Place(format!(
                "found the value `{text}`, expected the name of a rule alone: settings of rules protect clients"
            ))),
            None => Ok(()),
        }
    }

    /// A name is known by its words, or the plan names it in `tune.sink`. No plan can name what protects clients.
    fn expect_known(&self, name: &str) -> Result<(), Fault> {
        expect_ascii(name)?;
        if is_of_rules(name) {
            self.expect_names("--rule")?;
        }
        match protects(name) {
            true => Err(Fault::Protects(name.to_owned())),
            false if is_known(name) || self.names.iter().any(|known| known == name) => Ok(()),
            false => Err(Fault::Place(format!(
                "found the name `{name}`, which is not known to be harmless; `tune.sink` can list it"
            ))),
        }
    }
}

/// Letters that are no ASCII may look like others, or name what protects clients in another script.
fn expect_ascii(name: &str) -> Result<(), Fault> {
    match name.is_ascii() {
        true => Ok(()),
        false => Err(Fault::Place(format!("found the name `{name}`, expected one of ASCII characters"))),
    }
}

/// What is wrong with a use of the parameter.
enum Fault {
    Protects(String),
    Place(String),
}

impl Fault {
    fn not_whole() -> Self {
        Self::Place("found other text beside the reference, expected the reference alone".to_owned())
    }

    fn of(self, stage: &Stage, path: &[String]) -> Forbidden {
        match self {
            Self::Protects(what) => Forbidden::Protects(format!("{what} of stage `{}`", stage.id)),
            Self::Place(why) => {
                Forbidden::Place(format!("`{}` of stage `{}`", path.join("."), stage.id), why)
            }
        }
    }
}

/// The texts in a value, with their paths.
fn collect<'v>(value: &'v Value, path: &mut Vec<String>, texts: &mut Vec<(Vec<String>, &'v str)>) {
    let mut inner = |step: String, value: &'v Value| {
        path.push(step);
        collect(value, path, texts);
        path.pop();
    };
    match value {
        Value::String(text) => texts.push((path.clone(), text)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(place, value)| inner(place.to_string(), value))
        }
        Value::Object(object) => object.iter().for_each(|(key, value)| inner(key.clone(), value)),
        _ => {}
    }
}

fn base_name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or_default()
}

/// Refuses programs that run what their arguments say, and arguments that could be a text to run: the value could stand
/// anywhere in it. A list of the options that take such a text would never end, so an interpreter gets a script first.
fn expect_program(argv: &[String], more: &[String]) -> Result<(), Fault> {
    let program = argv.first().map(|program| base_name(program)).unwrap_or_default().to_lowercase();
    if program == "fedmill" {
        return Ok(());
    }
    let is_version = |character: char| character.is_ascii_digit() || ".-_".contains(character);
    let bare = program.trim_end_matches(".exe").trim_end_matches(is_version);
    let first = argv.iter().chain(more).nth(1);
    let names_script = first.is_some_and(|first: &String| !first.is_empty() && !first.starts_with('-'));
    if WRAPPERS.contains(&bare) || INTERPRETERS.contains(&bare) && !names_script {
        return Err(Fault::Place(format!(
            "found the program `{program}`, which runs what its arguments say, expected the program itself, or a script as \
             the first argument"
        )));
    }
    let is_plain = |text: &str| text.chars().all(|c| c.is_alphanumeric() || PLAIN.contains(c));
    let could_run = |argument: &&String| match Template::parse(argument) {
        Ok(template) => template.parts.iter().any(|part| matches!(part, Part::Text(text) if !is_plain(text))),
        Err(_) => true,
    };
    // Those of an agent have no references.
    let of_agent = argv.iter().skip(1).find(|argument| !is_plain(argument));
    match of_agent.or_else(|| more.iter().find(could_run)) {
        Some(text) => Err(Fault::Place(format!(
            "found the argument `{}` beside it, which could be a text that the program runs, expected options, paths and \
             words",
            text.escape_debug()
        ))),
        None => Ok(()),
    }
}
