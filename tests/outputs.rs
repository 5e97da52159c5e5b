//! Outputs on the command line: none replaces what the command reads or writes elsewhere.
//!
//! Links, pipes and devices as outputs, and standard streams that cannot be written.

use crate::bad_request::round;
use crate::harness::{Dir, Run, fedmill, fedmill_after, program};
use fedmill::cli::command;
use fedmill::io::collision::Collision;
use fedmill::io::collision::arguments::{check_line, is_output};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::process::{Command, Stdio};

/// Command lines in which each path begins with `@`. Together they have every option that names an output.
const LINES: [&str; 28] = [
    "aggregate @in --base @base --tiers @tiers --state @state --report @report -o @out",
    "aggregate @in --files-from @list --partials @part --state @state --report @report -o @out",
    "aggregate @in --base @base --plot @plot --report @report -o @out",
    "inspect @in --base @base --plot @plot",
    "aggregate @in --base @base --plan-out @next --report @report -o @out",
    "aggregate @in --base @base --dp @dp --report @report -o @out",
    "compress @update --base @base --codec i4:per=channel --residual @residual --emit-config @config -o @out",
    "compress @update --base @base --dry-run --table --plot @plot",
    "decompress @update --base @base -o @out",
    "personalize --global @global --personal @mine --mix 0.5 -o @out",
    "gram @in --base @base --shard 1/2 --state @state -o @out",
    "decide @in --base @base --partials @part --state @state -o @out",
    "combine @in --base @base --shard 1/2 --decision @decision --state @state -o @out",
    "merge @in --partials @part --decision @decision --state @state --report @report -o @out",
    "privacy clip @dp --base @base -o @out @in",
    "privacy sum @dp --base @base -o @out @one @two",
    "privacy noise @dp --base @base -o @out @one @two",
    "privacy export @dp --format csv -o @out --plot @plot",
    "privacy compose --noise-multiplier 2 --delta 1e-3 --plot @plot",
    "secagg keygen --id me -o @out",
    "secagg mask @dir @update --key @key --base @base --trust @pub --integers @ints -o @out",
    "secagg unmask @dir --key @key --dp @state --sums @sums -o @out",
    "secagg simulate @dir @in --base @base --clip 1 -o @out",
    "clients tiers @dir -o @out",
    "round report @dir --html @page",
    "plan new --template round --agents @dir -o @out",
    "plan export @dir --prometheus @figures --trace @trace --events @events",
    "plan run @plan --dir @dir --prometheus @figures --trace @trace --input a=@input",
];

/// Further lines, of options that other commands share.
const SHARED: [&str; 2] =
    ["plan resume @dir --prometheus @figures --trace @trace", "bench --dir @dir --plot @plot"];

/// Lines of homomorphic encryption.
#[cfg(feature = "he")]
const ENCRYPTED: [&str; 6] = [
    "he params --clients 2 -o @out",
    "he keygen --params @params --key @key --id holder --public @public --secret @secret",
    "he open --base @base --public @public --key @key --clients @clients --clip 1 -o @out",
    "he encrypt --round @round --public @public --base @base --key @key --journal @journal --trust @trust -o @out @update",
    "he add --round @round --key @key -o @out @one @two",
    "he decrypt --round @round --public @public --secret @secret --key @key --journal @journal --trust @trust --inputs @in \
     --min-clients 2 -o @out @sum",
];
#[cfg(not(feature = "he"))]
const ENCRYPTED: [&str; 0] = [];

/// The outputs that a line names, each by its command and option, and what the check says of the line.
fn checked(line: &str) -> (Vec<(String, String)>, Result<(), Collision>) {
    let mut program = command();
    let words = ["fedmill"].into_iter().chain(line.split_whitespace());
    let matches = program.try_get_matches_from_mut(words).unwrap_or_else(|why| panic!("{line}: {why}"));
    let (mut at, mut below, mut name) = (&program, &matches, String::new());
    while let Some((word, matches)) = below.subcommand() {
        (at, below) = (at.find_subcommand(word).unwrap(), matches);
        name = format!("{name} {word}");
    }
    let given = at.get_arguments().filter(|arg| is_output(arg));
    let given = given.filter(|arg| below.get_raw(arg.get_id().as_str()).is_some());
    let outputs = given.map(|arg| {
        let value = below.get_raw(arg.get_id().as_str()).unwrap().next().unwrap();
        (format!("{name} {}", arg.get_id()), value.to_str().unwrap().to_owned())
    });
    (outputs.collect(), check_line(&program, &matches))
}

fn visit(command: &clap::Command, above: &str, outputs: &mut BTreeSet<String>) {
    for part in command.get_subcommands() {
        let name = format!("{above} {}", part.get_name());
        outputs.extend(
            part.get_arguments().filter(|arg| is_output(arg)).map(|arg| format!("{name} {}", arg.get_id())),
        );
        visit(part, &name, outputs);
    }
}

#[test]
fn no_output_of_any_command_is_another_path_of_its_line() {
    let mut seen = BTreeSet::new();
    for line in LINES.into_iter().chain(SHARED).chain(ENCRYPTED) {
        let (outputs, sound) = checked(line);
        assert_eq!(sound, Ok(()), "{line}");
        assert!(!outputs.is_empty(), "{line}");
        let words = || line.split_whitespace().filter_map(|word| Some(&word[word.find('@')?..]));
        for (option, output) in outputs {
            for other in words().filter(|word| *word != output && output.starts_with('@')) {
                let collides = line.split_whitespace().map(|word| match word.split_once('@') {
                    Some((before, rest)) if format!("@{rest}") == other => format!("{before}{output}"),
                    _ => word.to_owned(),
                });
                let collides = collides.collect::<Vec<_>>().join(" ");
                assert!(checked(&collides).1.is_err(), "{collides}");
                let detour = collides.replacen(&output, &format!("./{output}"), 1);
                assert!(checked(&detour).1.is_err(), "{detour}");
            }
            seen.insert(option);
        }
    }
    let mut all = BTreeSet::new();
    visit(&command(), "", &mut all);
    assert_eq!(seen, all, "a line is missing for an output");
}

#[test]
fn no_output_is_a_file_that_another_output_comes_with() {
    let dir = round();
    for line in [
        "aggregate updates -o q.safetensors --max-shard-size 16400 --report q-00001-of-00002.safetensors",
        "aggregate updates -o q.safetensors --strategy fedadam --state ./q-00001-of-00002.safetensors",
        "aggregate updates -o q.safetensors --report q.safetensors.index.json",
        "aggregate updates -o q.safetensors --strategy fedadam --state s --report s.previous",
        "compress updates/client-0.safetensors --base base.safetensors --codec u8 -o m --residual r --emit-config r.next",
    ] {
        let run = fedmill(&dir, &line.split_whitespace().collect::<Vec<_>>());
        run.assert_fails(2, &["is also another output", "expected different paths"]);
        assert!(!dir.exists("q.safetensors") && !dir.exists("m"), "{line}");
    }
}

/// A descriptor leads to its file as its name does.
#[test]
fn no_output_goes_to_an_input_by_way_of_a_descriptor() {
    let dir = round();
    let before = dir.read("base.safetensors");
    for (to, redirection) in [
        ("--report /dev/fd/4", "4<base.safetensors"),
        ("--report /proc/self/fd/4", "4<>base.safetensors"),
        ("--report /dev/stdin", "<base.safetensors"),
        ("--report -", ">>base.safetensors"),
        ("--plot /dev/fd/4", "4<updates/client-0.safetensors"),
        ("--report /dev/fd/4", "4<updates/client-0.safetensors"),
    ] {
        let line = format!(
            "{} aggregate --base base.safetensors updates -o q.safetensors {to} {redirection}",
            program()
        );
        let run = Command::new("sh").args(["-c", &line]).current_dir(dir.path("")).output().unwrap();
        let said = String::from_utf8(run.stderr).unwrap();
        assert!(run.status.code() == Some(2) && said.contains("is also an input"), "{line}: {said}");
        assert!(!dir.exists("q.safetensors") && dir.read("base.safetensors") == before, "{line}");
    }
    // Another file behind a descriptor is a stream like any other.
    let line = format!(
        "{} aggregate --base base.safetensors updates -o q.safetensors --report /dev/fd/4 4>r.json",
        program()
    );
    assert!(Command::new("sh").args(["-c", &line]).current_dir(dir.path("")).status().unwrap().success());
    assert!(serde_json::from_slice::<Value>(&dir.read("r.json")).is_ok());
}

#[test]
fn a_run_waits_while_another_one_publishes_beside_it() {
    let dir = round();
    let another = fs::File::open(dir.path("")).unwrap();
    another.lock().unwrap();
    let mut run = Command::new(program())
        .args(["aggregate", "-q", "updates", "-o", "q.safetensors", "--report", "q.json"])
        .current_dir(dir.path(""))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_secs(3));
    let waits = run.try_wait().unwrap().is_none() && !dir.exists("q.safetensors");
    drop(another);
    assert!(run.wait().unwrap().success() && dir.exists("q.safetensors") && dir.exists("q.json"));
    assert!(waits, "the run published at once");
}

#[test]
fn a_refused_command_line_replaces_no_file_that_it_names_twice() {
    let dir = round();
    // A file of fedmill, which a report may replace.
    fedmill(&dir, &["aggregate", "--bogus", "--report", "d.json"]);
    assert!(dir.exists("d.json"));
    let before = dir.contents();
    for line in [
        "merge updates --bogus --decision d.json -o m.safetensors --report ./d.json",
        "merge updates --bogus --decision=d.json -o m.safetensors --report d.json",
    ] {
        let run = fedmill(&dir, &line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(run.code, Some(2), "{run:#?}");
        assert!(run.stderr.contains("no report was written"), "{run:#?}");
        assert!(dir.contents() == before, "{line}");
    }
}

#[test]
fn an_output_that_is_a_hard_link_of_an_input_is_refused() {
    let dir = round();
    fs::hard_link(dir.path("base.safetensors"), dir.path("hard")).unwrap();
    symlink("hard", dir.path("link")).unwrap();
    dir.write("one", "of another program");
    fs::hard_link(dir.path("one"), dir.path("two")).unwrap();
    let before = dir.contents();
    for line in [
        "aggregate updates --base base.safetensors -o m.safetensors --report link",
        "compress updates/client-0.safetensors --base base.safetensors --codec u8 -o link",
        "compress updates/client-0.safetensors --base base.safetensors --codec u8 -o m.safetensors --emit-config hard",
        "decompress base.safetensors -o hard",
        "aggregate updates -o m.safetensors --report one --state two",
        "personalize --global base.safetensors --personal updates/client-0.safetensors --mix 0.5 -o hard",
    ] {
        let run = fedmill(&dir, &line.split_whitespace().collect::<Vec<_>>());
        let what = if line.ends_with("two") { "another output" } else { "an input" };
        run.assert_fails(2, &["is also ", what, "expected "]);
        assert!(dir.contents() == before, "{line}");
    }
}

fn merge(dir: &Dir, more: &str) -> Run {
    let line = format!("aggregate updates -q {more}");
    fedmill(dir, &line.split_whitespace().collect::<Vec<_>>())
}

#[test]
fn a_link_leads_to_the_file_that_is_replaced() {
    let dir = round();
    fs::create_dir(dir.path("real")).unwrap();
    for name in ["there", "new"] {
        symlink(format!("real/{name}.safetensors"), dir.path(name)).unwrap();
    }
    symlink("there", dir.path("twice")).unwrap();
    dir.write("real/there.safetensors", "before");
    assert_eq!(merge(&dir, "-o plain.safetensors").code, Some(0));
    for (link, file) in [("twice", "real/there.safetensors"), ("new", "real/new.safetensors")] {
        let run = merge(&dir, &format!("-o {link} --report {link}.json"));
        assert_eq!(run.code, Some(0), "{run:#?}");
        assert!(dir.path(link).is_symlink(), "{link}");
        assert!(dir.read(file) == dir.read("plain.safetensors"), "{file}");
    }
    symlink("circle", dir.path("circle")).unwrap();
    merge(&dir, "-o circle").assert_fails(2, &["circle: ", "symbolic links"]);
    merge(&dir, "-o m.safetensors --report circle").assert_fails(2, &["circle: "]);
    assert!(!dir.exists("m.safetensors"));
    assert_eq!(dir.contents().keys().filter(|name| name.contains("fedmill-tmp")).count(), 0);
}

#[test]
fn devices_are_never_replaced() {
    let dir = round();
    for device in ["/dev/null", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "-"] {
        let run = fedmill_after(&dir, "exec > printed", &["aggregate", "updates", "-q", "-o", device]);
        assert_eq!(run.code, Some(2), "{device}: {run:#?}");
        assert!(run.stderr.contains("expected"), "{run:#?}");
    }
    merge(&dir, "-o -").assert_fails(2, &["standard output", "once it is whole"]);
    let model = ["aggregate", "updates", "-o", "m.safetensors"];
    for empty in [["--report", ""], ["--plot", ""]] {
        fedmill(&dir, &[&model[..], &empty].concat()).assert_fails(2, &[empty[0], "the path is empty"]);
    }
    fedmill(&dir, &["aggregate", "updates", "-o", ""]).assert_fails(2, &["--output", "the path is empty"]);
    merge(&dir, "-o m.safetensors --report r.json/").assert_fails(2, &["r.json/: ends with `/`"]);
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    assert_eq!(merge(&dir, "-o m.safetensors --report /dev/null").code, Some(0));
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
}

#[test]
fn a_report_goes_to_standard_output_or_to_a_pipe() {
    let dir = round();
    for name in ["-", "/dev/stdout"] {
        let run = merge(&dir, &format!("-o m.safetensors --report {name}"));
        let report: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|why| panic!("{why}: {run:#?}"));
        assert_eq!((run.code, &report["published"]), (Some(0), &Value::Bool(true)));
    }
    let refused = merge(&dir, "-o m.safetensors --report - --min-clients 99");
    let report: Value = serde_json::from_str(&refused.stdout).unwrap();
    assert_eq!((refused.code, &report["published"]), (Some(1), &Value::Bool(false)));

    mknodat(CWD, dir.path("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let reader =
        Command::new("cat").arg(dir.path("pipe")).stdout(std::process::Stdio::piped()).spawn().unwrap();
    assert_eq!(merge(&dir, "-o m.safetensors --report pipe").code, Some(0));
    let read = reader.wait_with_output().unwrap().stdout;
    assert_eq!(serde_json::from_slice::<Value>(&read).unwrap()["published"], true);
    assert!(fs::metadata(dir.path("pipe")).unwrap().file_type().is_fifo());

    let script =
        format!("{} aggregate updates -q -o m.safetensors --report >(cat > copy.json); wait $!", program());
    let run = Command::new("bash").args(["-c", &script]).current_dir(dir.path("")).output().unwrap();
    assert!(run.status.success(), "{run:?}");
    assert_eq!(dir.json("copy.json")["published"], true);
}

/// A report on standard error stands before the line that ends the run, and neither writes over the other.
#[test]
fn a_report_on_standard_error_is_whole() {
    let dir = round();
    for name in ["/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"] {
        dir.write("told", "");
        let run = fedmill_after(
            &dir,
            "exec 2>told",
            &["aggregate", "updates", "--rule", "trimmed-mean", "-o", "m.safetensors", "--report", name],
        );
        assert_eq!(run.code, Some(0), "{name}: {run:#?}");
        let told = String::from_utf8(dir.read("told")).unwrap();
        let start = told.find("{\n").unwrap();
        let end = told.rfind("\n}\n").unwrap() + 3;
        let report: Value =
            serde_json::from_str(&told[start..end]).unwrap_or_else(|why| panic!("{why}: {told}"));
        assert_eq!(report["published"], true, "{told}");
        assert!(told.starts_with("warning: ") && told[end..].starts_with("merged 3 of 3"), "{told}");
    }
}

/// What a command prints beside goes to standard error where an output has standard output, or nowhere with `--quiet`.
#[test]
fn an_output_on_standard_output_is_there_alone() {
    let dir = round();
    let update = "updates/client-0.safetensors";
    let dp = "privacy init dp --population 100 --epsilon 50 --delta 1e-3 --noise-multiplier 2 --rounds 9 --clip 1 \
              --denominator 3 --base base.safetensors";
    assert_eq!(fedmill(&dir, &dp.split_whitespace().collect::<Vec<_>>()).code, Some(0));
    fs::create_dir(dir.path("cache")).unwrap();
    for (line, told) in [
        ("inspect updates --plot -".to_owned(), "client-3"),
        ("aggregate updates -o m.safetensors --plot -".to_owned(), "merged 3 of 3"),
        (format!("compress {update} --dry-run --table --plot /dev/stdout"), "eden1"),
        ("privacy compose --noise-multiplier 2 --delta 1e-3 --plot -".to_owned(), "pld"),
        ("privacy export dp --format csv -o e.csv --plot -".to_owned(), ""),
        ("bench --kernels none --rules mean --clients 2 --parameters 1k --samples 1 --warm-up 0 --backend cpu --dir . \
          --plot -"
            .to_owned(), "mean"),
    ] {
        for quiet in ["", " -q"] {
            let words = format!("{line}{quiet}");
            let run = fedmill(&dir, &words.split_whitespace().collect::<Vec<_>>());
            assert_eq!(run.code, Some(0), "{words}: {run:#?}");
            assert!(run.stdout.starts_with("<svg") && run.stdout.trim_end().ends_with("</svg>"), "{words}: {run:#?}");
            assert!(if quiet.is_empty() { run.stderr.contains(told) } else { run.stderr.is_empty() }, "{words}: {run:#?}");
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        if !["aggregate", "privacy"].contains(&words[0]) || words[1] == "compose" {
            let run = fedmill(&dir, &[&words[..], &["--json"]].concat());
            run.assert_fails(2, &["--plot: found standard output", "--json"]);
            assert!(run.stdout.is_empty(), "{run:#?}");
        }
    }
    let export = ["privacy", "export", "dp", "--format", "csv", "--plot", "-"];
    fedmill(&dir, &export).assert_fails(2, &["--plot: found standard output, which has the export"]);

    for name in ["-", "/dev/stdout"] {
        let line =
            ["aggregate", "updates", "--base", "base.safetensors", "-o", "m.safetensors", "--plan-out", name];
        let run = fedmill(&dir, &line);
        assert_eq!(run.code, Some(0), "{run:#?}");
        dir.write("next.json", &run.stdout);
        let checked = fedmill(&dir, &["plan", "lint", "next.json"]);
        assert_eq!(checked.code, Some(0), "{checked:#?}");
    }
}

/// Standard streams that are full or closed change neither the model nor the status, and nothing panics.
#[test]
fn standard_streams_that_cannot_be_written() {
    let dir = round();
    let merge = ["aggregate", "updates", "--rule", "trimmed-mean", "-o", "m.safetensors"];
    for streams in [
        "exec >/dev/full",
        "exec 2>/dev/full",
        "exec >&-",
        "exec 2>&-",
        "exec >&- 2>&-",
        "exec >/dev/full 2>&1",
    ] {
        let run = fedmill_after(&dir, streams, &merge);
        assert_eq!(run.code, Some(0), "{streams}: {run:#?}");
        assert!(dir.exists("m.safetensors"), "{streams}");
        fs::remove_file(dir.path("m.safetensors")).unwrap();
        for (line, code) in
            [("aggregate nowhere -o m.safetensors", 2), ("aggregate --what", 2), ("inspect updates -v", 0)]
        {
            let run = fedmill_after(&dir, streams, &line.split_whitespace().collect::<Vec<_>>());
            let is_lost = code == 0 && streams.contains(">/dev/full") && !streams.starts_with("exec 2");
            assert_eq!(run.code, Some(if is_lost { 2 } else { code }), "{streams} {line}: {run:#?}");
        }
    }
    let script = format!(
        "{} aggregate updates -o m.safetensors --report - | true; exit ${{PIPESTATUS[0]}}",
        program()
    );
    let run = Command::new("bash").args(["-c", &script]).current_dir(dir.path("")).output().unwrap();
    assert_eq!(run.status.code(), Some(0), "{run:?}");
}

/// A pipe in place of an update, of a temporary or of a lock is no file: nothing waits for its writer.
#[test]
fn pipes_are_not_opened() {
    let dir = round();
    let pipe = |name: &str| mknodat(CWD, dir.path(name), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    pipe(".m.safetensors.1-1.fedmill-tmp");
    assert_eq!(merge(&dir, "-o m.safetensors").code, Some(0));
    assert!(dir.exists(".m.safetensors.1-1.fedmill-tmp"));
    pipe("updates/z.safetensors");
    symlink("/dev/zero", dir.path("updates/zero.safetensors")).unwrap();
    let run = merge(&dir, "-o m.safetensors");
    run.assert_fails(2, &["z.safetensors: ", "zero.safetensors: ", "not a regular file"]);
    for line in ["decompress updates/z.safetensors -o x", "compress updates/z.safetensors --codec u8 -o x"] {
        assert_eq!(fedmill(&dir, &line.split_whitespace().collect::<Vec<_>>()).code, Some(2), "{line}");
    }
}
