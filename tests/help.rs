//! The help texts, as snapshots. `INSTA_UPDATE=always cargo test help` accepts new ones.

use crate::harness::{Dir, fedmill};

/// The help that the program prints, at the width that the harness sets.
fn help(args: &[&str]) -> String {
    let run = fedmill(&Dir::new(), args);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:#?}");
    assert!(!run.stdout.contains('\x1b'));
    run.stdout
}

/// Calls `visit` with every command and the words that name it, from the program down.
fn visit_commands(visit: &mut impl FnMut(&[&str], &clap::Command)) {
    fn descend<'c>(
        path: &mut Vec<&'c str>,
        command: &'c clap::Command,
        visit: &mut impl FnMut(&[&str], &clap::Command),
    ) {
        visit(path, command);
        for subcommand in command.get_subcommands() {
            path.push(subcommand.get_name());
            descend(path, subcommand, visit);
            path.pop();
        }
    }
    descend(&mut Vec::new(), &fedmill::cli::command(), visit);
}

#[test]
fn help_of_every_command() {
    visit_commands(&mut |path, _| {
        let mut name = [&["fedmill"], path].concat().join("_");
        // A build without the feature has a command `he` that says how to get it.
        if cfg!(feature = "he") && path.first() == Some(&"he") {
            name = format!("{name}_with_its_feature");
        }
        insta::assert_snapshot!(format!("help_of_{name}"), help(&[path, &["--help"]].concat()));
        insta::assert_snapshot!(format!("summary_of_{name}"), help(&[path, &["-h"]].concat()));
    });
}

#[test]
fn every_argument_has_help_and_a_group() {
    visit_commands(&mut |path, command| {
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{path:?}: no help for {}", argument.get_id());
            assert!(argument.get_help_heading().is_some(), "{path:?}: no group for {}", argument.get_id());
        }
    });
}

#[test]
fn a_summary_is_shorter_than_the_help() {
    for command in ["aggregate", "compress"] {
        let (summary, help) = (help(&[command, "-h"]), help(&[command, "--help"]));
        assert!(2 * summary.lines().count() < help.lines().count(), "{summary}");
    }
}

#[test]
fn command_line_passes_claps_own_check() {
    fedmill::cli::command().debug_assert();
}

#[cfg(not(feature = "he"))]
#[test]
fn homomorphic_encryption_says_how_to_build_it() {
    for words in
        [&["he"][..], &["he", "params", "--clients", "3"], &["he", "decrypt", "sum.he", "-o", "mean"]]
    {
        let run = fedmill(&Dir::new(), words);
        run.assert_fails(2, &["built without homomorphic encryption", "cargo install fedmill --features he"]);
    }
}

#[test]
fn version_is_the_packages() {
    assert_eq!(help(&["--version"]), format!("fedmill {}\n", env!("CARGO_PKG_VERSION")));
}
