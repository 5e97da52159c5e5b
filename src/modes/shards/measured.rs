//! Reads what `gram` measured in all shards of a run, without the updates.

use crate::modes::shards::file::{ShardError, ShardFile, ShardKind, open_alone};
use crate::modes::shards::gram::{read_all, triangle_size};
use crate::modes::shards::identity::RunIdentity;
use crate::rules::geometry::References;
use crate::rules::{Distances, GeometryRequest, GeometryResult, Precision};
use std::path::PathBuf;

/// The geometry in the shard files of all shards of a run.
///
/// # Errors
///
/// When a file is not one of `gram`, the files are of different runs, or a shard has no file.
pub fn measured(paths: &[PathBuf]) -> Result<GeometryResult, ShardError> {
    let (shards, identity) = open_alone(paths, ShardKind::Gram)?;
    let request = request(&shards, &identity)?;
    Ok(read_all(&shards, &request)?.conclude(&request).0)
}

/// The measurement whose result the files hold: the usual one.
fn request(shards: &[ShardFile], identity: &RunIdentity) -> Result<GeometryRequest<'static>, ShardError> {
    let Some(first) = shards.first() else {
        return Err(ShardError::Gap { sections: 0..1, before: None, after: None });
    };
    let text = |name: &str| identity.0.get(name).map_or("", String::as_str);
    let is = |name: &str| text(name) == "true";
    let updates = text("clients").split(' ').next().and_then(|count| count.parse().ok());
    let points = first.shape("usual.products").and_then(|shape| shape.get(1).copied()).map(triangle_size);
    let (Some(updates), Some(points)) = (updates, points) else {
        return Err(first.damaged("it does not say how many clients and points it measured"));
    };
    let median = is("look.median");
    let references = References { median, centre: false };
    let centre = match points.checked_sub(updates + references.count()) {
        Some(0) => false,
        Some(1) => true,
        _ => return Err(first.damaged(format!("it has {points} points for {updates} clients"))),
    };
    let distances = match text("distances") {
        "gram" => Distances::Gram,
        "direct" => Distances::Direct,
        _ => Distances::Auto,
    };
    Ok(GeometryRequest {
        updates,
        distances,
        references: References { median, centre },
        with_signs: is("look.signs"),
        precision: Precision::Usual,
        hostile: None,
        mixing: None,
        unscaled: None,
    })
}
