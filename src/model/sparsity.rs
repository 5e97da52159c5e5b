//! Which values of an update were sent: all, the choice of the client, or the choice of a seed.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Which values of a vector or an update are kept. All others decode as zero.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Sparsity {
    /// All values.
    Dense,
    /// Values that the client chose.
    Own {
        /// The codec.
        codec: &'static str,
        /// Kept values over all values, above 0 and at most 1; for an update, the smallest of its vectors.
        fraction: f64,
    },
    /// Values that a seed chose.
    Shared {
        /// The codec.
        codec: &'static str,
        /// A hash of the choice: two updates with the same mark keep the same values.
        mark: u64,
    },
}

impl Sparsity {
    /// The sparsity of an update with these vectors. A client's own choice in one vector outweighs shared choices.
    pub fn of_vectors(vectors: impl Iterator<Item = Self>) -> Self {
        let mut own: Option<(&'static str, f64)> = None;
        let mut shared: Option<(&'static str, DefaultHasher)> = None;
        for (number, vector) in vectors.enumerate() {
            match vector {
                Self::Dense => {}
                Self::Own { codec, fraction } => {
                    own = Some(own.filter(|(_, least)| *least <= fraction).unwrap_or((codec, fraction)));
                }
                Self::Shared { codec, mark } => {
                    let (_, hasher) = shared.get_or_insert_with(|| (codec, DefaultHasher::new()));
                    (number, mark).hash(hasher);
                }
            }
        }
        match (own, shared) {
            (Some((codec, fraction)), _) => Self::Own { codec, fraction },
            (None, Some((codec, hasher))) => Self::Shared { codec, mark: hasher.finish() },
            (None, None) => Self::Dense,
        }
    }

    /// The choice of a seed. `choice` holds everything that the choice depends on.
    pub fn shared(codec: &'static str, choice: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        choice.hash(&mut hasher);
        Self::Shared { codec, mark: hasher.finish() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [Sparsity; 2] =
        [Sparsity::Own { codec: "a", fraction: 0.5 }, Sparsity::Own { codec: "b", fraction: 0.1 }];

    fn of(vectors: &[Sparsity]) -> Sparsity {
        Sparsity::of_vectors(vectors.iter().copied())
    }

    #[test]
    fn the_smallest_own_choice_outweighs_all_else() {
        let shared = Sparsity::shared("c", 7);
        assert_eq!(of(&[]), Sparsity::Dense);
        assert_eq!(of(&[Sparsity::Dense; 3]), Sparsity::Dense);
        assert_eq!(of(&[shared, OWN[0], Sparsity::Dense, OWN[1]]), OWN[1]);
        assert_eq!(of(&[OWN[1], OWN[0], shared]), OWN[1]);
    }

    #[test]
    fn shared_choices_differ_by_seed_and_place() {
        let [one, other] = [1, 2].map(|seed| Sparsity::shared("c", (seed, 5)));
        assert_ne!(one, other);
        assert_eq!(of(&[one, other]), of(&[one, other]));
        assert_ne!(of(&[one, other]), of(&[other, one]));
        assert_ne!(of(&[one, Sparsity::Dense]), of(&[Sparsity::Dense, one]));
    }
}
