// Integers of 64 bits as two words, the low word first: sums, products, shifts.

// The upper half of a product of two words.
fn multiplied_high(a: u32, b: u32) -> u32 {
    let low = (a & 0xffffu) * (b & 0xffffu);
    let first = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
    let second = (a & 0xffffu) * (b >> 16u) + (first & 0xffffu);
    return (a >> 16u) * (b >> 16u) + (first >> 16u) + (second >> 16u);
}

fn wide_product(a: u32, b: u32) -> vec2<u32> {
    return vec2<u32>(a * b, multiplied_high(a, b));
}

fn wide_sum(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = a.x + b.x;
    return vec2<u32>(low, a.y + b.y + select(0u, 1u, low < a.x));
}

// The number, negated if `negative`.
fn wide_signed(a: vec2<u32>, negative: bool) -> vec2<u32> {
    let mask = select(0u, 0xffffffffu, negative);
    return wide_sum(a ^ vec2<u32>(mask), vec2<u32>(mask & 1u, 0u));
}

// A right shift by up to 63 bits. A shift of a word by 32 takes two steps, since one step is undefined.
fn wide_shifted(a: vec2<u32>, by: u32) -> vec2<u32> {
    let bits = by & 31u;
    let within = vec2<u32>((a.x >> bits) | ((a.y << 1u) << (31u - bits)), a.y >> bits);
    return select(within, vec2<u32>(within.y, 0u), by > 31u);
}

// A left shift by up to 63 bits, which drops the upper bits.
fn wide_shifted_left(a: vec2<u32>, by: u32) -> vec2<u32> {
    let bits = by & 31u;
    let within = vec2<u32>(a.x << bits, (a.y << bits) | ((a.x >> 1u) >> (31u - bits)));
    return select(within, vec2<u32>(0u, within.x), by > 31u);
}
