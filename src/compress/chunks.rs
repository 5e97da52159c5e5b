//! The chunks of parts.

use crate::compress::parts::PartPlan;

/// A chunk of a part.
#[derive(Clone, Copy)]
pub(super) struct Chunk {
    /// The number of the part.
    pub(super) part: usize,
    /// The index of its first value in the part.
    pub(super) start: usize,
    /// Number of values.
    pub(super) len: usize,
}

/// The chunks of parts, each with the values that its encoder takes at once.
pub(super) fn chunks<'p>(parts: impl Iterator<Item = (&'p PartPlan, usize)>) -> impl Iterator<Item = Chunk> {
    parts.enumerate().flat_map(|(number, (plan, at_once))| {
        let len = plan.vector.len;
        (0..len).step_by(at_once).map(move |start| Chunk {
            part: number,
            start,
            len: at_once.min(len - start),
        })
    })
}
