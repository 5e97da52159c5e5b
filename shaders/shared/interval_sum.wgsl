// The sum of the values of a column from one rank to before another. The shape of the sum is that of the column's
// lanes alone: each lane adds what it holds, a tree adds the lanes, and values tied with an end are multiplied.
//
// |error| <= (KEYS + log2(LANES) + 5) * 2^-24 * sum |value|: KEYS additions at most in a lane, log2(LANES) of the tree,
// one of both products, one of these to the rest, and the rounding of a product.

#import bisection

var<workgroup> parts: array<f32, 256>;

// The sum over the lanes of a column.
fn added(part: f32, seat: u32) -> f32 {
    parts[seat] = part;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if lane < half {
            parts[seat] += parts[seat + half];
        }
        workgroupBarrier();
    }
    return parts[seat - lane];
}

fn sum_of_ranks(first: u32, end: u32, seat: u32) -> f32 {
    let ends = keys_of_ranks(vec2<u32>(first, end - 1u));
    var part = 0.0;
    for (var k = 0u; k < KEYS; k += 1u) {
        let is_inside = keys[k] > ends.x && keys[k] < ends.y;
        // As bits: those of padding are no number.
        part += bitcast<f32>(select(0u, bits_of(keys[k]), is_inside));
    }
    let counts = total(counted_below(ends.x + 1u) | (counted_below(ends.y) << 16u));
    let inside = added(part, seat);
    let low_ties = min(counts & 0xffffu, end) - first;
    let high_ties = select(end - (counts >> 16u), 0u, ends.x == ends.y);
    return inside + (f32(low_ties) * value_of(ends.x) + f32(high_ties) * value_of(ends.y));
}
