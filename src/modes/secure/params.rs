//! The costs and bounds of a session, before it is opened.

use crate::modes::secure::keys::seeds::sealed_bytes;
use crate::modes::secure::keys::sharing::Committee;
use crate::parties::envelope::Suite;
use crate::parties::grid::{Grid, NoGrid};
use serde::Serialize;

/// Bytes that a masked update has beside its lanes and seeds: header, digest and signature, about.
const ABOUT_HEADER: u64 = 512;

/// Bytes of a stream of masks that a core makes in a second, about: `cargo bench --bench secure` measures it.
const STREAM_BYTES_PER_SECOND: f64 = 4e9;

/// The costs and bounds of a session.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct Costs {
    /// Eligible clients.
    pub clients: u64,
    /// Values of the model.
    pub values: u64,
    /// Helpers.
    pub helpers: usize,
    /// Helpers that suffice.
    pub threshold: usize,
    /// Helpers that may vanish.
    pub may_vanish: usize,
    /// Corrupt helpers with which a lying server gets no two sums.
    pub tolerates_corrupt: usize,
    /// Corrupt helpers that learn nothing together with an honest server.
    pub learn_nothing: usize,
    /// The largest integer of a value.
    pub levels: u32,
    /// Bits of a value on the grid.
    pub bits_per_value: f64,
    /// The largest rounding error of a mean of all clients in units of the clip.
    pub rounding_of_clip: f64,
    /// Seeds that a client draws.
    pub seeds_drawn: usize,
    /// Seeds of a client that a helper holds.
    pub seeds_held: usize,
    /// Bytes of a masked update, about.
    pub upload_bytes: u64,
    /// Bytes of an answer, about.
    pub answer_bytes: u64,
    /// Seconds of one core that a client's masks take, about.
    pub mask_core_seconds: f64,
    /// Seconds of one core that a helper's answer takes, about.
    pub help_core_seconds: f64,
    /// Seconds of one core that the server's sum takes at least, at 10 GB/s.
    pub sum_core_seconds: f64,
}

/// The costs and bounds of a session of `clients` clients with `values` values each.
///
/// # Errors
///
/// When the sum would overflow.
pub fn costs(
    clients: u64,
    values: u64,
    committee: Committee,
    suite: Suite,
    per_lane: u32,
) -> Result<Costs, NoGrid> {
    let grid = Grid::new(clients, None, per_lane)?;
    let lane_bytes = 4 * values.div_ceil(u64::from(per_lane));
    let held = committee.sets_without(committee.helpers()).len();
    let drawn = committee.sets().len();
    let stream = |streams: f64| streams * lane_bytes as f64 / STREAM_BYTES_PER_SECOND;
    Ok(Costs {
        clients,
        values,
        helpers: committee.helpers(),
        threshold: committee.threshold(),
        may_vanish: committee.helpers() - committee.threshold(),
        tolerates_corrupt: committee.most_corrupt(),
        learn_nothing: committee.threshold() - 1,
        levels: grid.levels,
        bits_per_value: f64::from(2 * grid.levels.min(1 << 30) + 1).log2(),
        rounding_of_clip: 1.0 / f64::from(grid.levels),
        seeds_drawn: drawn,
        seeds_held: held,
        upload_bytes: lane_bytes + sealed_bytes(committee, suite) as u64 + ABOUT_HEADER,
        answer_bytes: lane_bytes + ABOUT_HEADER,
        mask_core_seconds: stream(drawn as f64),
        help_core_seconds: stream(held as f64 * clients as f64),
        sum_core_seconds: clients as f64 * lane_bytes as f64 / 1e10,
    })
}
