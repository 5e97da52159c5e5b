//! Sums of branches of the tree of sections, as tensors of a shard file.

use crate::engine::passes::sections::Branch;
use crate::model::dtype::Dtype;
use crate::modes::shards::file::{
    ShardError, ShardFile, SmallTensor, bytes_of, bytes_of_counts, counts_of, numbers_of,
};
use std::ops::Range;

/// A tensor with one row for each branch.
pub(crate) fn rows<T>(
    name: String,
    branches: &[Branch<T>],
    columns: usize,
    row: impl Fn(&T) -> Vec<f64>,
) -> SmallTensor {
    let numbers: Vec<f64> = branches.iter().flat_map(|branch| row(&branch.sum)).collect();
    SmallTensor { name, dtype: Dtype::F64, shape: vec![branches.len(), columns], bytes: bytes_of(&numbers) }
}

/// A tensor with one pair of counts for each branch.
pub(crate) fn pairs<T>(
    name: String,
    branches: &[Branch<T>],
    pair: impl Fn(&Branch<T>) -> [u64; 2],
) -> SmallTensor {
    let bytes = bytes_of_counts(branches.iter().flat_map(pair));
    SmallTensor { name, dtype: Dtype::I64, shape: vec![branches.len(), 2], bytes }
}

/// A tensor with the level and the number of each branch.
pub(crate) fn places<T>(name: String, branches: &[Branch<T>]) -> SmallTensor {
    pairs(name, branches, |branch| [u64::from(branch.level), branch.number as u64])
}

/// Reads the branches of a tensor of places. Checks that they are those of the file's sections, in order.
pub(crate) fn read_places(partial: &ShardFile, name: &str) -> Result<Vec<Branch<()>>, ShardError> {
    let count = partial.shape(name).and_then(|shape| shape.first()).copied().unwrap_or(0);
    let found = read_pairs(partial, name, count)?;
    let branches: Vec<Branch<()>> = found
        .iter()
        .map(|[level, number]| Branch { level: *level as u32, number: *number as usize, sum: () })
        .collect();
    let mut next = partial.sections.start;
    for branch in &branches {
        match branch.sections() {
            Some(Range { start, end }) if start == next => next = end,
            _ => return Err(partial.damaged(format!("the branches in `{name}` do not follow each other"))),
        }
    }
    match next == partial.sections.end {
        true => Ok(branches),
        false => Err(partial.damaged(format!("the branches in `{name}` are not its sections"))),
    }
}

/// Reads a row of numbers for each of `count` branches. Checks that all are finite.
pub(crate) fn read_rows(
    partial: &ShardFile,
    name: &str,
    count: usize,
    columns: usize,
) -> Result<Vec<Vec<f64>>, ShardError> {
    let numbers = numbers_of(&partial.bytes(name, Dtype::F64, &[count, columns])?);
    if let Some(at) = numbers.iter().position(|x| !x.is_finite()) {
        let what =
            format!("tensor `{name}` holds {} at flat index {at}, expected a finite number", numbers[at]);
        return Err(partial.damaged(what));
    }
    Ok(match columns {
        0 => vec![Vec::new(); count],
        _ => numbers.chunks_exact(columns).map(<[f64]>::to_vec).collect(),
    })
}

/// Reads a pair of counts for each of `count` branches.
pub(crate) fn read_pairs(partial: &ShardFile, name: &str, count: usize) -> Result<Vec<[u64; 2]>, ShardError> {
    let counts = counts_of(&partial.bytes(name, Dtype::I64, &[count, 2])?);
    Ok(counts.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect())
}
