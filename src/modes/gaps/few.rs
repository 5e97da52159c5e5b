//! Tensors that too few clients have for the rule: they keep the base's values.

use crate::engine::aggregate::error::Error;
use crate::engine::decide::method::Method;
use crate::engine::intake::taken::Taken;
use crate::modes::gaps::TensorGroup;
use crate::rules::RuleError;
use crate::telemetry::explain::Explain;

/// Why the clients that have a tensor are too few.
#[derive(thiserror::Error, Clone, PartialEq, Debug)]
pub enum TooFew {
    /// The rule cannot decide on so few clients, or does not hold against the hostile clients assumed.
    #[error(transparent)]
    ForRule(RuleError),
    /// Their weights add up to zero.
    #[error("they weigh nothing")]
    NoWeight,
}

/// The error of a run without a base.
#[derive(thiserror::Error, Clone, PartialEq, Debug)]
#[error("tensor `{tensor}`: {holders} of {all} clients have it ({}), and {why}", .ids.join(", "))]
pub struct TooFewHolders {
    tensor: String,
    /// The ids of the clients that have the tensor, or the first of them.
    ids: Vec<String>,
    holders: usize,
    all: usize,
    why: TooFew,
}

impl Explain for TooFewHolders {
    fn hint(&self) -> Option<String> {
        Some("pass --base MODEL, whose values such a tensor then keeps".to_owned())
    }
}

/// The most tensors and clients that messages name.
const MOST_NAMED: usize = 20;

/// Returns why the clients that have these tensors are too few, if the tensors can keep the base's values.
///
/// # Errors
///
/// When there is no base.
pub fn check_base(why: TooFew, taken: &Taken, holders: &[usize], tensors: &[usize]) -> Result<TooFew, Error> {
    let set = &taken.set;
    if set.base.is_some() {
        return Ok(why);
    }
    let named = holders.iter().take(MOST_NAMED).map(|client| set.clients[*client].id.clone());
    Err(Error::Mode(Box::new(TooFewHolders {
        tensor: set.layout.tensors()[tensors[0]].name.clone(),
        ids: named.collect(),
        holders: holders.len(),
        all: set.clients.len(),
        why,
    })))
}

/// A warning for each tensor that keeps the base's values because too few clients have it. The last counts those that no
/// warning names.
pub(super) fn warnings(groups: &[TensorGroup], taken: &Taken) -> impl Iterator<Item = String> {
    let all = taken.set.clients.len();
    let few = groups.iter().filter_map(|group| Some((group, group.too_few.as_ref()?)));
    let few: Vec<_> =
        few.flat_map(|(group, why)| group.tensors.iter().map(move |tensor| (group, why, *tensor))).collect();
    let more = few.len().saturating_sub(MOST_NAMED);
    let warning = |(group, why, tensor): &(&TensorGroup, &TooFew, usize)| {
        let name = &taken.set.layout.tensors()[*tensor].name;
        format!(
            "tensor `{name}` keeps the base's values: {} of {all} clients have it, and {why}",
            group.clients.len()
        )
    };
    let named: Vec<String> = few.iter().take(MOST_NAMED).map(warning).collect();
    let rest =
        (more > 0).then(|| format!("{more} more tensors keep the base's values: too few clients have them"));
    named.into_iter().chain(rest)
}

/// A warning of tensors that the rule merges over so few clients that one of them decides. `None` if there are none, or
/// the operator says how many clients are hostile.
pub(super) fn undefended(groups: &[TensorGroup], taken: &Taken, method: &Method) -> Option<String> {
    let all = taken.set.clients.len();
    let (rule, tolerates) = (&method.rule, |clients: usize| method.rule.tolerates(clients));
    let is_few = |group: &&TensorGroup| group.recipe.is_some() && tolerates(group.clients.len()) == 0;
    if method.byzantine.is_some() || tolerates(all) == 0 {
        return None;
    }
    let few: Vec<usize> = groups.iter().filter(is_few).flat_map(|group| group.tensors.clone()).collect();
    let first = &taken.set.layout.tensors()[*few.first()?].name;
    Some(format!(
        "{} tensors, such as `{first}`, are in so few updates that {rule} holds against no hostile client there; with \
         --byzantine F they keep the base's values",
        few.len()
    ))
}
