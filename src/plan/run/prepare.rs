//! Prepares the directory of a run: finds and pins the inputs, and keeps the plan.

use super::claim::{self, BASE, Holds};
use super::disk::{self, Disk};
use super::error::RunError;
use super::event::{Artifact, Event};
use super::fill::Folders;
use super::given;
use super::journal::{JOURNAL, Journal, PLAN};
use super::machine::Machine;
use super::machine::Setup;
use super::publish::reads::{Files, SEEN, differs};
use super::publish::receipts::Earlier;
use crate::endpoint::check;
use crate::io::digest;
use crate::io::digest::known::Known;
use crate::io::folder::readers::Readers;
use crate::io::folder::{self, EntryKind, names};
use crate::io::source::identity_of;
use crate::plan::{nested, read};
use crate::schema::{Input, Pin, Plan};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// What a run needs beside its plan.
#[derive(Clone, Default, Debug)]
pub struct Place {
    /// The directory of the run.
    pub root: PathBuf,
    /// The folder of the plan's inputs.
    pub base: PathBuf,
    /// Files or folders that the operator names for inputs.
    pub named: BTreeMap<String, Vec<PathBuf>>,
    /// Who alone may read the plan, as its file; `None` for all accounts.
    pub readers: Option<Readers>,
    /// The run whose results this one may take over.
    pub earlier: Option<Earlier>,
}

/// Finds the files of all inputs of a plan, and takes their digests.
///
/// # Errors
///
/// When an input lies outside of the folder of the plan, has too few or too many files, or is not what its pin says.
pub fn pin(plan: &Plan, place: &Place, known: &Known) -> Result<BTreeMap<String, Vec<Artifact>>, RunError> {
    check_names(plan, place)?;
    let inputs = plan.inputs.iter().map(|input| Ok((input.name.to_string(), files(input, place, known)?)));
    inputs.chain(given::pins(plan, &place.base)).collect()
}

/// Checks that the plan has each input that the operator names.
fn check_names(plan: &Plan, place: &Place) -> Result<(), RunError> {
    let unknown = place.named.keys().find(|name| plan.input(name).is_none());
    if let Some(name) = unknown {
        let known: Vec<&str> = plan.inputs.iter().map(|input| input.name.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(RunError::Input {
            input: name.clone(),
            why: format!("the plan has no such input; it has {known}"),
        });
    }
    Ok(())
}

/// The paths of the files of an input, from the folder of the plan or absolute.
///
/// # Errors
///
/// When a path leads outside of the folder of the plan, or a folder cannot be listed.
pub fn paths(input: &Input, place: &Place) -> Result<Vec<String>, RunError> {
    let fault = |why: String| RunError::Input { input: input.name.to_string(), why };
    let paths = match (place.named.get(input.name.as_str()), &input.path, &input.glob) {
        (Some(named), _, _) => {
            let listed = named.iter().map(|named| listed(named, "").map_err(fault));
            listed.collect::<Result<Vec<_>, RunError>>()?.concat()
        }
        (None, Some(path), None) => {
            inside(path).map_err(fault)?;
            listed(&place.base, path).map_err(fault)?
        }
        (None, None, Some(pattern)) => {
            inside(pattern).map_err(fault)?;
            let found = names::matching(&place.base, pattern).map_err(fault)?;
            outside_of_runs(found, pattern, place)
        }
        _ => return Err(fault("expected either `path` or `glob`".to_owned())),
    };
    Ok(paths)
}

/// The files that lie in no directory of a run or a rendered plan, unless the pattern names the directory itself.
fn outside_of_runs(mut files: Vec<String>, pattern: &str, place: &Place) -> Vec<String> {
    let named = pattern.split('/').take_while(|part| !part.contains(['*', '?', '['])).count();
    let own = folder::real(&place.root).ok();
    let mut holds: BTreeMap<PathBuf, bool> = BTreeMap::new();
    files.retain(|file| {
        let above = Path::new(file).ancestors().skip(1);
        !above.filter(|above| above.components().count() > named).any(|above| {
            *holds.entry(above.to_owned()).or_insert_with(|| {
                let whole = place.base.join(above);
                claim::of(&whole) != Holds::Nothing || own.is_some() && folder::real(&whole).ok() == own
            })
        })
    });
    files
}

fn files(input: &Input, place: &Place, known: &Known) -> Result<Vec<Artifact>, RunError> {
    let fault = |why: String| RunError::Input { input: input.name.to_string(), why };
    let paths = paths(input, place)?;
    let count = paths.len() as u64;
    if count < input.min || input.max.is_some_and(|most| count > most) {
        let most = input.max.map_or(String::new(), |most| format!(" and at most {most}"));
        let searched = input.glob.as_ref().or(input.path.as_ref());
        let searched = searched.filter(|_| !place.named.contains_key(input.name.as_str()));
        let of = searched.map_or(String::new(), |name| format!(" of {name} in {}", place.base.display()));
        let home = searched.is_some_and(|name| name.starts_with('~'));
        let home = if home { "; `~` stands for itself: write the whole path" } else { "" };
        return Err(fault(format!("found {count} files{of}, expected at least {}{most}{home}", input.min)));
    }
    // An operator may name any file: its path is absolute, and stays as it is.
    let is_named = place.named.contains_key(input.name.as_str());
    let whole = paths.iter().map(|path| place.base.join(path));
    let absolute: Vec<PathBuf> = match is_named {
        true => whole.collect(),
        false => {
            let why = |why| fault(format!("{why}; --input names files elsewhere"));
            whole.map(|path| folder::within(&place.base, &path)).collect::<Result<_, _>>().map_err(why)?
        }
    };
    let found = known.identify_all(&absolute).into_iter().zip(paths.iter().zip(&absolute));
    let files = found.map(|(stored, (path, absolute))| {
        let stored = stored.map_err(|why| fault(format!("{}: {why}", absolute.display())))?;
        Ok(Artifact { path: path.clone(), blake3: stored.blake3, bytes: stored.bytes })
    });
    let files = files.collect::<Result<Vec<_>, RunError>>()?;
    if let Pin::Files(pins) = &input.pin {
        check_pins(pins, &files, &place.base).map_err(fault)?;
    }
    Ok(files)
}

/// Checks that a path stays inside of the folder of the plan.
fn inside(path: &str) -> Result<(), String> {
    let stays =
        Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if stays && !path.is_empty() {
        return Ok(());
    }
    Err(format!("found `{path}`, expected a path inside of the plan's folder; --input names files elsewhere"))
}

/// A file alone, or the files of a folder, in order; relative to `base` where that is a folder above.
fn listed(base: &Path, path: &str) -> Result<Vec<String>, String> {
    let whole = if path.is_empty() { absolute(base)? } else { base.join(path) };
    let text = |path: &Path| path.to_str().map(str::to_owned).ok_or_else(|| names::is_no_text(path));
    let shown = |name: &str| if path.is_empty() { whole.join(name) } else { Path::new(path).join(name) };
    if folder::is_folder(&whole) {
        names::check_files(&whole)?;
        let entries = folder::entries(&whole).map_err(|why| format!("{}: {why}", whole.display()))?;
        let files = entries.into_iter().filter(|(_, kind)| *kind == EntryKind::File);
        return files.map(|(name, _)| text(&shown(&name))).collect();
    }
    if !folder::exists(&whole) {
        return Ok(Vec::new());
    }
    text(if path.is_empty() { &whole } else { Path::new(path) }).map(|path| vec![path])
}

/// The path of a folder from the root. Commands get it as text, so it must be one.
///
/// # Errors
///
/// When its name is not UTF-8.
pub fn absolute(path: &Path) -> Result<PathBuf, String> {
    let whole = std::path::absolute(path).map_err(|why| format!("{}: {why}", path.display()))?;
    if whole.to_str().is_none() {
        return Err(names::is_no_text(&whole));
    }
    Ok(whole)
}

fn check_pins(pins: &BTreeMap<String, String>, files: &[Artifact], base: &Path) -> Result<(), String> {
    if let Some(missing) = pins.keys().find(|path| files.iter().all(|file| file.path != **path)) {
        return Err(format!("{missing}: the plan pins the file, and it is missing"));
    }
    for file in files {
        let pin = pins.get(&file.path).ok_or_else(|| format!("{}: the plan pins no such file", file.path))?;
        let (algorithm, expected) = pin.split_once(':').unwrap_or(("", pin));
        let found = match algorithm {
            "blake3" => file.blake3.clone(),
            "sha256" => digest::sha256_of_path(&base.join(&file.path))
                .map_err(|why| format!("{}: {why}", file.path))?,
            _ => return Err(format!("{}: found pin `{pin}`, expected blake3:HEX or sha256:HEX", file.path)),
        };
        if found != expected {
            return Err(format!("{}: found {algorithm}:{found}, and the plan pins {pin}", file.path));
        }
    }
    Ok(())
}

/// A run that can be driven.
pub struct Opened<'p> {
    /// The machine.
    pub machine: Machine<'p>,
    /// The world.
    pub world: Disk,
    /// The files of the inputs.
    pub inputs: BTreeMap<String, Vec<Artifact>>,
    /// When the run succeeded, in RFC 3339, if an earlier runner came to its end.
    pub finished: Option<String>,
}

/// Opens the run of a plan in a directory: a new one, or the one that the directory holds.
///
/// # Errors
///
/// When another runner works on it, it belongs to another plan, or its inputs changed.
pub fn open<'p>(plan: &'p Plan, place: &Place, parallel: u32) -> Result<Opened<'p>, RunError> {
    if let Some((at, why)) = check::faults(plan).into_iter().next() {
        return Err(RunError::Plan { at, why });
    }
    let base = absolute(&place.base).and_then(|base| absolute(&place.root).map(|_| base));
    let base = base.map_err(|why| RunError::Plan { at: "--dir".to_owned(), why })?;
    nested::check(plan, &base, None).map_err(|(at, why)| RunError::Plan { at, why })?;
    let digest = read::digest(plan);
    // Before the look for a journal: another runner that begins in between leaves files of this plan, and a journal.
    let free = claim::check_free_for_run(&place.root, plan, &digest);
    if !folder::exists(&place.root.join(JOURNAL)) {
        free?;
    }
    let lock = disk::lock(&place.root)?;
    // One directory has one name, whatever links and dots lead to it: the processes of its attempts carry the name.
    let fault = |source| RunError::Read { path: place.root.clone(), source };
    let root = folder::real(&place.root).map_err(fault)?;
    let place = Place { root: root.clone(), base: base.clone(), ..place.clone() };
    check_room(&root, plan.limits.max_parallel_workflows)?;
    let known = Known::default();
    known.add(&root.join(SEEN));
    let journal = Journal::read(&root)?;
    let events = given::at_present(journal.events(), &root, &place.named);
    let started = events.iter().find_map(|event| match event {
        Event::Start { plan, inputs, .. } => Some((plan.clone(), inputs.clone())),
        _ => None,
    });
    let inputs = match started {
        Some((found, _)) if found != digest => {
            return Err(RunError::OtherPlan { path: root.join(JOURNAL), found, expected: digest });
        }
        Some((_, inputs)) => {
            check_named(plan, &place, &inputs)?;
            match journal.finished() {
                Some(time) => check_same(plan, &place, &inputs, time, &known)?,
                None => check_unchanged(&inputs, &base, &known)?,
            }
            inputs
        }
        None => {
            claim::check_free_for_run(&root, plan, &digest)?;
            let inputs = pin(plan, &place, &known)?;
            keep_plan(plan, &place)?;
            inputs
        }
    };
    let files = Files::new(known, inputs.clone(), &root).reusing(place.earlier);
    files.check_results(events.iter(), &root)?;
    let mut world = Disk::new(&root, plan.id.as_str(), &plan.safety.kill_file, &journal, lock)?
        .within(&plan.limits, &root)?
        .with(files);
    if plan.stages.iter().any(|stage| stage.plan.is_some()) {
        world = world.sharing(plan.limits.max_parallel.unwrap_or(parallel));
    }
    let folders =
        Folders { inputs: base.to_string_lossy().into_owned(), run: root.to_string_lossy().into_owned() };
    let machine = Machine::new(Setup { plan, digest, folders, parallel, part: None }, &events, &mut world)?;
    let finished = journal.finished().map(str::to_owned);
    Ok(Opened { machine, world, inputs, finished })
}

/// Checks that the folder of a run has room for one more live run. Each runner counts after it took its own lock: of two
/// that start at once, both may find no room, and never too many find some.
fn check_room(root: &Path, most: u32) -> Result<(), RunError> {
    let Some(folder) = root.parent() else { return Ok(()) };
    let fault = |source| RunError::Read { path: folder.to_owned(), source };
    let mut live = Vec::new();
    for (name, kind) in folder::entries(folder).map_err(fault)? {
        let other = folder.join(&name);
        if kind == EntryKind::Folder
            && other != root
            && let Some(holder) = disk::holder(&other)?
            && (claim::is_run(&other) || is_empty(&other))
        {
            live.push(format!("{name} ({holder})"));
        }
    }
    if live.len() < most as usize {
        return Ok(());
    }
    Err(RunError::TooMany { folder: folder.to_owned(), live, most })
}

/// Whether a directory holds its lock alone: a run just starts there.
fn is_empty(root: &Path) -> bool {
    folder::entries(root).is_ok_and(|entries| entries.len() == 1)
}

/// Keeps the plan and the place of its inputs in the directory of the run, for `resume`.
///
/// # Errors
///
/// When they cannot be written.
pub fn keep_plan(plan: &Plan, place: &Place) -> Result<(), RunError> {
    let plan = serde_json::to_string_pretty(plan).unwrap_or_default() + "\n";
    let base = place.base.to_string_lossy().into_owned() + "\n";
    // A directory with the plan has the rest too.
    for (name, text) in [(BASE, base), (PLAN, plan)] {
        let path = place.root.join(name);
        let written = folder::write_file(&path, text.as_bytes(), place.readers);
        written.map_err(|source| RunError::Write { path, source })?;
    }
    Ok(())
}

/// Checks that the files that the operator names for inputs are those with which the run started.
fn check_named(plan: &Plan, place: &Place, inputs: &BTreeMap<String, Vec<Artifact>>) -> Result<(), RunError> {
    check_names(plan, place)?;
    for input in plan.inputs.iter().filter(|input| place.named.contains_key(input.name.as_str())) {
        let found = paths(input, place)?;
        let began: Vec<&str> =
            inputs.get(input.name.as_str()).into_iter().flatten().map(|file| file.path.as_str()).collect();
        if found != began {
            let list =
                |paths: &[&str]| if paths.is_empty() { "no file".to_owned() } else { paths.join(", ") };
            let found = list(&found.iter().map(String::as_str).collect::<Vec<_>>());
            let (input, began) = (input.name.to_string(), list(&began));
            return Err(RunError::OtherInput { input, path: place.root.clone(), found, began });
        }
    }
    Ok(())
}

/// Checks that the inputs of a plan are those of its run that succeeded at a time.
fn check_same(
    plan: &Plan,
    place: &Place,
    inputs: &BTreeMap<String, Vec<Artifact>>,
    time: &str,
    known: &Known,
) -> Result<(), RunError> {
    let finished = |why: String| RunError::Finished { path: place.root.clone(), time: time.to_owned(), why };
    check_unchanged(inputs, &place.base, known).map_err(|why| finished(why.to_string()))?;
    for input in plan.inputs.iter().filter(|input| !place.named.contains_key(input.name.as_str())) {
        let began = inputs.get(input.name.as_str()).map_or(&[][..], Vec::as_slice);
        if began.iter().any(|file| file.path.starts_with('/')) {
            // The operator named its files elsewhere when the run started.
            continue;
        }
        if let Some(new) =
            paths(input, place)?.iter().find(|path| began.iter().all(|file| file.path != **path))
        {
            return Err(finished(format!("input `{}`: {new}: the run did not have the file", input.name)));
        }
    }
    Ok(())
}

/// Checks that the inputs of a run are what they were when it started.
fn check_unchanged(
    inputs: &BTreeMap<String, Vec<Artifact>>,
    base: &Path,
    known: &Known,
) -> Result<(), RunError> {
    for (name, files) in inputs {
        let paths: Vec<PathBuf> = files.iter().map(|file| base.join(&file.path)).collect();
        for ((file, path), found) in files.iter().zip(&paths).zip(known.identify_all(&paths)) {
            let fault = |why: String| RunError::Input { input: name.clone(), why };
            if identity_of(path).is_none() {
                return Err(fault(format!(
                    "{}: the run started with the file, and it is missing",
                    path.display()
                )));
            }
            let found = found.map_err(|why| fault(format!("{}: {why}", path.display())))?;
            if found.blake3 != file.blake3 {
                return Err(fault(differs(path, &found, file, "the run started")));
            }
        }
    }
    Ok(())
}
