//! The help texts, as snapshots. `just bless` takes new ones.

use crate::harness::{Dir, fedmill};

/// The help that the program prints, at the width that the harness sets.
fn help(args: &[&str]) -> String {
    let run = fedmill(&Dir::new(), args);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:#?}");
    assert!(!run.stdout.contains('\x1b'));
    run.stdout
}

#[test]
fn help_of_the_program() {
    insta::assert_snapshot!(help(&["--help"]));
}

#[test]
fn help_of_every_command() {
    fn check(command: &clap::Command, above: &[&str]) {
        for command in command.get_subcommands() {
            let words = [above, &[command.get_name()]].concat();
            if command.has_subcommands() {
                check(command, &words);
            } else {
                let name = format!("help_of_{}", words.join("_"));
                insta::assert_snapshot!(name, help(&[&words[..], &["--help"]].concat()));
            }
        }
    }
    check(&fedmill::cli::command(), &[]);
}

#[test]
fn help_is_on_every_argument() {
    fn check(command: &clap::Command) {
        let unsaid = |argument: &&clap::Arg| argument.get_help().is_none();
        let unsaid: Vec<_> = command.get_arguments().filter(unsaid).map(clap::Arg::get_id).collect();
        assert!(unsaid.is_empty(), "{}: no help on {unsaid:?}", command.get_name());
        command.get_subcommands().for_each(check);
    }
    check(&fedmill::cli::command());
}

#[test]
fn command_line_passes_claps_own_check() {
    fedmill::cli::command().debug_assert();
}

#[test]
fn version_is_the_packages() {
    assert_eq!(help(&["--version"]), format!("fedmill {}\n", env!("CARGO_PKG_VERSION")));
}
