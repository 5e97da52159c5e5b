//! Completions, as each shell gives them, and pages of `man`.
//!
//! Without a shell its test prints that it is skipped, or fails if `FEDMILL_REQUIRE_SHELLS` is set.

use crate::harness::{Dir, fedmill, program, skip};
use std::path::Path;
use std::process::Command;

/// The variable that makes a missing shell a failure.
const REQUIRE: &str = "FEDMILL_REQUIRE_SHELLS";

/// What a shell prints that runs a script in a folder with its completions in the file `completions`; `None` without the
/// shell.
fn answer(shell: &str, options: &[&str], script: &str) -> Option<String> {
    let is_there = Command::new(shell).arg("--version").output().is_ok_and(|run| run.status.success());
    assert!(is_there || std::env::var_os(REQUIRE).is_none(), "{REQUIRE} is set, and there is no {shell}");
    if !is_there {
        skip(&format!("there is no {shell}"));
        return None;
    }
    let dir = Dir::new();
    let made = fedmill(&dir, &["completions", shell]);
    assert_eq!((made.code, made.stderr.as_str()), (Some(0), ""), "{made:#?}");
    dir.write("completions", made.stdout);
    dir.write("script", script);
    let program = program();
    let folder = Path::new(&program).parent().unwrap().display().to_string();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
    let run =
        Command::new(shell).args(options).arg("script").current_dir(dir.path("")).env("PATH", path).output();
    let run = run.unwrap();
    Some(String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr))
}

#[test]
fn bash_completes_commands_and_options() {
    let script = "
        source ./completions
        ask() { COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _fedmill fedmill \"${!#}\" \"${@: -2:1}\"
                echo \"${COMPREPLY[*]}\"; }
        ask fedmill agg
        ask fedmill aggregate --rul
        ask fedmill privacy comp
        ask fedmill aggregate --rule med
        ask fedmill aggregate --pre n
        ask fedmill aggregate --strategy feday
        ask fedmill aggregate --strategy fedad
        ask fedmill compress --codec ede
        ask fedmill plan new --template sw
        ask fedmill clients select --strategy un
    ";
    if let Some(answer) = answer("bash", &[], script) {
        let lines: Vec<&str> = answer.lines().collect();
        assert_eq!(lines[..4], ["aggregate", "--rule", "compose", "median"], "{answer}");
        let codecs = "eden1 eden2 eden3 eden4 eden5 eden6 eden7 eden8";
        let values = ["nnm", "", "fedadam fedadagrad", codecs, "sweep swarm", "uniform"];
        assert_eq!(lines[4..], values.map(str::to_owned), "{answer}");
    }
}

#[test]
fn fish_completes_commands_and_options() {
    let script = "
        source ./completions
        complete -C 'fedmill agg'
        complete -C 'fedmill aggregate --rul'
        complete -C 'fedmill privacy comp'
    ";
    if let Some(answer) = answer("fish", &["--no-config"], script) {
        let words: Vec<&str> = answer.lines().filter_map(|line| line.split('\t').next()).collect();
        assert_eq!(words, ["aggregate", "--rule", "compose"], "{answer}");
    }
}

/// zsh completes in its editor alone: a shell on a terminal completes a line, and writes it down.
#[test]
fn zsh_completes_commands_and_options() {
    let script = "
        zmodload zsh/zpty
        ask() {
            rm -f line
            zpty shell zsh -f -i
            zpty -w shell 'autoload -Uz compinit; compinit -u -D; source ./completions; \
note() { zle complete-word; print -r -- $BUFFER > line.new; mv line.new line }; zle -N note; bindkey ^X note'
            zpty -w -n shell \"$1\"$'\\x18'
            repeat 300; do
                [[ -s line ]] && break
                zpty -r -t shell shown
                sleep 0.1
            done
            zpty -d shell
            cat line
        }
        ask 'fedmill agg'
        ask 'fedmill aggregate --rul'
        ask 'fedmill privacy comp'
    ";
    if let Some(answer) = answer("zsh", &["-f"], script) {
        let lines: Vec<&str> = answer.lines().map(str::trim_end).collect();
        assert_eq!(
            lines,
            ["fedmill aggregate", "fedmill aggregate --rule=", "fedmill privacy compose"],
            "{answer}"
        );
    }
}

#[test]
fn every_command_has_a_page() {
    fn visit(command: &clap::Command, above: &str, names: &mut Vec<String>) {
        names.push(format!("pages/{above}.1"));
        command
            .get_subcommands()
            .for_each(|below| visit(below, &format!("{above}-{}", below.get_name()), names));
    }
    let dir = Dir::new();
    let run = fedmill(&dir, &["man", "pages"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "pages\n"), "{run:#?}");
    let mut expected = vec!["pages/".to_owned()];
    visit(&fedmill::cli::command(), "fedmill", &mut expected);
    expected.sort();
    assert_eq!(dir.contents().into_keys().collect::<Vec<_>>(), expected);
    let page = String::from_utf8(dir.read("pages/fedmill-privacy-init.1")).unwrap();
    assert!(page.contains(".TH fedmill-privacy-init 1") && page.contains("\\-\\-epsilon"), "{page}");
}
