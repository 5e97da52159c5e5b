//! Maps codes of a few bits to their levels.
//!
//! Agreement: bits.

use crate::kernels::dispatch;
use crate::kernels::lanes::FLOATS;

/// The most levels.
const MOST: usize = 256;

dispatch! {
    /// The level of each code. There are at most 256 levels, and every code is below their number.
    pub fn levels_of<A: Arch>(codes: &[u8], levels: &[f32], out: &mut [f32]) {
        if levels.len() <= FLOATS {
            let few = <A::Floats as Table>::of_levels(&first(levels));
            let (whole, rest) = codes.as_chunks::<FLOATS>();
            let (out, out_rest) = out.as_chunks_mut::<FLOATS>();
            for i in 0..whole.len().min(out.len()) {
                few.looked_up(&whole[i], &mut out[i]);
            }
            for i in 0..rest.len().min(out_rest.len()) {
                out_rest[i] = levels[usize::from(rest[i])];
            }
        } else {
            let many: [f32; MOST] = first(levels);
            for i in 0..codes.len().min(out.len()) {
                out[i] = many[usize::from(codes[i])];
            }
        }
    }
}

/// A table that starts with these levels.
#[inline(always)]
fn first<const LEN: usize>(levels: &[f32]) -> [f32; LEN] {
    let mut table = [0.0; LEN];
    table[..levels.len()].copy_from_slice(levels);
    table
}

/// Sixteen levels in registers. Methods stay inside code entered through `dispatch!`.
pub trait Table: Copy {
    /// The vector of these levels.
    fn of_levels(levels: &[f32; FLOATS]) -> Self;
    /// The levels of sixteen codes, each below sixteen.
    fn looked_up(self, codes: &[u8; FLOATS], out: &mut [f32; FLOATS]);
}

impl Table for [f32; FLOATS] {
    #[inline(always)]
    fn of_levels(levels: &[f32; FLOATS]) -> Self {
        *levels
    }
    #[inline(always)]
    fn looked_up(self, codes: &[u8; FLOATS], out: &mut [f32; FLOATS]) {
        for lane in 0..FLOATS {
            out[lane] = self[usize::from(codes[lane]) % FLOATS];
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{FLOATS, Table};
    use std::arch::x86_64::*;

    impl Table for [__m256; 2] {
        #[inline(always)]
        fn of_levels(levels: &[f32; FLOATS]) -> Self {
            // SAFETY: both are sixteen floats.
            unsafe { std::mem::transmute(*levels) }
        }
        #[inline(always)]
        fn looked_up(self, codes: &[u8; FLOATS], out: &mut [f32; FLOATS]) {
            for half in 0..2 {
                // SAFETY: half of the codes and of the floats are eight, and the set was detected (see the trait).
                unsafe {
                    let codes = _mm_loadl_epi64(codes.as_ptr().add(8 * half).cast());
                    let codes = _mm256_cvtepu8_epi32(codes);
                    let low = _mm256_permutevar8x32_ps(self[0], codes);
                    let high = _mm256_permutevar8x32_ps(self[1], codes);
                    // Uses the fourth bit as the sign.
                    let is_high = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(codes));
                    _mm256_storeu_ps(out.as_mut_ptr().add(8 * half), _mm256_blendv_ps(low, high, is_high));
                }
            }
        }
    }

    impl Table for __m512 {
        #[inline(always)]
        fn of_levels(levels: &[f32; FLOATS]) -> Self {
            // SAFETY: both are sixteen floats.
            unsafe { std::mem::transmute(*levels) }
        }
        #[inline(always)]
        fn looked_up(self, codes: &[u8; FLOATS], out: &mut [f32; FLOATS]) {
            // SAFETY: there are sixteen codes and sixteen floats, and the set was detected (see the trait).
            unsafe {
                let codes = _mm512_cvtepu8_epi32(_mm_loadu_si128(codes.as_ptr().cast()));
                _mm512_storeu_ps(out.as_mut_ptr(), _mm512_permutexvar_ps(codes, self));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::lanes::Isa;

    #[test]
    fn levels_are_those_of_the_codes() {
        for isa in Isa::available() {
            for (len, bits) in
                [0usize, 1, 15, 16, 17, 33, 257].into_iter().flat_map(|len| (1..=8).map(move |b| (len, b)))
            {
                let levels: Vec<f32> = (0..1 << bits).map(|i| (i as f32 * 0.7).cos()).collect();
                let codes: Vec<u8> = (0..len).map(|i| (i * 7_919 % levels.len()) as u8).collect();
                let mut found = vec![f32::NAN; len];
                levels_of(isa, &codes, &levels, &mut found);
                let expected: Vec<f32> = codes.iter().map(|code| levels[usize::from(*code)]).collect();
                assert_eq!(found, expected, "{len} of {bits} bits on {isa}");
            }
        }
    }
}
