//! `fedmill compress`: writes an update in fewer bytes.

use super::{
    BackendName, CODEC, Common, Failure, INPUTS, OUTPUT, Outcome, print, print_account, print_path, rates,
    size,
};
use crate::codecs::{self, CODECS, Codec};
use crate::compress::method::{CompressionMethod, Targets};
use crate::compress::offload::Offload;
use crate::compress::patch;
use crate::compress::residual::{Feedback, ResidualDtype};
use crate::compress::run::Compression;
use crate::compress::summary::Summary;
use crate::compress::values::NonFinite;
use crate::compress::writer::FileLayout;
use crate::settings::numbers;
use crate::telemetry::console;
use crate::telemetry::manual::Named;
use clap::{ArgGroup, Args};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Compress an update.
///
/// Prints the path of the compressed update. It is a safetensors file that `aggregate` reads like any update.
#[derive(Args, Debug)]
#[command(next_help_heading = CODEC, group = ArgGroup::new("how").required(true).multiple(true))]
pub(super) struct Arguments {
    /// The update: a .safetensors file or an index of shards.
    #[arg(value_name = "UPDATE", help_heading = INPUTS)]
    update: PathBuf,
    /// The model that the client started from. The client then sends the difference.
    #[arg(long, value_name = "BASE", help_heading = INPUTS)]
    base: Option<PathBuf>,
    /// Send weights even by a codec that leaves values out or pulls them towards zero.
    #[arg(long, help_heading = INPUTS)]
    as_is: bool,
    #[arg(long, value_name = "CODEC", value_parser = codec_parser(), hide_possible_values = true, group = "how")]
    #[arg(help = codec_help(), long_help = codec_long_help())]
    codec: Option<Arc<dyn Codec>>,
    /// Choose codecs so that the file is at least RATIO times smaller. Example: 100x.
    #[arg(long, value_name = "RATIO", value_parser = parse_ratio, group = "how", conflicts_with = "codec")]
    target: Option<f64>,
    /// Choose codecs so that the file has at most N bytes. Example: 4kB.
    #[arg(long, value_name = "N", value_parser = size::parse_bytes, group = "how", conflicts_with = "codec")]
    max_bytes: Option<u64>,
    /// Choose codecs so that the squared error is at most E times the squared norm.
    #[arg(long, value_name = "E", value_parser = numbers::not_negative, group = "how", conflicts_with = "codec")]
    max_nmse: Option<f64>,
    /// Write a patch that turns BASE into exactly this file: no bit, key or header differs. Refused if the patch would
    /// not be smaller than the file.
    ///
    /// `decompress PATCH --base BASE` applies it. It suits models that a server sends to its clients.
    #[arg(long, group = "how", requires = "base")]
    #[arg(conflicts_with_all = ["codec", "target", "max_bytes", "max_nmse", "as_is", "residual", "layout"])]
    #[arg(conflicts_with_all = ["emit_config", "dry_run", "table", "json"])]
    exact: bool,
    /// Publish the best file even if it misses the target.
    #[arg(long, conflicts_with = "codec")]
    best_effort: bool,
    /// The seed of random numbers. randk and sketch need the same seed for all clients.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Add the error that earlier updates left in FILE to this update, and write the new error to FILE.
    ///
    /// FILE is private: do not send it.
    #[arg(long, value_name = "FILE")]
    residual: Option<PathBuf>,
    /// The dtype of the residual's values.
    #[arg(long, value_name = "DTYPE", default_value = "f32", requires = "residual")]
    residual_dtype: ResidualDtype,
    /// Drop the residual if it is more than N rounds old.
    #[arg(long, value_name = "N", requires = "residual")]
    residual_max_age: Option<u64>,
    /// Multiply the residual by G, from 0 to 1, before it is added.
    #[arg(long, value_name = "G", default_value = "1", value_parser = numbers::share, requires = "residual")]
    decay: f64,
    /// What to do with NaN and infinity.
    #[arg(long, value_name = "ACTION", default_value = "error")]
    nonfinite: NonFinite,
    /// The layout of the file [default: plain, unless its header is over 2 % of the data].
    #[arg(long, value_name = "LAYOUT", help_heading = OUTPUT)]
    layout: Option<FileLayout>,
    /// Write to FILE the `quantization_config` with which compressed-tensors decodes the matrices.
    ///
    /// It belongs in the config.json of a model.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT, conflicts_with = "dry_run")]
    emit_config: Option<PathBuf>,
    /// Measure, and write no file.
    #[arg(long, help_heading = OUTPUT)]
    dry_run: bool,
    /// Print bytes, errors and speeds of every codec on the update. Needs --dry-run.
    #[arg(long, help_heading = OUTPUT, group = "how", requires = "dry_run")]
    #[arg(conflicts_with_all = ["codec", "target", "max_bytes", "max_nmse"])]
    table: bool,
    /// Draw the table into FILE (.svg or .png): the squared error by bits per parameter. `-` is SVG on standard output.
    /// Needs --table.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT, requires = "table")]
    #[arg(conflicts_with_all = ["codec", "target", "max_bytes", "max_nmse"])]
    plot: Option<PathBuf>,
    /// Print the measurements as one JSON object instead of the path.
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
    /// Write the compressed update to this path.
    #[arg(long, short, value_name = "OUT", help_heading = OUTPUT, required_unless_present_any = ["dry_run", "table"])]
    output: Option<PathBuf>,
}

fn codec_help() -> String {
    format!("The codec, such as u8:block=128: {}; --help lists their settings", codecs::names())
}

fn codec_long_help() -> String {
    format!(
        "The codec, such as u8:block=128. The codecs, with examples of their settings:\n\n{}",
        codecs::lines()
    )
}

fn codec_parser() -> Named<Arc<dyn Codec>> {
    Named::new(CODECS.iter().flat_map(|family| family.names()), parse_codec)
}

fn parse_codec(text: &str) -> Result<Arc<dyn Codec>, String> {
    codecs::parse(text).map(Arc::from).map_err(|why| why.to_string())
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    let ratio = text.strip_suffix('x').unwrap_or(text).parse().ok();
    ratio
        .filter(|ratio: &f64| *ratio > 0.0 && ratio.is_finite())
        .ok_or_else(|| "expected a ratio like 100x".to_owned())
}

impl Arguments {
    fn method(&self) -> CompressionMethod {
        match &self.codec {
            Some(codec) => CompressionMethod::Codec(Arc::clone(codec)),
            None => CompressionMethod::Targets(Targets {
                ratio: self.target,
                bytes: self.max_bytes,
                nmse: self.max_nmse,
                best_effort: self.best_effort,
            }),
        }
    }

    fn feedback(&self) -> Option<Feedback> {
        self.residual.as_ref().map(|path| Feedback {
            path: path.clone(),
            dtype: self.residual_dtype,
            max_age: self.residual_max_age,
            decay: self.decay,
        })
    }

    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        if let (true, Some(base), Some(output)) = (self.exact, &self.base, &self.output) {
            return self.run_exact(base, output, common);
        }
        let compression = Compression { device: self.device(common)?, ..self.compression(common) };
        if self.table {
            return rates::run(&compression, self.json, self.plot.as_deref(), common).map(|()| Outcome::Done);
        }
        self.warn_of_bias();
        let summary = compression.run(&common.pool()?).map_err(Failure::of)?;
        if let Some(missed) = summary.missed.as_ref().filter(|_| !self.best_effort) {
            return Ok(Outcome::Refused(missed.clone()));
        }
        summary.warn_of_range();
        self.tell(&summary, common)?;
        Ok(Outcome::Done)
    }

    /// Makes a patch from the base to the file.
    fn run_exact(&self, base: &Path, output: &Path, common: &Common) -> Result<Outcome, Failure> {
        common.refuse_gpu("compress --exact")?;
        let made = common.pool()?.install(|| patch::make(base, &self.update, output));
        if !made.map_err(Failure::of)? {
            let update = self.update.display();
            return Ok(Outcome::Refused(format!("{update}: a patch would not be smaller than the file")));
        }
        print_path(output);
        Ok(Outcome::Done)
    }

    fn compression(&self, common: &Common) -> Compression {
        Compression {
            base: self.base.clone(),
            as_is: self.as_is,
            seed: self.seed,
            non_finite: self.nonfinite,
            feedback: self.feedback(),
            layout: self.layout.or(self.emit_config.as_ref().map(|_| FileLayout::Plain)),
            config: self.emit_config.clone(),
            output: self.output.clone().filter(|_| !self.dry_run),
            isa: common.isa(),
            ..Compression::new(self.update.clone(), self.method())
        }
    }

    /// The GPU that `--backend gpu` asks for.
    fn device(&self, common: &Common) -> Result<Option<Arc<Offload>>, Failure> {
        let codec = self.codec.as_ref();
        if common.backend_name() != BackendName::Gpu || codec.is_some_and(|codec| codec.has_shaders()) {
            return common.offload("compress");
        }
        let found = codec.map_or("no --codec".to_owned(), |codec| format!("--codec {codec}"));
        let with_shaders = codecs::with_shaders();
        let why = anyhow::anyhow!(
            "--backend gpu: found {found}, expected a codec with shaders, with its default blocks: {with_shaders}"
        );
        Err(Failure { hint: Some("--backend cpu runs every codec".to_owned()), ..why.into() })
    }

    fn warn_of_bias(&self) {
        if self.residual.is_none() && self.codec.as_ref().is_none_or(|codec| !codec.is_unbiased()) {
            let codec =
                self.codec.as_ref().map_or("a codec chosen for a target".to_owned(), ToString::to_string);
            tracing::warn!(
                hint = "--residual FILE keeps the errors and adds them in the next round",
                "{codec} is biased: its errors add up over rounds"
            );
        }
    }

    /// Prints the path of the file, or the measurements if there is no file.
    fn tell(&self, summary: &Summary, common: &Common) -> Result<(), Failure> {
        let json = || Ok::<_, Failure>(format!("{}\n", serde_json::to_string(summary)?));
        match &summary.output {
            None if self.json => print(&json()?)?,
            Some(_) if self.json => print_account(&json()?),
            None => print(&format!("{}\n", summary.text()))?,
            Some(path) => {
                if !common.quiet {
                    console::tell(&summary.text());
                }
                print_path(Path::new(path));
            }
        }
        Ok(())
    }
}
