// Sums modulo the prime 2^32 - 5, four at a time.

const P: u32 = 0xfffffffbu;
// 2^32 modulo the prime.
const CARRY: u32 = 5u;

// Both are below the prime.
fn sum_modulo(a: vec4<u32>, b: vec4<u32>) -> vec4<u32> {
    let less = P - b;
    return a - less + select(vec4<u32>(), vec4<u32>(P), a < less);
}
