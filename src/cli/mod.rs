//! The command line: one file per subcommand, with its arguments and the call that runs it.
//!
//! A subcommand is its file, a `mod` line and a row of `subcommands!`. Options that subcommands share stand in the
//! room `options`. `usage` is the end of a command line that clap refuses, `rates` the table of codecs.

/// Declares subcommands: the name, the arguments, and the common options that the subcommand reads.
macro_rules! subcommands {
    ($($name:ident: $arguments:ty, reads [$($options:expr),*];)*) => {
        #[derive(clap::Subcommand, Debug)]
        pub(in crate::cli) enum Command {
            $($name(Box<$arguments>),)*
        }

        impl Command {
            /// The name of each subcommand, and the common options that it reads.
            pub(in crate::cli) const READS: crate::cli::Reads = &[$((stringify!($name), &[$($options),*]),)*];

            pub(in crate::cli) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
                match self {
                    $(Self::$name(arguments) => arguments.run(common),)*
                }
            }
        }
    };
}

mod agents;
mod aggregate;
mod bench;
mod clients;
mod completions;
mod compress;
mod decompress;
mod doctor;
mod he;
mod inspect;
mod man;
mod personalize;
mod plan;
mod privacy;
mod rates;
mod round;
mod secagg;
mod shards;
mod usage;

use crate::engine::backend::request::BackendName;
use crate::io::collision::arguments;
use crate::io::interrupt;
use crate::options::common::{BACKEND, CONSOLE, CPU, Common, GPU};
use crate::options::failure::Failure;
use crate::options::inputs::{IdOption, UpdatePaths};
use crate::options::{CODEC, COMMON, INPUTS, OUTPUT, Outcome, PRIVACY, RULE, is_stdout, print};
use crate::settings::size;
use crate::telemetry::console::{self, print_account, print_path};
use clap::{Arg, ArgAction, ArgMatches, CommandFactory, FromArgMatches, Parser};
use std::ffi::OsString;
use std::process::ExitCode;

/// Names of subcommands, each with the sets of common options that it reads.
type Reads = &'static [(&'static str, &'static [&'static [&'static str]])];

/// The server side of federated learning: reads files, writes files.
///
/// Exit status: 0 for success, 1 if a limit or a check refused a valid input, 2 for an error. The command publishes its
/// output only with status 0.
#[derive(Parser, Debug)]
#[command(
    name = "fedmill",
    version,
    max_term_width = 100,
    disable_help_flag = true,
    disable_version_flag = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

subcommands! {
    Aggregate: aggregate::Arguments, reads [BACKEND, GPU, CPU];
    Inspect: inspect::Arguments, reads [BACKEND, GPU, CPU];
    Compress: compress::Arguments, reads [BACKEND, GPU, CPU];
    Decompress: decompress::Arguments, reads [BACKEND, GPU, CPU];
    Personalize: personalize::Arguments, reads [CPU];
    Privacy: privacy::Arguments, reads [];
    Secagg: secagg::Arguments, reads [];
    He: he::Arguments, reads [];
    Clients: clients::Arguments, reads [];
    Agents: agents::Arguments, reads [];
    Round: round::Arguments, reads [];
    Plan: plan::Arguments, reads [];
    Doctor: doctor::Arguments, reads [GPU, CPU];
    Bench: bench::Arguments, reads [BACKEND, GPU, CPU];
    Gram: shards::gram::Arguments, reads [BACKEND, GPU, CPU];
    Decide: shards::decide::Arguments, reads [CPU];
    Combine: shards::combine::Arguments, reads [BACKEND, GPU, CPU];
    Merge: shards::merge::Arguments, reads [CPU];
    Completions: completions::Arguments, reads [];
    Man: man::Arguments, reads [];
}

/// The place of the first option in the help, behind all positional arguments.
const OPTIONS_FROM: usize = 1000;

/// Parses the command line, runs the command, and returns its exit status.
pub fn run() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let mut command = command();
    let parsed = command.try_get_matches_from_mut(&arguments);
    let parsed = parsed.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(why) => return usage::tell(&why, &arguments),
    };
    cli.common.install_console();
    if let Err(why) = arguments::check_line(&command, &matches) {
        usage::write_report(&arguments, why.to_string());
        return Failure::from(why).tell();
    }
    if let Err(why) = leave_standard_output(&command, &matches) {
        return why.tell();
    }
    match cli.execute() {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Refused(why)) => {
            tracing::error!("refused: {why}");
            ExitCode::from(1)
        }
        Ok(Outcome::Waiting(why)) => {
            if !cli.common.quiet {
                console::tell(&format!("waiting: {why}"));
            }
            ExitCode::from(1)
        }
        Err(failure) => failure.tell(),
    }
}

impl Cli {
    fn execute(&self) -> Result<Outcome, Failure> {
        interrupt::listen()?;
        self.command.run(&self.common)
    }
}

/// Leaves standard output to the output of the command line that goes there. Refuses JSON beside it.
fn leave_standard_output(command: &clap::Command, matches: &ArgMatches) -> Result<(), Failure> {
    let (command, matches) = arguments::innermost(command, matches);
    let Some(option) = arguments::on_standard_output(command, matches) else { return Ok(()) };
    if matches.try_get_one::<bool>("json").is_ok_and(|json| json == Some(&true)) {
        return Err(anyhow::anyhow!(
            "--{option}: found standard output, which has what --json prints, expected the path of a file"
        )
        .into());
    }
    console::leave_standard_output();
    Ok(())
}

/// The command line as clap parses it, for the program, for tests and for generated help.
///
/// Every subcommand accepts every common option. Its help hides those that it ignores.
pub fn command() -> clap::Command {
    let flag = |name: &'static str, action| Arg::new(name).long(name).action(action).help_heading(COMMON);
    let help =
        flag("help", ArgAction::Help).short('h').global(true).help("Print help: -h in short, --help in full");
    let version = flag("version", ArgAction::Version).short('V').help("Print the version");
    let program = Cli::command().arg(help).arg(version);
    let common: Vec<Arg> = program.get_arguments().filter(|option| option.is_global_set()).cloned().collect();
    let show = |part: clap::Command, reads: &[&[&str]]| {
        let is_read = |id: &str| id == "help" || reads.iter().chain([&CONSOLE]).any(|ids| ids.contains(&id));
        let common = common.iter().map(|option| option.clone().hide(!is_read(option.get_id().as_str())));
        // Positional arguments first: clap lists them after the options of their group.
        let (mut place, name) = (0, part.get_name().to_owned());
        let part = part.mut_args(|argument| {
            place += 1;
            let is_option = !argument.is_positional();
            // The parser of the option says what is wrong with a negative number.
            let takes_value = is_option && argument.get_action().takes_values();
            let argument = arguments::with_target(&name, argument).allow_negative_numbers(takes_value);
            argument.display_order(place + if is_option { OPTIONS_FROM } else { 0 })
        });
        part.args(common)
    };
    let show_each = |part: clap::Command, rows: Reads| {
        rows.iter().fold(part, |part, (name, reads)| {
            part.mut_subcommand(name.to_lowercase(), |subcommand| show(subcommand, reads))
        })
    };
    show_each(program, Command::READS)
        .mut_subcommand("privacy", |privacy| show_each(privacy, privacy::Command::READS))
        .mut_subcommand("he", |he| show_each(he, he::READS))
        .mut_subcommand("clients", |clients| show_each(clients, clients::Command::READS))
        .mut_subcommand("round", |round| show_each(round, round::Command::READS))
        .mut_subcommand("plan", |plan| show_each(plan, plan::Command::READS))
        .mut_subcommand("agents", |agents| show_each(agents, agents::Command::READS))
        .mut_subcommand("secagg", |secagg| show_each(secagg, secagg::Command::READS))
}
