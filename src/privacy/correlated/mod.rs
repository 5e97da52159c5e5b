//! Noise that is correlated across rounds, so that it cancels in part in the model: DP-FTRL.
//!
//! The only assumption about clients is how often each takes part; rounds need no sampling. The rounds of a series are
//! one release, x_t + n_t with n = C^-1 z, where z is independent noise and C a lower triangular matrix (Choquette-Choo
//! et al., "Multi-epoch matrix factorization mechanisms for private machine learning", 2023). The cost is that of one
//! Gaussian, C x + z, because all rounds are a function of it. One client moves C x by at most the [`sensitivity`] of
//! C, which depends on the [`Schedule`]. The model is a sum over rounds, so the noise of prefix sums counts; [`error`]
//! computes it.
//!
//! - [`factor`]: the choice of C.
//! - [`banded`]: C is Toeplitz, with few bands.
//! - [`tree`]: C has a row for each node of a binary tree over the rounds.
//!
//! **Exact on integers.** Both use the grid of [`clipping`](super::clipping), with no float between a client's integers
//! and the release. In `banded` the entries of C are multiples of 1/256. With the integer matrix w = 256 C, y = w x + z
//! is the discrete Gaussian mechanism: one client changes w x by at most 256 sens(C) B. The release r_t is a function
//! of y and of earlier releases:
//!
//! ```text
//! r_t = x_t + n_t,   n_t = floor((z_t - w_1 n_(t-1) - w_2 n_(t-2) - ...) / 256 + 1/2)
//!     = floor((256 x_t + z_t - w_1 n_(t-1) - ...) / 256 + 1/2)                  because x_t is an integer
//!     = floor((y_t - w_1 (x_(t-1) + n_(t-1)) - ...) / 256 + 1/2)               by y_t = 256 x_t + w_1 x_(t-1) + ... + z_t
//!     = floor((y_t - w_1 r_(t-1) - w_2 r_(t-2) - ...) / 256 + 1/2)
//! ```
//!
//! So rounding does not weaken the guarantee; it changes the noise by at most half a unit a round. In other words: if a
//! client's integers d_t are added to x_t and w d is subtracted from z, the release is the same, to the bit. x_t may
//! depend on earlier releases: each y_t is a separate Gaussian mechanism, and the squared sensitivities add up to the
//! same bound (Denisov et al., "Improved differential privacy for SGD via optimal private linear operators on adaptive
//! streams", 2022).

pub mod banded;
pub mod error;
pub mod factor;
pub mod sensitivity;
pub mod tree;

/// Largest number of rounds of a series.
pub const MOST_ROUNDS: u64 = 1 << 20;
/// Largest number of bands of a matrix. All but one of the bands are kept on disk from round to round.
pub const MOST_BANDS: u32 = 256;

/// The number of rounds, and how often a client takes part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schedule {
    /// Number of rounds of the series, T.
    pub rounds: u64,
    /// Largest number of rounds of a client, k.
    pub participations: u64,
    /// Least number of rounds from one round of a client to the next, b.
    pub separation: u64,
}

impl Schedule {
    /// Largest number of rounds that a client can take part in, given the separation.
    pub fn most(&self) -> u64 {
        self.participations.min(self.rounds.div_ceil(self.separation.max(1)))
    }
}
