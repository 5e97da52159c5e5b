//! The help texts, as snapshots. `INSTA_UPDATE=always cargo test help` accepts new ones.

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
fn help_of_aggregate() {
    insta::assert_snapshot!(help(&["aggregate", "--help"]));
}

#[test]
fn help_of_inspect() {
    insta::assert_snapshot!(help(&["inspect", "--help"]));
}

#[test]
fn help_of_compress() {
    insta::assert_snapshot!(help(&["compress", "--help"]));
}

#[test]
fn help_of_decompress() {
    insta::assert_snapshot!(help(&["decompress", "--help"]));
}

#[test]
fn help_of_personalize() {
    insta::assert_snapshot!(help(&["personalize", "--help"]));
}

#[test]
fn help_of_the_commands_of_a_budget() {
    for command in ["init", "status", "spend", "verify", "recover", "void", "export"] {
        insta::assert_snapshot!(format!("help_of_privacy_{command}"), help(&["privacy", command, "--help"]));
    }
}

#[test]
fn help_of_doctor() {
    insta::assert_snapshot!(help(&["doctor", "--help"]));
}

#[test]
fn help_of_bench() {
    insta::assert_snapshot!(help(&["bench", "--help"]));
}

#[test]
fn help_of_the_commands_of_shards() {
    for command in ["gram", "decide", "combine", "merge"] {
        insta::assert_snapshot!(format!("help_of_{command}"), help(&[command, "--help"]));
    }
}

#[test]
fn help_of_the_commands_of_privacy() {
    for command in ["compose", "calibrate"] {
        insta::assert_snapshot!(format!("help_of_privacy_{command}"), help(&["privacy", command, "--help"]));
    }
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
