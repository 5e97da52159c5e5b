//! Published files are on disk: the data before the name, the name before the command reports it.
//!
//! The tests run every command that writes under `strace`, and find the published files in the trace. On a machine
//! without `strace` the tests print that they are skipped, or fail if `FEDMILL_REQUIRE_STRACE` is set.

pub(crate) mod trace;

use crate::harness::{Dir, Update, fedmill, program};
use std::any::TypeId;
use std::collections::BTreeSet;
use std::fs::File;
use std::process::{Command, Stdio};
use trace::{Call, Traced, is_possible, traced, traced_to};

/// Options whose files are inputs, not outputs.
const READ: [&str; 14] = [
    "agents",
    "from",
    "base",
    "files_from",
    "tiers",
    "partials",
    "decision",
    "sums",
    "global",
    "personal",
    "event",
    "events",
    "models",
    "reuse",
];

/// Commands that write a file without an argument that names its path.
const WRITES: [&str; 1] = ["doctor --calibrate"];

/// The traced runs, by command and options.
#[derive(Default)]
struct Covered {
    words: BTreeSet<String>,
    faults: Vec<String>,
    /// Whether standard output is a full device.
    is_full: bool,
}

impl Covered {
    /// Runs a command under `strace`. Fails unless it succeeds, publishes these files and leaves everything on disk.
    #[track_caller]
    fn run(&mut self, dir: &Dir, command: &str, published: &[&str]) -> Traced {
        self.run_with(dir, command, published, &[])
    }

    /// Runs a command that shows something and writes nothing: only there a full standard output is an error.
    #[track_caller]
    fn look(&mut self, dir: &Dir, command: &str) {
        let run = self.trace(dir, command, &[]);
        let code = if self.is_full { 2 } else { 0 };
        assert_eq!((run.code, run.published()), (Some(code), vec![]), "{command}: {}", run.stderr);
    }

    #[track_caller]
    fn run_with(&mut self, dir: &Dir, command: &str, published: &[&str], strace: &[&str]) -> Traced {
        let run = self.trace(dir, command, strace);
        assert_eq!(run.code, Some(0), "{command}: {}", run.stderr);
        let found = run.published();
        let is_published = |name: &&str| found.iter().any(|found| found == name);
        assert!(published.iter().all(is_published), "{command}: published {found:?}, not {published:?}");
        self.faults.extend(run.faults().into_iter().map(|fault| format!("{command}: {fault}")));
        run
    }

    fn trace(&mut self, dir: &Dir, command: &str, strace: &[&str]) -> Traced {
        let args: Vec<&str> = command.split_whitespace().collect();
        let is_nested = ["privacy", "clients", "agents", "round", "plan", "secagg", "he"].contains(&args[0]);
        let name = if is_nested { args[..2].join(" ") } else { args[0].to_owned() };
        let options = args.iter().filter(|arg| arg.starts_with('-')).map(|arg| format!("{name} {arg}"));
        self.words.extend(options.chain([name.clone()]));
        let full = self.is_full.then(|| File::options().write(true).open("/dev/full").unwrap().into());
        traced_to(full.unwrap_or_else(Stdio::piped), dir, &args, strace)
    }

    #[track_caller]
    fn assert_sound(&self) {
        assert!(self.faults.is_empty(), "not on disk for good:\n{}", self.faults.join("\n"));
    }

    /// Fails unless every command that may write ran, with every option that names an output. Such a command takes the
    /// path of its output as an argument, or is named in [`WRITES`].
    fn assert_complete(&self) {
        let unnamed = WRITES.into_iter().filter(|words| !self.words.contains(*words)).map(str::to_owned);
        let mut missing: Vec<String> = unnamed.collect();
        self.find_missing(&fedmill::cli::command(), "", &mut missing);
        assert!(missing.is_empty(), "these are not traced: {missing:#?}");
    }

    fn find_missing(&self, command: &clap::Command, above: &str, missing: &mut Vec<String>) {
        for command in command.get_subcommands() {
            let name = format!("{above}{}", command.get_name());
            if command.has_subcommands() {
                self.find_missing(command, &format!("{name} "), missing);
                continue;
            }
            let is_path =
                |arg: &&clap::Arg| arg.get_value_parser().type_id() == TypeId::of::<std::path::PathBuf>();
            if !self.words.contains(&name) && command.get_arguments().any(|arg| is_path(&arg)) {
                missing.push(name.clone());
            }
            for arg in command.get_arguments().filter(is_path) {
                let long = arg.get_long().map(|long| format!("{name} --{long}"));
                let short = arg.get_short().map(|short| format!("{name} -{short}"));
                let is_run = [long, short].into_iter().flatten().any(|word| self.words.contains(&word));
                let is_read = READ.contains(&arg.get_id().as_str());
                if arg.get_long().is_some() && !is_run && !is_read {
                    missing.push(format!("{name} --{}", arg.get_id()));
                }
            }
        }
    }
}

fn model(name: &str, seed: usize) -> Update {
    let values: Vec<f32> = (0..1280).map(|i| ((i * 7 + seed * 31) % 97) as f32 / 50.0 - 1.0).collect();
    Update::new(name).f32("a.weight", &[20, 64], &values).f32("b", &[40], &values[..40]).i64(
        "n",
        &[1],
        &[seed as i64],
    )
}

/// Five clients and a base.
fn round() -> Dir {
    let dir = Dir::new();
    model("base", 0).write(&dir);
    for client in 1..=5 {
        let update = model(&format!("in/c{client}"), client).meta("num_examples", "3").meta("round", "1");
        update.meta("client_id", &format!("c{client}")).write(&dir);
    }
    dir
}

#[test]
fn everything_published_is_on_disk() {
    if !is_possible() {
        return;
    }
    let mut covered = Covered::default();
    all(&mut covered);
    covered.assert_sound();
    covered.assert_complete();
}

/// Every command that writes something has the same status and the same files where nothing can be printed.
#[test]
fn a_full_standard_output_changes_no_work() {
    if !is_possible() {
        return;
    }
    let mut covered = Covered { is_full: true, ..Covered::default() };
    all(&mut covered);
    covered.assert_complete();
}

fn all(covered: &mut Covered) {
    aggregate(covered);
    shards(covered);
    private(covered);
    updates(covered);
    plans(covered);
    measured(covered);
    federation(covered);
    registry(covered);
    secure(covered);
    #[cfg(feature = "he")]
    encrypted(covered);
}

/// A round of homomorphic encryption.
#[cfg(feature = "he")]
fn encrypted(covered: &mut Covered) {
    use crate::he::World;
    let world = World::with_terms(2, 50, 1, "");
    let dir = &world.dir;
    covered.run(dir, "he params --clients 2 -o new.json", &["new.json"]);
    let keys = "--params new.json --key keys/holder.key --id holder --public new.he --secret new-sk.he";
    covered.run(dir, &format!("he keygen {keys}"), &["new.he", "new-sk.he"]);
    covered.run(dir, &format!("{} -o second.json", world.open()), &["second.json"]);
    for client in 1..=2 {
        let line = format!("{} --journal new/journal-{client}", world.encrypt_line(client));
        covered.run(dir, &line, &[&format!("c/client-{client}.he")]);
    }
    covered.run(dir, &format!("{} c", World::ADD), &["sum.he"]);
    covered.run(dir, &format!("{} --journal new/holder", world.decrypt_line(2)), &["mean.safetensors"]);
}

/// The negative control, on the calls of a real merge. Without any call that brings something to disk, or with two
/// steps swapped, the check finds a fault.
#[test]
fn a_step_that_is_missing_or_comes_too_early_is_a_fault() {
    if !is_possible() {
        return;
    }
    let dir = round();
    let run = traced(&dir, &words("aggregate in -q --threads 1 -o m.safetensors"), &[]);
    assert_eq!((run.code, run.faults().len()), (Some(0), 0), "{:?}", run.faults());
    let places = |is: &dyn Fn(&Call) -> bool| -> Vec<usize> {
        run.calls.iter().enumerate().filter(|(_, call)| is(call)).map(|(place, _)| place).collect()
    };
    let syncs = places(&|call| call.synced().is_some());
    let [of_file, of_folder] = syncs[..] else { panic!("{} calls bring something to disk", syncs.len()) };
    let rename = places(&|call| call.name.starts_with("rename"))[0];
    let last_write =
        *places(&|call| call.name == "pwrite64").iter().filter(|place| **place < of_file).max().unwrap();
    let print = *places(&|call| call.name == "write").last().unwrap();
    assert!(last_write < of_file && of_file < rename && rename < of_folder && of_folder < print);
    let [early, unnamed] =
        ["m.safetensors: has its name before it is on disk", "m.safetensors: its name is not on disk"];
    for (calls, fault) in [
        (run.without(of_file), early),
        (run.without(of_folder), unnamed),
        (run.exchanged(of_file, rename), early),
        (run.exchanged(last_write, of_file), early),
        (run.exchanged(rename, of_folder), unnamed),
        (run.exchanged(of_folder, print), unnamed),
    ] {
        assert_eq!(run.faults_of(&calls), [fault]);
    }
    let unexplained = run.faults_of(&run.without(rename));
    assert!(
        unexplained.len() == 1 && unexplained[0].ends_with("changed, and no call says how"),
        "{unexplained:?}"
    );

    // A ledger: its lines, its name and its folder entry.
    let init = "privacy init new/dp --population 100 --epsilon 5 --delta 1e-3 --noise-multiplier 2 --rounds 2 --clip 1 \
                --denominator 3 --base base.safetensors";
    let run = traced(&dir, &words(init), &[]);
    assert_eq!((run.code, run.faults().len()), (Some(0), 0), "{:?}", run.faults());
    for synced in run.calls.iter().filter_map(Call::synced).collect::<BTreeSet<_>>() {
        let calls: Vec<Call> =
            run.calls.iter().filter(|call| call.synced() != Some(synced.clone())).cloned().collect();
        assert!(!run.faults_of(&calls).is_empty(), "nothing is missed without {synced:?} on disk");
    }
}

fn aggregate(covered: &mut Covered) {
    let dir = round();
    covered.run(&dir, "aggregate in -o m.safetensors --report r.json", &["m.safetensors", "r.json"]);
    let plot = covered.run(&dir, "aggregate in -o m.safetensors --plot p.png", &["m.safetensors", "p.png"]);
    assert!(plot.is_on_disk_before("m.safetensors", "p.png"));
    covered.run(&dir, "aggregate in -o m.safetensors --plan-out next.json", &["m.safetensors", "next.json"]);
    // Again over existing files, from another number of files, and to another folder.
    let sharded = "aggregate in -o m.safetensors --max-shard-size 1kB";
    let shards = ["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"];
    let run = covered.run(&dir, sharded, &["m.safetensors.index.json", shards[0], shards[1]]);
    // The file that readers open first gets its name last.
    assert!(shards.iter().all(|shard| run.is_on_disk_before(shard, "m.safetensors.index.json")));
    // An old index never stands beside files of a new model.
    let again = covered.run(&dir, &format!("{sharded} --rule median"), &["m.safetensors.index.json"]);
    assert!(shards.iter().all(|shard| again.is_gone_before("m.safetensors.index.json", shard)));
    covered.run(&dir, "aggregate in -o m.safetensors", &["m.safetensors"]);
    std::fs::create_dir(dir.path("out")).unwrap();
    std::fs::create_dir(dir.path("reports")).unwrap();
    let adam = "aggregate in --base base.safetensors -o out/m.safetensors --strategy fedadam --state state.safetensors \
                --report reports/r.json";
    let run = covered.run(&dir, adam, &["out/m.safetensors", "state.safetensors", "reports/r.json"]);
    // A model never appears without its state, nor a report without its model.
    assert!(run.is_on_disk_before("state.safetensors", "out/m.safetensors"));
    assert!(run.is_on_disk_before("out/m.safetensors", "reports/r.json"));
    let previous = ["out/m.safetensors", "state.safetensors", "state.safetensors.previous", "reports/r.json"];
    let again = adam.replace("base.safetensors", "out/m.safetensors").replace("-o out/m", "-o out/m2");
    covered.run(&dir, &again, &["out/m2.safetensors", previous[1], previous[2], previous[3]]);
    // A file system without links.
    let no_links = ["-e", "inject=?link,linkat:error=EPERM"];
    let again = again.replace("--base out/m.", "--base out/m2.").replace("-o out/m2", "-o out/m3");
    covered.run_with(&dir, &again, &["out/m3.safetensors", previous[1], previous[2]], &no_links);
    covered.run(
        &dir,
        "aggregate in -o p.safetensors --partial --report r.json",
        &["p.safetensors", "r.json"],
    );
    // A refused run still writes its report.
    let refused = traced(&dir, &words("aggregate in -o x.safetensors --min-clients 9 --report no.json"), &[]);
    assert_eq!(
        (refused.code, refused.published()),
        (Some(1), vec!["no.json".to_owned()]),
        "{}",
        refused.stderr
    );
    assert!(refused.faults().is_empty(), "{:?}", refused.faults());
}

/// A registry of clients, which SQLite brings to disk: its journal before the file, and both names.
fn registry(covered: &mut Covered) {
    let dir = Dir::new();
    let client = r#"{"node_id":"ID","compute_capability":1,"data_size":10,"connection_quality":1}"#;
    for id in ["a", "b", "c"] {
        dir.write(&format!("{id}.json"), client.replace("ID", id));
    }
    for change in ["add new/state a.json", "import new/state b.json", "retire new/state a"] {
        covered.run(&dir, &format!("clients {change}"), &[]);
    }
    covered.run(&dir, "clients add new/state c.json", &[]);
    covered.run(&dir, "clients expire new/state --older-than 1d --at 2200-01-01T00:00:00Z", &[]);
    covered.run(&dir, "secagg keygen --id a -o a.key", &["a.key", "a.key.pub"]);
    covered.run(&dir, "clients add new/state a.json --update --key a.key.pub", &[]);
    covered.run(&dir, "clients tiers new/state -o tiers.json", &["tiers.json"]);
    dir.write("agent.json", r#"{"kind":"command","argv":["printf"],"capabilities":["print"]}"#);
    dir.write("agents.json", r#"{"b":{"kind":"command","argv":["printf"],"capabilities":["print"]}}"#);
    covered.run(&dir, "agents add other/state agents.json", &[]);
    covered.run(&dir, "agents new new/state a --from agent.json", &[]);
    covered.run(&dir, "agents retire new/state a", &[]);
    for reader in ["list new/state", "show new/state a"] {
        covered.look(&dir, &format!("agents {reader}"));
    }
    for reader in ["list new/state", "show new/state a", "select new/state --count 1 --round 1 --seed 1"] {
        covered.look(&dir, &format!("clients {reader}"));
    }
}

fn words(command: &str) -> Vec<&str> {
    command.split_whitespace().collect()
}

fn shards(covered: &mut Covered) {
    let dir = round();
    let way = "in --base base.safetensors --rule krum --byzantine 1 --strategy fedavgm --state s.safetensors";
    for folder in ["g", "c"] {
        std::fs::create_dir(dir.path(folder)).unwrap();
    }
    covered.run(&dir, &format!("gram {way} --shard 1/1 -o g/1.safetensors"), &["g/1.safetensors"]);
    covered.run(&dir, &format!("decide {way} --partials g -o d.json"), &["d.json"]);
    let combine = format!("combine {way} --shard 1/1 --decision d.json -o c/1.safetensors");
    covered.run(&dir, &combine, &["c/1.safetensors"]);
    let merge = format!("merge {way} --partials c --decision d.json -o m.safetensors --report r.json");
    covered.run(&dir, &merge, &["m.safetensors", "r.json", "s.safetensors"]);
}

fn private(covered: &mut Covered) {
    let dir = round();
    let plan = "--population 100 --epsilon 50 --delta 1e-3 --noise-multiplier 2 --rounds 9 --clip 1 --denominator 3 \
                --base base.safetensors";
    let head = ["deep/er/dp/head", "deep/er/dp/plan.lock"];
    covered.run(&dir, &format!("privacy init deep/er/dp {plan}"), &head);
    let release = "aggregate in --base base.safetensors --dp deep/er/dp --report r.json";
    covered.run(&dir, &format!("{release} -o m1.safetensors"), &["m1.safetensors", "r.json", head[0]]);
    covered.run(
        &dir,
        &format!("{release} -o m2.safetensors --resumable --release-again"),
        &["m2.safetensors", head[0]],
    );
    let with = "deep/er/dp --base base.safetensors --round 1 -o";
    covered.run(
        &dir,
        &format!("privacy clip {with} one.safetensors in/c1.safetensors"),
        &["one.safetensors"],
    );
    covered.run(
        &dir,
        &format!("privacy clip {with} two.safetensors in/c2.safetensors"),
        &["two.safetensors"],
    );
    let both = "one.safetensors two.safetensors";
    covered.run(&dir, &format!("privacy sum {with} sum.safetensors {both}"), &["sum.safetensors"]);
    covered.run(
        &dir,
        &format!("privacy noise {with} m3.safetensors sum.safetensors"),
        &["m3.safetensors", head[0]],
    );
    covered.run(&dir, "privacy spend deep/er/dp --noise-multiplier 9", &[head[0]]);
    covered.run(&dir, "privacy export deep/er/dp --format csv -o e.csv --plot e.svg", &["e.csv", "e.svg"]);
    covered.run(&dir, "privacy compose --noise-multiplier 2 --delta 1e-3 --plot c.svg", &["c.svg"]);

    // Open charges from killed runs. The first was killed after its charge, and the last after its model had its name. Each
    // writes to another path, because a run to the same path finishes what the run before it left complete.
    let killed = |more: &str, step: usize| {
        let mut command = Command::new(program());
        command.current_dir(dir.path("")).args(words(release)).args(words(more));
        assert_eq!(command.env("FEDMILL_FAIL_AT", step.to_string()).output().unwrap().status.code(), None);
    };
    let recover = || fedmill(&dir, &["privacy", "recover", "deep/er/dp"]).stdout;
    let lost = (1..).find(|step| {
        killed("--strategy fedavg:lr=0.5 -o lost.safetensors", *step);
        recover().starts_with("charge ")
    });
    assert!(lost.is_some());
    let named = (1..).map(|step| {
        let model = format!("killed-{step}.safetensors");
        killed(&format!("--release-again -o {model}"), step);
        model
    });
    let named = named.into_iter().find(|model| dir.exists(model)).unwrap();
    let open = recover();
    let charges = open.lines().filter_map(|line| line.strip_prefix("charge ")?.split_once([',', ' ']));
    let charges: Vec<&str> = charges.map(|(number, _)| number).collect();
    let (lost, published) = (charges[0], charges.last().unwrap());
    covered.run(
        &dir,
        &format!("privacy void deep/er/dp --seq {lost} --attest it-was-switched-off"),
        &[head[0]],
    );
    covered.run(
        &dir,
        &format!("privacy recover deep/er/dp --adopt {published} --output {named}"),
        &[head[0]],
    );
    for reader in [
        "status deep/er/dp",
        "verify deep/er/dp",
        "calibrate --epsilon 2 --delta 1e-5 --rounds 9",
        "selftest",
    ] {
        covered.look(&dir, &format!("privacy {reader}"));
    }

    // A series with correlated noise keeps keys, lists of clients and rows of noise.
    let banded = "--mechanism dp-ftrl:bands=3 --participations 2 --min-separation 2";
    covered.run(
        &dir,
        &format!("privacy init ftrl {} {banded}", plan.replace("--rounds 9", "--rounds 4")),
        &["ftrl/head"],
    );
    for round in 1..=4 {
        let update = model(&format!("in/c{round}"), round).meta("client_id", &format!("c{round}"));
        update.meta("round", &round.to_string()).write(&dir);
        let run = format!(
            "aggregate in/c{round}.safetensors --base base.safetensors --dp ftrl --round {round} -o f{round}.safetensors"
        );
        covered.run(&dir, &run, &[&format!("f{round}.safetensors"), "ftrl/head"]);
    }
}

fn updates(covered: &mut Covered) {
    let dir = round();
    let compress = "compress in/c1.safetensors --base base.safetensors";
    covered.run(&dir, &format!("{compress} --codec u8 --json -o u.safetensors"), &["u.safetensors"]);
    covered.run(&dir, &format!("{compress} --max-nmse 0.01 -o t.safetensors"), &["t.safetensors"]);
    let config = "--codec i4:per=channel --emit-config config.json -o i.safetensors";
    covered.run(&dir, &format!("{compress} {config}"), &["i.safetensors", "config.json"]);
    std::fs::create_dir(dir.path("kept")).unwrap();
    let residual = "compress --codec u2 --residual kept/e.safetensors";
    covered.run(
        &dir,
        &format!("{residual} in/c1.safetensors -o u1.safetensors"),
        &["u1.safetensors", "kept/e.safetensors"],
    );
    model("next", 8).meta("round", "2").meta("client_id", "c1").write(&dir);
    let next = format!("{residual} next.safetensors -o u2.safetensors");
    covered.run(&dir, &next, &["u2.safetensors", "kept/e.safetensors", "kept/e.safetensors.previous"]);
    covered.run(&dir, "compress in/c1.safetensors --dry-run --table --plot p.svg", &["p.svg"]);
    covered.run(&dir, "man pages", &["pages/fedmill.1", "pages/fedmill-aggregate.1"]);
    covered.run(
        &dir,
        "decompress u.safetensors --base base.safetensors -o back.safetensors",
        &["back.safetensors"],
    );
    model("later", 0).meta("round", "2").write(&dir);
    covered.run(
        &dir,
        "compress later.safetensors --base base.safetensors --exact -o patch.safetensors",
        &["patch.safetensors"],
    );
    covered.run(
        &dir,
        "decompress patch.safetensors --base base.safetensors -o exact.safetensors",
        &["exact.safetensors"],
    );
    let personalize = "personalize --global base.safetensors --personal in/c1.safetensors --mix 0.5";
    covered.run(&dir, &format!("{personalize} -o mine.safetensors"), &["mine.safetensors"]);
    let sharded = format!("{personalize} --max-shard-size 1kB -o mine.safetensors");
    covered.run(&dir, &sharded, &["mine.safetensors.index.json"]);
}

/// The rounds of a federation: its journals grow in place, all else appears whole.
fn federation(covered: &mut Covered) {
    let dir = round();
    let client = r#"{"node_id":"ID","compute_capability":1,"data_size":10,"connection_quality":1}"#;
    let rows: Vec<String> = (1..6).map(|id| client.replace("ID", &format!("c{id}"))).collect();
    dir.write("clients.jsonl", rows.join("\n"));
    covered.run(
        &dir,
        "round init fed --model base.safetensors",
        &["fed/fedmill.toml", "fed/current.safetensors"],
    );
    fedmill(&dir, &["clients", "import", "fed", "clients.jsonl"]);
    dir.write(
        "fed/fedmill.toml",
        "[coordination]\nmin_clients = 2\nclients = 5\n[monitoring]\nhtml = true\n",
    );
    covered.look(&dir, "round run fed --dry-run");
    covered.run(&dir, "round run fed --phase open", &["fed/tasks/round.json", "fed/tasks/000001"]);
    for client in 1..6 {
        let path = format!("in/c{client}.safetensors");
        dir.write(&format!("fed/inbox/000001/c{client}.safetensors"), dir.read(&path));
    }
    let published = ["fed/current.safetensors", "fed/metrics/fedmill.prom", "fed/report.html"];
    covered.run(&dir, "round run fed --rounds 1", &published);
    covered.run(&dir, "round rollback fed --to 0", &["fed/current.safetensors"]);
    covered.run(&dir, "round report fed --html page.html", &["page.html"]);
    for reader in ["status fed", "history fed", "report fed", "check fed", "show fed"] {
        covered.look(&dir, &format!("round {reader}"));
    }
    covered.look(&dir, "round verify fed");
}

/// Whether the journal in a party's folder was on disk before the names of a session's folder.
fn is_noted_before(run: &Traced, party: &str, folder: &str) -> bool {
    let synced: Vec<_> = run.calls.iter().filter_map(Call::synced).collect();
    let noted = synced.iter().position(|path| path.ends_with(format!("{party}/journal.jsonl")));
    let named = synced.iter().rposition(|path| path.ends_with(folder));
    noted.is_some() && noted < named
}

/// A session of secure aggregation. Its parties' journals are on disk before the messages that they tell of.
fn secure(covered: &mut Covered) {
    let dir = round();
    for party in ["server", "helper", "c1", "c2", "c3"] {
        let folder = if party.len() == 2 { "clients" } else { "." };
        std::fs::create_dir_all(dir.path(folder)).unwrap();
        let key = format!("{folder}/{party}").trim_start_matches("./").to_owned();
        covered.run(&dir, &format!("secagg keygen --id {party} -o {key}"), &[&key, &format!("{key}.pub")]);
    }
    let terms = "--base base.safetensors --clip 2 --min-survivors 2";
    let parties = "--clients clients --helpers helper.pub";
    covered.run(&dir, &format!("secagg open new/s --key server {parties} {terms}"), &["new/s/manifest.json"]);
    let with = "--base base.safetensors --trust server.pub helper.pub";
    for client in ["c1", "c2"] {
        let mask = format!("secagg mask new/s in/{client}.safetensors --key clients/{client} {with}");
        let masked = format!("new/s/masked/{client}.safetensors");
        let run = covered.run(&dir, &mask, &[&masked]);
        assert!(is_noted_before(&run, &format!("clients/{client}.journal"), "s/masked"), "{client}");
    }
    let elsewhere = "--journal kept/c3 --integers integers.safetensors -o out.safetensors";
    let mask = format!("secagg mask new/s in/c3.safetensors --key clients/c3 {elsewhere} {with}");
    covered.run(&dir, &mask, &["out.safetensors", "integers.safetensors"]);
    covered.run(&dir, "secagg check new/s --key helper", &["new/s/checks/helper.json"]);
    let frozen = ["new/s/set.json", "new/s/masked-sum.safetensors"];
    let sum = "secagg sum new/s --key server --journal kept/server";
    let shard = format!("{sum} --shard 1/1 --parts parts");
    covered.run(&dir, &shard, &["parts/draft.json", "parts/sum-1-of-1.safetensors"]);
    let run = covered.run(&dir, &format!("{sum} --parts parts"), &frozen);
    assert!(is_noted_before(&run, "kept/server", "new/s") && run.is_on_disk_before(frozen[0], frozen[1]));
    std::fs::remove_dir_all(dir.path("kept/server")).unwrap();
    frozen.iter().for_each(|path| std::fs::remove_file(dir.path(path)).unwrap());
    let run = covered.run(&dir, sum, &frozen);
    assert!(is_noted_before(&run, "kept/server", "new/s") && run.is_on_disk_before(frozen[0], frozen[1]));
    let answer = "new/s/answers/helper.safetensors";
    let run = covered.run(&dir, "secagg help new/s --key helper --journal kept/helper", &[answer]);
    assert!(is_noted_before(&run, "kept/helper", "s/answers"));
    let parts = "secagg help new/s --key helper --journal kept/helper --parts own";
    covered.run(&dir, &format!("{parts} --shard 1/1"), &["own/help-1-of-1.safetensors"]);
    covered.run(&dir, parts, &[answer]);
    let unmask = "secagg unmask new/s --key server --sums sums.safetensors -o mean.safetensors";
    let published = ["mean.safetensors", "sums.safetensors", "new/s/transcript.json"];
    let run = covered.run(&dir, unmask, &published);
    assert!(published[..2].iter().all(|path| run.is_on_disk_before(path, published[2])));
    covered.look(&dir, "secagg verify new/s");
    covered.look(&dir, "secagg status new/s");
    secure_under_a_budget(covered, &dir, &format!("--key server {parties} --base base.safetensors"), with);
    let simulate = format!("secagg simulate played in {terms} --helpers 3 -o means.safetensors");
    covered.run(&dir, &simulate, &["means.safetensors", "played/transcript.json"]);
}

/// The charge of a budget is on disk before the mean.
fn secure_under_a_budget(covered: &mut Covered, dir: &Dir, parties: &str, with: &str) {
    let plan =
        "--epsilon 9 --delta 1e-5 --population 9 --clip 1 --noise-multiplier 1 --rounds 1 --sampling all";
    covered.run(dir, &format!("privacy init dp {plan}"), &["dp/plan.lock"]);
    let open = format!("secagg open new/p --dp dp --min-survivors 2 {parties}");
    covered.run(dir, &open, &["new/p/manifest.json"]);
    for client in ["c1", "c2"] {
        let mask =
            format!("secagg mask new/p in/{client}.safetensors --key clients/{client} --allow-again {with}");
        covered.run(dir, &mask, &[&format!("new/p/masked/{client}.safetensors")]);
    }
    covered.run(
        dir,
        "secagg sum new/p --key server --journal kept/server",
        &["new/p/masked-sum.safetensors"],
    );
    covered.run(
        dir,
        "secagg help new/p --key helper --journal kept/helper",
        &["new/p/answers/helper.safetensors"],
    );
    let unmask = "secagg unmask new/p --key server --dp dp -o private.safetensors";
    let run = covered.run(dir, unmask, &["private.safetensors", "new/p/transcript.json"]);
    let synced: Vec<_> = run.calls.iter().filter_map(Call::synced).collect();
    let charged = synced.iter().position(|path| path.ends_with("dp/ledger.jsonl"));
    let published = synced.iter().rposition(|path| !path.starts_with("dp") && !path.ends_with("dp/head"));
    assert!(charged.is_some() && charged < published, "published before it was charged: {synced:?}");
}

/// Each flush waits for the disk: a full inbox must not make a run wait thousands of times.
#[test]
fn the_files_of_an_inbox_are_flushed_together() {
    if !is_possible() {
        return;
    }
    let flushes = |files: usize| {
        let dir = round();
        let rows = (1..6).map(|id| {
            format!(
                "{{\"node_id\":\"c{id}\",\"compute_capability\":1,\"data_size\":10,\"connection_quality\":1}}\n"
            )
        });
        dir.write("clients.jsonl", rows.collect::<String>());
        fedmill(&dir, &["round", "init", "fed", "--model", "base.safetensors"]);
        fedmill(&dir, &["clients", "import", "fed", "clients.jsonl"]);
        dir.write("fed/fedmill.toml", "[coordination]\nmin_clients = 2\nclients = 5\n");
        fedmill(&dir, &["round", "run", "fed"]);
        for file in 0..files {
            let update = dir.read("in/c1.safetensors");
            dir.write(&format!("fed/inbox/000001/other-{file}.safetensors"), update);
        }
        let run = traced(&dir, &["round", "run", "fed"], &[]);
        assert_eq!(run.code, Some(1), "{}", run.stderr);
        let quarantine = std::fs::read_dir(dir.path("fed/rounds/000001/quarantine")).unwrap().count();
        assert_eq!(quarantine, files);
        run.calls.iter().filter(|call| call.name.contains("sync")).count()
    };
    let (few, many) = (flushes(2), flushes(60));
    assert!(few > 0 && few == many, "{few} flushes for 2 files, {many} for 60");
}

/// A plan, its run, and what only looks at them.
fn plans(covered: &mut Covered) {
    let dir = Dir::new();
    covered.run(&dir, "plan new --template shards --set updates=in --output new.json", &["new.json"]);
    let plan = r#"{"schema":"fedmill.plan/1","id":"p","limits":{"timeout":{"run":"1m"}},
        "agents":{"tool":{"kind":"command","argv":["printf"]}},
        "stages":[{"id":"a","agent":"tool","argv":["x"],"out":[{"name":"o","path":"-"}]}]}"#;
    dir.write("plan.json", plan);
    covered.run(&dir, "plan run plan.json --dir run", &["run/plan.json", "run/receipts/a.json"]);
    covered.run(
        &dir,
        "plan run plan.json --dir reused/run --reuse run",
        &["reused/run/receipts/a.json", "reused/run/out/a/o"],
    );
    dir.write("agents.json", r#"{"tool":{"kind":"command","argv":["printf"],"capabilities":["print"]}}"#);
    assert_eq!(fedmill(&dir, &["agents", "add", "state", "agents.json"]).code, Some(0));
    covered.run(&dir, "plan run plan.json --dir scored/run --agents state", &["scored/run/receipts/a.json"]);
    covered.run(&dir, "plan resume scored/run --agents state", &[]);
    covered.run(
        &dir,
        "plan new --template shards --set updates=in --agents state -o other.json",
        &["other.json"],
    );
    covered.run(
        &dir,
        "plan render plan.json --target slurm --output out",
        &["out/start.json", "out/submit.sh"],
    );
    covered.run(&dir, "plan task out a", &["out/done/a.json", "out/tasks/a/receipts/a.json"]);
    let exports = |name: &str| format!("--prometheus {name}.prom --trace {name}.json");
    let run = format!("plan run plan.json --dir exported/run {}", exports("run"));
    covered.run(&dir, &run, &["run.prom", "run.json"]);
    covered.run(&dir, &format!("plan resume exported/run {}", exports("more")), &["more.prom", "more.json"]);
    let export = format!("plan export exported {} --events all.jsonl", exports("all"));
    covered.run(&dir, &export, &["all.prom", "all.json", "all.jsonl"]);
    covered.run(&dir, "plan resume run", &[]);
    covered.run(&dir, "plan cancel run", &[]);
    for reader in [
        "status run",
        "status run --times run",
        "history run",
        "lint plan.json",
        "show plan.json",
        "show plan.json --dir run",
        "diff plan.json run/plan.json",
        "metrics run",
    ] {
        covered.look(&dir, &format!("plan {reader}"));
    }
}

fn measured(covered: &mut Covered) {
    let dir = Dir::new();
    let bench = "bench --kernels none --rules mean --clients 2 --parameters 1k --samples 1 --warm-up 0 --backend cpu \
                 --dir . --plot b.svg";
    covered.run(&dir, bench, &["b.svg"]);
    covered.run(&dir, "doctor --calibrate --backend cpu", &["cache/fedmill/calibration.json"]);
    covered.look(&round(), "inspect in --base base.safetensors");
    covered.run(&round(), "inspect in --base base.safetensors --plot p.svg", &["p.svg"]);
}
