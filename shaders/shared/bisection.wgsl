// Finds order statistics of a column that many invocations hold together, bit by bit from the top.
//
// The value of rank r is the largest key with at most r keys below it. The result is exact for any number of rows, and
// no invocation sees the keys of others.
//
// Defined outside: KEYS, the number of keys per invocation. The importing kernel defines `reduce`. Every invocation
// calls it in uniform control flow, also for columns past the end, with its own seat below 256. The lanes of a column
// have neighbouring seats.
//
// A lane holds every LANES-th row. Padding keys are above all finite values, and no rank reaches them.

#import rows
#import status
#import lanes

const PADDING: u32 = 0xffffffffu;
// Number of low bits of a narrow float's key that carry nothing: zeros, or all ones for a negative value.
const WIDENED_BITS: u32 = select(select(0u, 13u, STORED == F16), 16u, STORED == BF16);

var<private> column: u32;
var<private> lane: u32;
var<private> largest: u32;
var<private> keys: array<u32, KEYS>;

fn load_column() {
    for (var k = 0u; k < KEYS; k += 1u) {
        let row = k * LANES + lane;
        keys[k] = PADDING;
        if row < shape.rows && column < shape.columns {
            let bits = bits_at(row, column);
            largest = max(largest, bits & MAGNITUDE);
            keys[k] = key_of(bits);
        }
    }
}

fn counted_below(key: u32) -> u32 {
    var count = 0u;
    for (var k = 0u; k < KEYS; k += 1u) {
        count += u32(keys[k] < key);
    }
    return count;
}

// The whole key, once its upper bits are known.
fn completed(prefix: u32) -> u32 {
    return select(prefix | ((1u << WIDENED_BITS) - 1u), prefix, (prefix & SIGN) != 0u);
}

// The key of a rank; ranks start at zero.
fn key_of_rank(rank: u32) -> u32 {
    var prefix = 0u;
    for (var bit = 32u; bit > WIDENED_BITS; bit -= 1u) {
        let candidate = prefix | (1u << (bit - 1u));
        prefix = select(prefix, candidate, total(counted_below(candidate)) <= rank);
    }
    return completed(prefix);
}

// The keys of two ranks. One sum counts both, since there are fewer than 2^16 rows.
fn keys_of_ranks(ranks: vec2<u32>) -> vec2<u32> {
    var prefix = vec2<u32>();
    for (var bit = 32u; bit > WIDENED_BITS; bit -= 1u) {
        let candidate = prefix | vec2<u32>(1u << (bit - 1u));
        let counts = total(counted_below(candidate.x) | (counted_below(candidate.y) << 16u));
        prefix = select(prefix, candidate, vec2<u32>(counts & 0xffffu, counts >> 16u) <= ranks);
    }
    return vec2<u32>(completed(prefix.x), completed(prefix.y));
}

// The key of a rank, given the key of the rank before.
fn key_of_next_rank(before: u32, rank: u32) -> u32 {
    var least = PADDING;
    for (var k = 0u; k < KEYS; k += 1u) {
        least = min(least, select(PADDING, keys[k], keys[k] > before));
    }
    let up_to = total(counted_below(before + 1u));
    return select(before, ~most(~least), up_to <= rank);
}
