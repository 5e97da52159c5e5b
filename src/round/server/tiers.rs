//! What the file of tiers asks of clients, and the codecs that each tier may use.

use crate::codecs::{self, Codec};
use crate::compress::forecast::{self, Forecast};
use crate::engine::decide::method::Method;
use crate::engine::intake::personal::NormModules;
use crate::engine::intake::sparse::is_own_choice;
use crate::engine::intake::update::open_base;
use crate::io::model_file::TablePool;
use crate::io::source::{self, OpenFiles};
use crate::lint::tier_codecs::{CodecForecast, TierTask};
use crate::model::layout::TensorSpec;
use crate::model::sparsity::Sparsity;
use crate::modes::tiers::file::{Tier, TierText, Tiers};
use crate::round::error::RoundError;
use crate::round::server::Server;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::Arc;

/// A codec of the configuration, and the forecast for an update by it.
struct Candidate {
    name: String,
    forecast: Forecast,
    is_sketch: bool,
}

impl Server {
    /// What the file of tiers asks of the clients of each tier. Without a model there are no forecasts.
    pub(super) fn tier_tasks(&self, model: Option<&Path>) -> Result<BTreeMap<String, TierTask>, RoundError> {
        let Some(tiers) = self.read_tiers()? else { return Ok(BTreeMap::new()) };
        let candidates = match model.filter(|_| self.config.adaptation.tier_codecs) {
            Some(model) => candidates(&self.config.compression.methods, METHODS, &self.sent_tensors(model)?)?,
            None => Vec::new(),
        };
        Ok(tiers.tiers.into_iter().map(|tier| (tier.name.clone(), task(tier, &candidates))).collect())
    }

    /// The path of the file of tiers; `None` without one. A pipe would hold the run.
    pub(super) fn tiers_file(&self) -> Result<Option<PathBuf>, RoundError> {
        let path = self.config.tiers.file.as_ref().map(|file| self.root.join(file));
        path.map(|path| self.checked(path)).transpose()
    }

    /// The path of a file that the settings name, unless it is a pipe or a device: the run would wait for it. A missing
    /// file is for its reader.
    pub(super) fn checked(&self, path: PathBuf) -> Result<PathBuf, RoundError> {
        match source::check_regular(&path) {
            Err(why) if why.kind() != ErrorKind::NotFound => {
                Err(RoundError::reading(&path.display().to_string())(why))
            }
            _ => Ok(path),
        }
    }

    /// The file of tiers; `None` without one.
    pub(super) fn read_tiers(&self) -> Result<Option<Tiers>, RoundError> {
        let Some(file) = self.tiers_file()? else { return Ok(None) };
        let tiers = Tiers::read(&file, |tier| self.tier(tier));
        tiers.map(Some).map_err(RoundError::work)
    }

    /// The tensors of a model that clients send.
    fn sent_tensors(&self, model: &Path) -> Result<Vec<TensorSpec>, RoundError> {
        let base = open_base(model, &OpenFiles::raise_limit(), &TablePool::default());
        let base = base.map_err(|why| RoundError::Unexpected {
            path: model.display().to_string(),
            found: why.faults.to_string(),
            expected: "a model".to_owned(),
        })?;
        let personal = self.personal()?;
        let specs = || base.model.table.iter().map(|place| &place.spec);
        let norms = NormModules::of_most(vec![specs().map(|spec| spec.name.as_str())]);
        Ok(specs().filter(|spec| !personal.holds(&spec.name, &norms)).cloned().collect())
    }

    /// The codecs that tasks offer or demand, and that the merge of their updates refuses. Codecs that adapt to tiers are
    /// chosen among those that fit.
    pub(super) fn unfit_codecs(&self) -> Result<Vec<UnfitCodec>, RoundError> {
        let Some((_, model)) = self.model() else { return Ok(Vec::new()) };
        let (tensors, methods) = (self.sent_tensors(&model)?, &self.config.compression.methods);
        let Some(tiers) = self.read_tiers()? else {
            let method = self.tier(&TierText { rule: None, pre: None, byzantine: None })?;
            return unfit(None, &method, methods, METHODS, &tensors);
        };
        let of_tier = |tier: &Tier| match &tier.codec {
            Some(codec) => unfit(Some(tier), &tier.method, slice::from_ref(codec), "tiers.file", &tensors),
            None if self.config.adaptation.tier_codecs => Ok(Vec::new()),
            None => unfit(Some(tier), &tier.method, methods, METHODS, &tensors),
        };
        let unfit: Result<Vec<_>, _> = tiers.tiers.iter().map(of_tier).collect();
        Ok(unfit?.concat())
    }
}

/// The key that lists the codecs of all clients.
const METHODS: &str = "compression.methods";

/// A codec that a task offers or demands, and that the merge refuses.
#[derive(Clone, Debug)]
pub(super) struct UnfitCodec {
    /// The key that names the codec.
    pub(super) key: &'static str,
    /// The codec.
    pub(super) codec: String,
    /// The tier whose clients may use it; `None` for all clients.
    pub(super) tier: Option<String>,
    /// The reason.
    pub(super) why: String,
    /// Whether a round is refused: its clients have no other codec, and the tier is not optional.
    pub(super) is_fatal: bool,
}

fn unfit(
    tier: Option<&Tier>,
    method: &Method,
    names: &[String],
    key: &'static str,
    tensors: &[TensorSpec],
) -> Result<Vec<UnfitCodec>, RoundError> {
    let candidates = candidates(names, key, tensors)?;
    let unfit = |one: &Candidate| Some((one.name.clone(), why_unfit(one, method, &candidates)?));
    let found: Vec<(String, String)> = candidates.iter().filter_map(unfit).collect();
    let is_fatal = found.len() == candidates.len() && tier.is_none_or(|tier| !tier.is_optional);
    let of =
        |(codec, why)| UnfitCodec { key, codec, why, is_fatal, tier: tier.map(|tier| tier.name.clone()) };
    Ok(found.into_iter().map(of).collect())
}

fn candidates(
    names: &[String],
    key: &'static str,
    tensors: &[TensorSpec],
) -> Result<Vec<Candidate>, RoundError> {
    let candidate = |name: &String| {
        let codec: Arc<dyn Codec> = codecs::parse(name).map_err(RoundError::setting(key))?.into();
        let forecast = forecast::of(&codec, tensors);
        Ok(Candidate { name: name.clone(), forecast, is_sketch: codec.is_linear() })
    };
    names.iter().map(candidate).collect()
}

fn task(tier: Tier, candidates: &[Candidate]) -> TierTask {
    let (mut codecs, mut unfit) = (Vec::new(), Vec::new());
    for candidate in candidates {
        let codec = candidate.name.clone();
        match (why_unfit(candidate, &tier.method, candidates), candidate.forecast.bytes) {
            (Some(why), _) => unfit.push((codec, why)),
            (None, Some(bytes)) => codecs.push(CodecForecast { codec, bytes }),
            (None, None) => unfit.push((
                codec,
                "its bytes depend on the values, so none can be expected before they come".to_owned(),
            )),
        }
    }
    let Tier { local_steps, codec, upload_bytes, .. } = tier;
    TierTask { local_steps, codec, upload_bytes, codecs, unfit }
}

/// Why the merge of a tier refuses updates by a codec; `None` if it takes them.
fn why_unfit(candidate: &Candidate, method: &Method, all: &[Candidate]) -> Option<String> {
    if candidate.is_sketch {
        return Some("rounds merge onto a base, and sketches merge without one".to_owned());
    }
    let rule = method.comparer()?;
    let is_shared = |one: &Candidate| matches!(one.forecast.sparsity, Sparsity::Shared { .. });
    if is_own_choice(&candidate.forecast.sparsity) {
        Some(format!("each client chooses under half of its values, and {rule} compares clients"))
    } else if is_shared(candidate) && all.iter().filter(|one| is_shared(one)).count() > 1 {
        Some(format!(
            "{rule} compares clients, whose values must be the same choice, and methods has two such choices"
        ))
    } else {
        None
    }
}
