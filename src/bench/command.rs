//! Whole commands on files, in this process: `inspect`, `compress`, `decompress`.

use super::BenchError;
use super::aggregate::Side;
use super::sampling::{Sample, timed};
use crate::codecs::{self, Codec};
use crate::compress::decompress::Decompression;
use crate::compress::method::CompressionMethod;
use crate::compress::offload::Offload;
use crate::compress::run::Compression;
use crate::engine::intake::policy::Policy;
use crate::engine::passes::gpu_ring::GpuRing;
use crate::engine::passes::machine::Machine;
use crate::gpu::Gpu;
use crate::inspect::Inspection;
use crate::io::synthetic::SyntheticUpdates;
use crate::kernels::lanes::Isa;
use crate::telemetry::explain::Explain;
use crate::telemetry::progress::Progress;
use rayon::ThreadPool;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// The codecs of the measured commands, if the user asks for all.
const CODECS: [&str; 3] = ["u4", "eden4", "topk"];

/// A command. Displays as the text that parses to it, with all settings of its codec.
#[derive(Clone, Debug)]
pub enum Command {
    /// Norms and angles of all updates.
    Inspect,
    /// Each update by itself by a codec.
    Compress(Arc<dyn Codec>),
    /// Each update from the file that the codec makes.
    Decompress(Arc<dyn Codec>),
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inspect => f.write_str("inspect"),
            Self::Compress(codec) => write!(f, "compress:{codec}"),
            Self::Decompress(codec) => write!(f, "decompress:{codec}"),
        }
    }
}

impl Command {
    /// The command of a text: `inspect`, `compress:CODEC` or `decompress:CODEC`.
    ///
    /// # Errors
    ///
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let codec = |text: &str| codecs::parse(text).map(Arc::from).map_err(|why| why.to_string());
        match text.split_once(':') {
            None if text == "inspect" => Ok(Self::Inspect),
            Some(("compress", text)) => codec(text).map(Self::Compress),
            Some(("decompress", text)) => codec(text).map(Self::Decompress),
            _ => Err(format!(
                "found `{text}`, expected all, none, inspect, compress:CODEC or decompress:CODEC"
            )),
        }
    }

    /// `inspect`, and the others with `u4`, `eden4` and `topk`.
    ///
    /// # Errors
    ///
    /// When no codec has such a name.
    pub fn all() -> Result<Vec<Self>, String> {
        let with_codecs = ["compress", "decompress"]
            .into_iter()
            .flat_map(|command| CODECS.map(|codec| format!("{command}:{codec}")));
        std::iter::once("inspect".to_owned()).chain(with_codecs).map(|text| Self::parse(&text)).collect()
    }

    /// Whether a device does a part of the work.
    pub(super) fn has_shaders(&self) -> bool {
        match self {
            Self::Inspect => true,
            Self::Compress(codec) => codec.has_shaders(),
            Self::Decompress(codec) => codecs::decodes_on_device(&**codec),
        }
    }

    /// Whether the command reads the updates as they are.
    pub(super) fn reads_updates(&self) -> bool {
        !matches!(self, Self::Decompress(_))
    }

    /// Makes the files that the command reads.
    ///
    /// # Errors
    ///
    /// When an update cannot be compressed.
    pub(super) fn prepare(
        &self,
        updates: &SyntheticUpdates,
        isa: Isa,
        pool: &ThreadPool,
    ) -> Result<(), BenchError> {
        let Self::Decompress(codec) = self else { return Ok(()) };
        compress(codec, updates, None, isa, pool, |client| encoded(updates, client))
    }

    /// Runs the command on all updates once. The time on a device includes opening it.
    ///
    /// # Errors
    ///
    /// When the command fails.
    pub(super) fn run(
        &self,
        updates: &SyntheticUpdates,
        side: Side,
        isa: Isa,
        pool: &ThreadPool,
    ) -> Result<Sample, BenchError> {
        let (total, done) = timed(|| self.run_once(updates, side, isa, pool));
        done.map(|()| Sample::whole(total))
    }

    fn run_once(
        &self,
        updates: &SyntheticUpdates,
        side: Side,
        isa: Isa,
        pool: &ThreadPool,
    ) -> Result<(), BenchError> {
        let device = || match side {
            Side::Cpu => Ok(None),
            Side::Gpu(gpu) => Offload::open(gpu.options()).map(Some),
        };
        match self {
            Self::Inspect => inspect(updates, side, isa, pool),
            Self::Compress(codec) => compress(codec, updates, device()?, isa, pool, |_| updates.output()),
            Self::Decompress(_) => {
                let device = device()?;
                (0..updates.files().len()).try_for_each(|client| {
                    let (update, output) = (encoded(updates, client), updates.output());
                    let device = device.clone();
                    let decompression =
                        Decompression { update, base: None, max_bytes: None, output, isa, device };
                    decompression.run(pool).map(drop).map_err(failed)
                })
            }
        }
    }
}

fn failed(why: impl Explain) -> BenchError {
    BenchError::Command(Box::new(why))
}

/// The path of a client's compressed update.
fn encoded(updates: &SyntheticUpdates, client: usize) -> PathBuf {
    updates.beside(&format!("encoded-{client:05}.safetensors"))
}

fn inspect(updates: &SyntheticUpdates, side: Side, isa: Isa, pool: &ThreadPool) -> Result<(), BenchError> {
    let progress = Progress::hidden();
    let machine = Machine::new(isa, pool, &progress);
    if let Side::Gpu(gpu) = side {
        machine.use_gpu(GpuRing::new(Gpu::open(gpu.options())?, machine.threads(), false)?);
    }
    let updates = vec![updates.updates().to_owned()];
    let inspection = Inspection { updates, base: None, policy: Policy::default() };
    inspection.run(&machine).map(drop).map_err(failed)
}

fn compress(
    codec: &Arc<dyn Codec>,
    updates: &SyntheticUpdates,
    device: Option<Arc<Offload>>,
    isa: Isa,
    pool: &ThreadPool,
    output: impl Fn(usize) -> PathBuf,
) -> Result<(), BenchError> {
    updates.files().iter().enumerate().try_for_each(|(client, update)| {
        let compression = Compression {
            as_is: true,
            output: Some(output(client)),
            isa,
            device: device.clone(),
            ..Compression::new(update.clone(), CompressionMethod::Codec(Arc::clone(codec)))
        };
        compression.run(pool).map(drop).map_err(failed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back() {
        for command in Command::all().unwrap() {
            let text = command.to_string();
            assert_eq!(Command::parse(&text).unwrap().to_string(), text);
        }
        assert_eq!(Command::parse("compress:u4:block=8").unwrap().to_string(), "compress:u4:block=8");
        for wrong in ["inspect:u4", "compress", "merge", "decompress:none"] {
            assert!(Command::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn devices_encode_topk_and_do_not_decode_it() {
        let on_device = |text: &str| Command::parse(text).unwrap().has_shaders();
        assert!(on_device("inspect") && on_device("compress:topk") && on_device("decompress:u4"));
        assert!(!on_device("decompress:topk") && !on_device("compress:f16"));
        assert!(!on_device("decompress:eden4:block=512") && !on_device("decompress:f16"));
    }
}
