//! Comparator networks, generated from a number of wires.
//!
//! The build script turns them into straight-line code over vector registers, and into WGSL (`build.rs`). The networks
//! do not depend on the sorted values.
//!
//! A network is a list of comparators `(i, j)` with `i < j`. After a comparator, wire `i` holds the smaller value and
//! wire `j` the larger. Sources: Batcher's merge exchange for any number of wires, Knuth, The Art of Computer
//! Programming vol. 3, section 5.2.2, algorithm M; the bitonic half-cleaner from Batcher, Sorting networks and their
//! applications, 1968.

/// One compare-exchange: the smaller value goes to the first wire, the larger to the second.
pub type Comparator = (usize, usize);

/// Wires of the largest network with straight-line code. It fills the 32 vector registers of AVX-512.
pub const MAX_BLOCK: usize = 32;

/// The block sizes with straight-line code. A shorter block is padded to the next size.
pub const BLOCK_SIZES: [usize; 10] = [2, 4, 6, 8, 12, 16, 20, 24, 28, MAX_BLOCK];

/// Most wires of a network in a shader: a column of this many keys fits the registers of one invocation.
pub const MAX_SHADER_ROWS: usize = 64;

/// The sizes of networks for shaders.
pub const SHADER_SIZES: [usize; 14] = [2, 4, 6, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, MAX_SHADER_ROWS];

/// A network that sorts `n` wires in ascending order (merge exchange, about `n log2(n)^2 / 4`
/// comparators).
pub fn sorting(n: usize) -> Vec<Comparator> {
    let mut comparators = Vec::new();
    let top = n.next_power_of_two() / 2;
    let mut p = top;
    while p > 0 {
        let (mut q, mut r, mut d) = (top, 0, p);
        loop {
            comparators.extend((0..n.saturating_sub(d)).filter(|i| i & p == r).map(|i| (i, i + d)));
            if q == p {
                break;
            }
            d = q - p;
            q /= 2;
            r = p;
        }
        p /= 2;
    }
    comparators
}

/// The network that sorts a bitonic sequence of `n` wires, `n` a power of two: half-cleaners of
/// distance `n/2`, `n/4`, .. 1.
pub fn bitonic_merge(n: usize) -> Vec<Comparator> {
    assert!(n.is_power_of_two(), "half-cleaners need a power of two");
    let mut comparators = Vec::new();
    let mut d = n / 2;
    while d > 0 {
        comparators.extend((0..n).filter(|i| i & d == 0).map(|i| (i, i + d)));
        d /= 2;
    }
    comparators
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a network on zeros and ones. By the 0-1 principle, a network that sorts all of those sorts everything.
    fn sorts(comparators: &[Comparator], mut wires: Vec<bool>) -> bool {
        for (i, j) in comparators {
            let (a, b) = (wires[*i], wires[*j]);
            (wires[*i], wires[*j]) = (a & b, a | b);
        }
        wires.is_sorted()
    }

    #[test]
    fn sorting_sorts_every_zero_one_input() {
        for n in 0..=16 {
            let network = sorting(n);
            for input in 0..1u32 << n {
                assert!(sorts(&network, (0..n).map(|i| input >> i & 1 == 1).collect()), "n = {n}");
            }
        }
    }

    #[test]
    fn sorting_sorts_all_blocks_of_ones_at_any_n() {
        for n in 0..=100 {
            let network = sorting(n);
            for start in 0..n {
                for end in start..=n {
                    let input = (0..n).map(|i| (start..end).contains(&i)).collect();
                    assert!(sorts(&network, input), "n = {n}, ones in {start}..{end}");
                }
            }
        }
    }

    #[test]
    fn sorting_needs_every_comparator_to_sort() {
        let mut network = sorting(8);
        network.pop();
        let all_sorted =
            (0..256u32).all(|input| sorts(&network, (0..8).map(|i| input >> i & 1 == 1).collect()));
        assert!(!all_sorted);
    }

    #[test]
    fn sorting_has_the_published_size() {
        for (n, comparators) in [(2, 1), (4, 5), (8, 19), (16, 63), (32, 191)] {
            assert_eq!(sorting(n).len(), comparators);
        }
    }

    #[test]
    fn bitonic_merge_sorts_every_rotated_block() {
        for n in [1, 2, 4, 8, 16, 32] {
            let network = bitonic_merge(n);
            for ones in 0..=n {
                for start in 0..n {
                    let input = (0..n).map(|i| (i + n - start) % n < ones).collect();
                    assert!(sorts(&network, input), "n = {n}, {ones} ones from {start}");
                }
            }
        }
    }
}
