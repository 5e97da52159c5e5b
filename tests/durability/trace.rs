//! Traces of system calls: the file operations of a run, and whether all its files are on disk.

use crate::harness::{Dir, program, skip};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The environment variable that makes a missing `strace` a failure.
const REQUIRE: &str = "FEDMILL_REQUIRE_STRACE";

/// The system calls that change files or bring them to disk. `?` marks calls that some processors lack.
const CALLS: &str = "?open,openat,?openat2,?creat,write,writev,pwrite64,pwritev,?pwritev2,truncate,ftruncate,fallocate,\
                     ?copy_file_range,sendfile,splice,mmap,fsync,fdatasync,?rename,renameat,renameat2,?link,linkat,\
                     ?symlink,symlinkat,?unlink,unlinkat,?mkdir,mkdirat,?io_uring_setup";

/// Files that keep their names, and are on disk before the run goes on: journals and metrics grow line by line, and SQLite
/// writes to a registry after its own journal.
const JOURNALS: [&str; 6] = [
    "ledger.jsonl",
    "clients.db",
    "journal.jsonl",
    "events.jsonl",
    "rounds.jsonl",
    "events.out.tfevents.0.fedmill",
];

/// The folder in which the commands of a plan work, which a crash may lose: each attempt begins in a fresh one.
const SCRATCH: &str = "attempts";

/// Whether `strace` works here. If not, prints that the calling test is skipped.
pub(crate) fn is_possible() -> bool {
    let tried = Command::new("strace").args(["-qq", "-e", "trace=none", "true"]).output();
    let works = tried.is_ok_and(|output| output.status.success());
    assert!(works || std::env::var_os(REQUIRE).is_none(), "{REQUIRE} is set, and strace does not work here");
    if !works {
        skip("strace does not work here");
    }
    works
}

/// First and last line of the call in the trace.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Span {
    began: usize,
    ended: usize,
}

/// A system call that succeeded.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) name: String,
    arguments: Vec<String>,
    span: Span,
}

/// State of a file. A different state shows that the file was replaced or changed.
#[derive(Clone, PartialEq, Debug)]
struct Stat {
    inode: u64,
    modified: (i64, i64),
    bytes: u64,
    is_directory: bool,
}

type Stats = BTreeMap<PathBuf, Stat>;

/// A traced run.
pub(super) struct Traced {
    pub(super) code: Option<i32>,
    pub(super) stderr: String,
    pub(super) calls: Vec<Call>,
    root: PathBuf,
    before: Stats,
    after: Stats,
}

/// Runs the program in the folder under `strace`; `more` has further options of `strace`.
pub(super) fn traced(dir: &Dir, args: &[&str], more: &[&str]) -> Traced {
    traced_to(Stdio::piped(), dir, args, more)
}

/// Runs the program as [`traced`], with this standard output.
pub(super) fn traced_to(stdout: Stdio, dir: &Dir, args: &[&str], more: &[&str]) -> Traced {
    let root = fs::canonicalize(dir.path("")).unwrap();
    let before = stats(&root);
    let scratch = Dir::new();
    let log = scratch.path("trace");
    let output = Command::new("strace")
        .args(["-f", "-y", "-qq", "-s", "0", "-e", "signal=none", "-e", &format!("trace={CALLS}"), "-o"])
        .arg(&log)
        .args(more)
        .arg(program())
        .args(args)
        .current_dir(&root)
        .env("XDG_CACHE_HOME", root.join("cache"))
        // No GPU: GPU drivers keep files in the cache.
        .env("VK_DRIVER_FILES", "none")
        .env("VK_ICD_FILENAMES", "none")
        .env("NODEVICE_SELECT", "1")
        .env_remove("RUST_LOG")
        .stdout(stdout)
        .output()
        .unwrap();
    let calls = calls(&fs::read_to_string(log).unwrap());
    assert!(!calls.is_empty(), "strace saw nothing: {output:?}");
    Traced {
        code: output.status.code(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        calls,
        before,
        after: stats(&root),
        root,
    }
}

fn stats(folder: &Path) -> Stats {
    let mut found = Stats::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            found.extend(stats(&path));
        }
        let stat = Stat {
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            bytes: metadata.len(),
            is_directory: metadata.is_dir(),
        };
        found.insert(path, stat);
    }
    found
}

/// The successful calls of a trace, in the order in which they ended.
fn calls(log: &str) -> Vec<Call> {
    let mut begun: HashMap<&str, (usize, &str)> = HashMap::new();
    let mut found = Vec::new();
    for (line, text) in log.lines().enumerate() {
        let (process, text) = text.split_once(' ').unwrap();
        let text = text.trim_start();
        if let Some(first) = text.strip_suffix(" <unfinished ...>") {
            begun.insert(process, (line, first));
            continue;
        }
        let (began, text) = match text.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
            Some((_, rest)) => {
                let (began, first) = begun.remove(process).unwrap();
                (began, format!("{first}{rest}"))
            }
            None => (line, text.to_owned()),
        };
        found.extend(call(&text, Span { began, ended: line }));
    }
    found
}

fn call(text: &str, span: Span) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ")?;
    let arguments = arguments.trim_end().strip_suffix(')')?;
    assert!(!arguments.contains('\\'), "a path that strace escapes: {text}");
    let failed = result.starts_with('-') || result.starts_with('?');
    let arguments = arguments.split(", ").map(str::to_owned).collect();
    (!failed).then(|| Call { name: name.to_owned(), arguments, span })
}

impl Call {
    /// The path that a descriptor stands for: `3</folder/file>`.
    fn descriptor(&self, argument: usize) -> Option<PathBuf> {
        let text = self.arguments.get(argument)?;
        let (_, path) = text.split_once('<')?;
        Some(PathBuf::from(path.split_once('>')?.0))
    }

    /// The path in quotes. If a descriptor precedes it, the path is in the descriptor's folder.
    fn path(&self, argument: usize, root: &Path) -> PathBuf {
        let name = self.arguments[argument].trim_matches('"');
        let folder = argument.checked_sub(1).and_then(|before| self.descriptor(before));
        let path = folder.unwrap_or_else(|| root.to_owned()).join(name);
        // The trace uses the real paths, without links.
        let parent = path.parent().and_then(|parent| fs::canonicalize(parent).ok());
        parent.map_or(path.clone(), |parent| parent.join(path.file_name().unwrap_or_default()))
    }

    fn says(&self, argument: usize, flag: &str) -> bool {
        self.arguments.get(argument).is_some_and(|text| text.contains(flag))
    }

    /// The file or folder that this call brings to disk.
    pub(super) fn synced(&self) -> Option<PathBuf> {
        matches!(self.name.as_str(), "fsync" | "fdatasync").then(|| self.descriptor(0)).flatten()
    }
}

/// How a path got its file.
#[derive(Clone, Copy, Debug)]
enum Named {
    /// The path named the file before the run.
    Before,
    /// The run created the file under this path.
    Created(Span),
    /// The run renamed or linked the file to this path.
    Moved(Span),
    /// The run renamed the folder of the file, which was on disk with all that it holds.
    WithFolder,
}

/// Changes of a file's content, and the calls that brought it to disk.
#[derive(Clone, Default, Debug)]
struct File {
    writes: Vec<Span>,
    syncs: Vec<Span>,
}

/// All files and folders of a run.
struct Files<'a> {
    run: &'a Traced,
    files: Vec<File>,
    names: BTreeMap<PathBuf, (usize, Named)>,
    /// Folders that the run brought to disk.
    folder_syncs: Vec<(PathBuf, Span)>,
    made_folders: Vec<(PathBuf, Span)>,
    removed: Vec<(PathBuf, Span)>,
    /// Every file under a public name, and the temporary files before it.
    steps: Vec<Span>,
    /// Lines where the run printed something.
    prints: Vec<Span>,
}

impl Traced {
    /// The trace without one of its calls.
    pub(super) fn without(&self, place: usize) -> Vec<Call> {
        let mut calls = self.calls.clone();
        calls.remove(place);
        calls
    }

    /// The trace with two of its calls swapped.
    pub(super) fn exchanged(&self, one: usize, other: usize) -> Vec<Call> {
        let mut calls = self.calls.clone();
        let spans = [calls[one].span, calls[other].span];
        (calls[one].span, calls[other].span) = (spans[1], spans[0]);
        calls.swap(one, other);
        calls
    }

    /// Every file that the run published, by the end of its path.
    pub(super) fn published(&self) -> Vec<String> {
        let files = Files::of(self, &self.calls);
        let is_left = |(path, (_, named)): &(&PathBuf, &(usize, Named))| {
            matches!(named, Named::Moved(_)) && self.after.contains_key(*path)
        };
        let named = files.names.iter().filter(is_left);
        named.map(|(path, _)| path.strip_prefix(&self.root).unwrap().display().to_string()).collect()
    }

    /// Whether the published file is on disk under its name before another file gets its name.
    pub(super) fn is_on_disk_before(&self, first: &str, then: &str) -> bool {
        let files = Files::of(self, &self.calls);
        let path = self.root.join(first);
        files.is_folder_synced(&path, files.moved(&path), files.moved(&self.root.join(then)).began)
    }

    /// Whether the removal of an old file is on disk before another file gets its name.
    pub(super) fn is_gone_before(&self, first: &str, then: &str) -> bool {
        let files = Files::of(self, &self.calls);
        let first = self.root.join(first);
        let removed = files.removed.iter().find(|(path, _)| *path == first);
        let then = files.moved(&self.root.join(then)).began;
        removed.is_some_and(|(path, span)| files.is_folder_synced(path, *span, then))
    }

    /// Everything that could be lost, or be incomplete, if the machine stops.
    pub(super) fn faults(&self) -> Vec<String> {
        self.faults_of(&self.calls)
    }

    /// The same check on other calls.
    pub(super) fn faults_of(&self, calls: &[Call]) -> Vec<String> {
        let files = Files::of(self, calls);
        let mut faults = files.unexplained();
        for (path, (file, named)) in &files.names {
            if self.after.contains_key(path) {
                let name = path.strip_prefix(&self.root).unwrap().display();
                faults.extend(
                    files.fault(path, &files.files[*file], *named).map(|why| format!("{name}: {why}")),
                );
            }
        }
        for (what, changed) in [("made", &files.made_folders), ("removed", &files.removed)] {
            let is_lost =
                |(path, span): &&(PathBuf, Span)| !files.is_folder_synced(path, *span, files.said(*span));
            let is_done = |(path, _): &&(PathBuf, Span)| self.after.contains_key(path) == (what == "made");
            let is_kept = |(path, _): &&(PathBuf, Span)| path.iter().all(|part| part != SCRATCH);
            let lost = changed.iter().filter(is_done).filter(is_kept).filter(is_lost);
            faults.extend(
                lost.map(|(path, _)| format!("{}: {what}, and its folder is not on disk", path.display())),
            );
        }
        faults
    }
}

impl<'a> Files<'a> {
    fn of(run: &'a Traced, calls: &[Call]) -> Self {
        let mut files = Self {
            run,
            files: Vec::new(),
            names: BTreeMap::new(),
            folder_syncs: Vec::new(),
            made_folders: Vec::new(),
            removed: Vec::new(),
            steps: Vec::new(),
            prints: Vec::new(),
        };
        calls.iter().for_each(|call| files.take(call));
        files
    }

    /// The line where a published file got its name.
    fn moved(&self, path: &Path) -> Span {
        match self.names[path].1 {
            Named::Moved(span) => span,
            other => panic!("{path:?} was not published: {other:?}"),
        }
    }

    fn is_ours(&self, path: &Path) -> bool {
        path.starts_with(&self.run.root)
    }

    fn take(&mut self, call: &Call) {
        let root = &self.run.root;
        match call.name.as_str() {
            "open" | "creat" => self.open(call.path(0, root), call, 1),
            "openat" | "openat2" => self.open(call.path(1, root), call, 2),
            "write" | "writev" if ["1<", "2<"].iter().any(|to| call.arguments[0].starts_with(to)) => {
                self.steps.push(call.span);
                self.prints.push(call.span);
            }
            // Room for bytes to come is no bytes.
            "fallocate" if call.says(1, "FALLOC_FL_KEEP_SIZE") => {}
            "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2" | "ftruncate" | "fallocate"
            | "sendfile" => {
                self.write(call.descriptor(0), call);
            }
            "copy_file_range" | "splice" => self.write(call.descriptor(2), call),
            "truncate" => self.write(Some(call.path(0, root)), call),
            "mmap" => {
                let writes = call.says(2, "PROT_WRITE") && call.says(3, "MAP_SHARED");
                let path = call.descriptor(4).filter(|path| writes && self.is_ours(path));
                assert!(path.is_none(), "{path:?} is written through memory, which a trace does not show");
            }
            "io_uring_setup" => panic!("files are written by a ring, which a trace does not show"),
            "rename" => self.rename(call.path(0, root), call.path(1, root), call.span),
            "renameat" | "renameat2" => self.rename(call.path(1, root), call.path(3, root), call.span),
            "link" => self.link(call.path(0, root), call.path(1, root), call.span),
            "linkat" => self.link(call.path(1, root), call.path(3, root), call.span),
            "symlink" => self.name_nothing(call.path(1, root), call.span),
            "symlinkat" => self.name_nothing(call.path(2, root), call.span),
            "unlink" => self.remove(call.path(0, root), call.span),
            "unlinkat" => self.remove(call.path(1, root), call.span),
            "mkdir" => self.make_folder(call.path(0, root), call.span),
            "mkdirat" => self.make_folder(call.path(1, root), call.span),
            _ if call.synced().is_some() => self.sync(call),
            other => panic!("{other} is traced, and nothing is done about it"),
        }
    }

    /// The file that had this name before the run used it.
    fn file(&mut self, path: &Path) -> usize {
        if let Some((file, _)) = self.names.get(path) {
            return *file;
        }
        self.files.push(File::default());
        self.names.insert(path.to_owned(), (self.files.len() - 1, Named::Before));
        self.files.len() - 1
    }

    fn open(&mut self, path: PathBuf, call: &Call, flags: usize) {
        let creates = call.name == "creat" || call.says(flags, "O_CREAT");
        let writes = creates || call.says(flags, "O_WRONLY") || call.says(flags, "O_RDWR");
        if !self.is_ours(&path) || !writes {
            return;
        }
        let is_new = !self.names.contains_key(&path) && !self.run.before.contains_key(&path);
        let file = self.file(&path);
        if creates && is_new {
            self.names.insert(path.clone(), (file, Named::Created(call.span)));
        }
        if !is_new && call.says(flags, "O_TRUNC") {
            self.write(Some(path), call);
        }
    }

    fn write(&mut self, path: Option<PathBuf>, call: &Call) {
        if let Some(path) = path.filter(|path| self.is_ours(path)) {
            let file = self.file(&path);
            self.files[file].writes.push(call.span);
            self.steps.push(call.span);
        }
    }

    fn sync(&mut self, call: &Call) {
        let Some(path) = call.descriptor(0).filter(|path| self.is_ours(path)) else { return };
        let is_folder = path.is_dir() || self.made_folders.iter().any(|(folder, _)| *folder == path);
        if is_folder {
            self.folder_syncs.push((path, call.span));
        } else {
            let file = self.file(&path);
            self.files[file].syncs.push(call.span);
        }
    }

    /// A symbolic link: a name without content to bring to disk.
    fn name_nothing(&mut self, path: PathBuf, span: Span) {
        self.files.push(File::default());
        self.names.insert(path, (self.files.len() - 1, Named::Moved(span)));
    }

    /// Gives the files of a folder their new paths.
    fn rename_folder(&mut self, from: &Path, to: &Path, span: Span) {
        let inside = self.names.keys().filter(|path| path.starts_with(from) && path.as_path() != from);
        for old in inside.cloned().collect::<Vec<_>>() {
            let (file, named) = self.names.remove(&old).unwrap();
            let is_whole = match named {
                Named::Created(made) => {
                    is_synced(&self.files[file], span.began) && self.is_folder_synced(&old, made, span.began)
                }
                _ => false,
            };
            let named = if is_whole { Named::WithFolder } else { named };
            self.names.insert(to.join(old.strip_prefix(from).unwrap()), (file, named));
        }
    }

    fn rename(&mut self, from: PathBuf, to: PathBuf, span: Span) {
        self.rename_folder(&from, &to, span);
        let file = self.file(&from);
        self.names.remove(&from);
        self.names.insert(to, (file, Named::Moved(span)));
        self.steps.push(span);
    }

    fn link(&mut self, from: PathBuf, to: PathBuf, span: Span) {
        let file = self.file(&from);
        self.names.insert(to, (file, Named::Moved(span)));
        self.steps.push(span);
    }

    fn make_folder(&mut self, path: PathBuf, span: Span) {
        if self.is_ours(&path) {
            self.made_folders.push((path, span));
        }
    }

    fn remove(&mut self, path: PathBuf, span: Span) {
        self.names.remove(&path);
        if self.run.before.contains_key(&path) {
            self.removed.push((path, span));
        }
    }

    /// The first line after a call at which the run printed. Until then the effect of the call must be on disk.
    fn said(&self, behind: Span) -> usize {
        let prints = self.prints.iter().filter(|print| print.began > behind.ended);
        prints.map(|print| print.began).min().unwrap_or(usize::MAX)
    }

    /// Whether the folder of a path was brought to disk after a call, and before a line of the trace.
    fn is_folder_synced(&self, path: &Path, behind: Span, before: usize) -> bool {
        self.folder_syncs.iter().any(|(folder, sync)| {
            Some(folder.as_path()) == path.parent() && sync.began > behind.ended && sync.ended < before
        })
    }

    /// The faults of a file that the run left.
    fn fault(&self, path: &Path, file: &File, named: Named) -> Option<&'static str> {
        let is_journal = path.file_name().is_some_and(|name| JOURNALS.iter().any(|journal| *journal == name));
        // What a lock says of its holder matters while the holder lives.
        if ["fed/lock", "run/lock", "a/lock"].iter().any(|lock| path.ends_with(lock)) {
            return None;
        }
        match named {
            Named::Moved(span) if !is_synced(file, span.began) => Some("has its name before it is on disk"),
            Named::Moved(span) if !self.is_folder_synced(path, span, self.said(span)) => {
                Some("its name is not on disk")
            }
            Named::Moved(_) | Named::WithFolder => None,
            // A lock.
            Named::Created(_) | Named::Before if file.writes.is_empty() => None,
            Named::Created(_) | Named::Before if !is_journal => Some("is written under its own name"),
            Named::Created(span) if !self.is_folder_synced(path, span, self.next_step(file)) => {
                Some("the run goes on before its name is on disk")
            }
            Named::Created(_) | Named::Before => self.journal_fault(file),
        }
    }

    /// The first step after the first write to a file, other than a write to the same file.
    fn next_step(&self, file: &File) -> usize {
        let first = file.writes[0];
        let others = self.steps.iter().filter(|step| step.began > first.began && !file.writes.contains(step));
        others.map(|step| step.began).min().unwrap_or(usize::MAX)
    }

    /// A journal is on disk before the run goes on. A change of its length is not a step.
    fn journal_fault(&self, file: &File) -> Option<&'static str> {
        let is_lost = |write: &Span| {
            let others =
                self.steps.iter().filter(|step| step.began > write.began && !file.writes.contains(step));
            let next = others.map(|step| step.began).min().unwrap_or(usize::MAX);
            !file.syncs.iter().any(|sync| sync.began > write.ended && sync.ended < next)
        };
        file.writes.iter().any(is_lost).then_some("the run goes on before its line is on disk")
    }

    /// Files that are new or changed although no call explains it.
    fn unexplained(&self) -> Vec<String> {
        let (before, after) = (&self.run.before, &self.run.after);
        let changed =
            after.iter().filter(|(path, stat)| before.get(*path) != Some(*stat) && !stat.is_directory);
        let is_explained = |path: &PathBuf| match self.names.get(path) {
            Some((file, Named::Before)) => !self.files[*file].writes.is_empty(),
            Some((file, Named::Created(_))) => after[path].bytes == 0 || !self.files[*file].writes.is_empty(),
            Some((_, Named::Moved(_) | Named::WithFolder)) => true,
            None => false,
        };
        let unexplained = changed.map(|(path, _)| path).filter(|path| !is_explained(path));
        unexplained.map(|path| format!("{}: changed, and no call says how", path.display())).collect()
    }
}

/// Whether a file was brought to disk after its last write, and before a line of the trace.
fn is_synced(file: &File, before: usize) -> bool {
    let Some(last) = file.writes.iter().map(|write| write.ended).max() else { return true };
    file.syncs.iter().any(|sync| sync.began > last && sync.ended < before)
}
