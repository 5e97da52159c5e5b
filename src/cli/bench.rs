//! `fedmill bench`: measures kernels and whole merges on the CPU and on GPUs.

use super::{BackendName, Common, Failure, INPUTS, OUTPUT, Outcome, rates};
use crate::bench::BenchError;
use crate::bench::command::Command;
use crate::bench::grid::{Grid, check_rule};
use crate::bench::kernel::{DTYPES, Kernel};
use crate::bench::picture::Format;
use crate::bench::plot;
use crate::bench::results::Results;
use crate::bench::sampling::Repeats;
use crate::bench::table;
use crate::gpu::adapters;
use crate::gpu::job::{GpuError, Options, named};
use crate::model::dtype::Dtype;
use crate::settings::split_list;
use clap::Args;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Measure kernels and whole merges on the CPU and on every GPU.
///
/// Prints times, shares of the machine's limits, and the least number of clients with which a GPU is faster. Writes
/// synthetic updates to temporary files and removes them afterwards.
#[derive(Args, Debug)]
#[command(next_help_heading = INPUTS)]
pub(super) struct Arguments {
    #[arg(long, value_name = "LIST", default_value = "weighted-sum,median,pairs", value_parser = kernels)]
    #[arg(help = kernels_help())]
    kernels: KernelList,
    /// Rules to measure as whole merges from files to a file, written as in `aggregate --rule`; or none.
    ///
    /// Rules that need --byzantine assume a fifth of the clients. private-mean is the mean under a budget of privacy.
    #[arg(long, value_name = "LIST", default_value = "mean,median,multi-krum", value_parser = rules)]
    rules: RuleList,
    /// Other commands to measure from files to files: all, none, or some of inspect, compress:CODEC, decompress:CODEC.
    #[arg(long, value_name = "LIST", default_value = "none", value_parser = commands)]
    commands: CommandList,
    /// Numbers of clients.
    #[arg(long, value_name = "LIST", default_value = "2,8,32,64", value_delimiter = ',', value_parser = count)]
    clients: Vec<usize>,
    /// Numbers of parameters of a model, such as 100k or 1M.
    #[arg(long, value_name = "LIST", default_value = "1M", value_delimiter = ',', value_parser = count)]
    parameters: Vec<usize>,
    /// Dtypes of updates: f32, bf16, f16.
    #[arg(long, value_name = "LIST", default_value = "f32", value_delimiter = ',', value_parser = dtype)]
    dtype: Vec<Dtype>,
    /// The number of measured runs of each case.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = samples)]
    samples: usize,
    /// The number of runs of each case before the measured ones.
    #[arg(long, value_name = "N", default_value_t = 2)]
    warm_up: usize,
    /// Measure software adapters too.
    #[arg(long)]
    software: bool,
    /// The directory for the synthetic updates [default: the system's directory for temporary files].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Draw time by number of clients, with the machine's limits, into FILE (.svg or .png). `-` is SVG on standard
    /// output.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    plot: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
}

fn kernel_names() -> String {
    Kernel::ALL.map(Kernel::name).join(", ")
}

fn kernels_help() -> String {
    format!("Kernels to measure over rows in memory: all, none, or some of {}", kernel_names())
}

/// A list that clap takes as one value.
#[derive(Clone, Debug)]
struct KernelList(Vec<Kernel>);

#[derive(Clone, Debug)]
struct RuleList(Vec<String>);

#[derive(Clone, Debug)]
struct CommandList(Vec<Command>);

fn kernels(text: &str) -> Result<KernelList, String> {
    let named = |name: &str| {
        let unknown = || format!("found `{name}`, expected all, none, or some of {}", kernel_names());
        Kernel::named(name).ok_or_else(unknown)
    };
    match text {
        "none" => Ok(KernelList(Vec::new())),
        "all" => Ok(KernelList(Kernel::ALL.to_vec())),
        list => list.split(',').map(named).collect::<Result<_, _>>().map(KernelList),
    }
}

fn rules(text: &str) -> Result<RuleList, String> {
    if text == "none" {
        return Ok(RuleList(Vec::new()));
    }
    let list = split_list(text);
    list.iter().try_for_each(|rule| check_rule(rule)).map_err(|why| why.to_string())?;
    Ok(RuleList(list))
}

fn commands(text: &str) -> Result<CommandList, String> {
    match text {
        "none" => Ok(CommandList(Vec::new())),
        "all" => Command::all().map(CommandList),
        list => split_list(list)
            .iter()
            .map(|text| Command::parse(text))
            .collect::<Result<_, _>>()
            .map(CommandList),
    }
}

/// Parses a count above zero, with an optional suffix for thousands or millions.
fn count(text: &str) -> Result<usize, String> {
    let bad = || format!("found `{text}`, expected a count above zero such as 300, 100k or 1.5M");
    let (number, factor) = match text.strip_suffix(['k', 'K', 'm', 'M']) {
        Some(number) if text.ends_with(['k', 'K']) => (number, 1e3),
        Some(number) => (number, 1e6),
        None => (text, 1.0),
    };
    let number: f64 = number.parse().map_err(|_| bad())?;
    let count = (number * factor).round();
    // More than any model has; products of such counts do not overflow.
    let fits = (1.0..1e12).contains(&count) && (count - number * factor).abs() < 1e-6 * count;
    if fits { Ok(count as usize) } else { Err(bad()) }
}

fn dtype(text: &str) -> Result<Dtype, String> {
    let found = DTYPES.into_iter().find(|dtype| dtype.to_string().eq_ignore_ascii_case(text));
    found.ok_or_else(|| format!("found `{text}`, expected f32, bf16 or f16"))
}

fn samples(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=1_000_000).contains(count));
    count.ok_or_else(|| format!("found `{text}`, expected a count from 1 to 1000000"))
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let format = self.plot.as_deref().map(rates::format_of).transpose()?;
        let grid = self.grid(common)?;
        let results = grid.run(&common.pool()?, &common.progress()).map_err(failure)?;
        if let (Some(path), Some(format)) = (&self.plot, format) {
            write_plot(&results, path, format)?;
        }
        let text = if self.json { serde_json::to_string(&results)? + "\n" } else { table::text(&results) };
        rates::print_beside(self.plot.as_deref(), self.json, &text).map(|()| Outcome::Done)
    }

    fn grid(&self, common: &Common) -> Result<Grid, Failure> {
        let sorted = |list: &[usize]| list.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        Ok(Grid {
            kernels: self.kernels.0.clone(),
            rules: self.rules.0.clone(),
            commands: self.commands.0.clone(),
            clients: sorted(&self.clients),
            parameters: sorted(&self.parameters),
            dtypes: self.dtype.clone(),
            repeats: Repeats { warm_up: self.warm_up, samples: self.samples },
            devices: self.devices(common)?,
            directory: self.dir.clone(),
            isa: common.isa(),
        })
    }

    /// The named device, or all devices, of software ones only with --software.
    fn devices(&self, common: &Common) -> Result<Vec<Options>, Failure> {
        if common.backend_name() == BackendName::Cpu {
            return Ok(Vec::new());
        }
        let wanted = common.adapter.as_deref();
        let named = named(adapters(), wanted).map_err(|why| failure(why.into()))?;
        let chosen: Vec<String> = match wanted {
            Some(_) => named.into_iter().map(|adapter| adapter.name).take(1).collect(),
            None => {
                let wanted = named.into_iter().filter(|adapter| self.software || !adapter.is_software());
                wanted.map(|adapter| adapter.name).collect()
            }
        };
        if chosen.is_empty() && common.backend_name() == BackendName::Gpu {
            let software = adapters().into_iter().map(|adapter| adapter.name).collect();
            return Err(failure(GpuError::NoAdapter { software }.into()));
        }
        if chosen.is_empty() {
            tracing::info!("no GPU was found; measuring the CPU alone");
        }
        let options = |name| Options { adapter: Some(name), ..common.gpu_options() };
        Ok(chosen.into_iter().map(options).collect())
    }
}

fn failure(error: BenchError) -> Failure {
    Failure { hint: error.hint(), signal: error.signal(), ..Failure::from(error) }
}

fn write_plot(results: &Results, path: &Path, format: Format) -> Result<(), Failure> {
    let picture = plot::draw(results, format).map_err(failure)?;
    rates::write(path, &picture)?;
    let subjects: BTreeSet<_> = results.rows.iter().map(|row| &row.subject).collect();
    if subjects.len() > plot::MOST_PANELS {
        tracing::warn!("--plot: {} of {} panels were drawn", plot::MOST_PANELS, subjects.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_may_be_in_thousands_and_millions() {
        let good = [("3", 3), ("100k", 100_000), ("1M", 1_000_000), ("11.7M", 11_700_000), ("2K", 2000)];
        for (text, expected) in good {
            assert_eq!(count(text), Ok(expected), "{text}");
        }
        for bad in ["", "k", "0", "-1", "1.5", "1G", "1e99", "nan", "inf", "0.0001k", "9999999M"] {
            assert!(count(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lists_name_what_they_expect() {
        assert_eq!(kernels("none").unwrap().0, []);
        assert_eq!(kernels("all").unwrap().0.len(), Kernel::ALL.len());
        assert!(kernels("median,what").unwrap_err().contains("weighted-sum"));
        assert_eq!(rules("mean,trimmed-mean:cut=2").unwrap().0, ["mean", "trimmed-mean:cut=2"]);
        assert!(rules("none").unwrap().0.is_empty());
        assert!(rules("average").is_err());
        assert_eq!(dtype("BF16"), Ok(Dtype::BF16));
        assert!(dtype("f64").is_err());
    }
}
