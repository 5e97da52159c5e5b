// Order statistics of a column that many invocations hold together, found bit by bit from the top: as many keys as the
// rank says are below the value sought. Any number of rows, exact, and no invocation sees the others' keys.
//
// Defined outside: KEYS, the keys that an invocation holds. The importing kernel defines `reduce`, which is called in
// uniform control flow by every invocation, those of columns past the end too, each with a seat below 256 of its own;
// the seats of a column's lanes are neighbours.
//
// A lane holds every LANES-th row. Behind the rows stand keys above all finite values, which no rank reaches.

#import rows
#import status
#import lanes

const PADDING: u32 = 0xffffffffu;
// Narrow floats, made wide, have no more bits: those below are zeros, or all ones in the key of a negative value.
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

// A key whose upper bits were found.
fn completed(prefix: u32) -> u32 {
    return select(prefix | ((1u << WIDENED_BITS) - 1u), prefix, (prefix & SIGN) != 0u);
}

// The key of a rank, from zero.
fn key_of_rank(rank: u32) -> u32 {
    var prefix = 0u;
    for (var bit = 32u; bit > WIDENED_BITS; bit -= 1u) {
        let candidate = prefix | (1u << (bit - 1u));
        prefix = select(prefix, candidate, total(counted_below(candidate)) <= rank);
    }
    return completed(prefix);
}

// The keys of two ranks, both counted in the same sum: there are fewer rows than 2^16.
fn keys_of_ranks(ranks: vec2<u32>) -> vec2<u32> {
    var prefix = vec2<u32>();
    for (var bit = 32u; bit > WIDENED_BITS; bit -= 1u) {
        let candidate = prefix | vec2<u32>(1u << (bit - 1u));
        let counts = total(counted_below(candidate.x) | (counted_below(candidate.y) << 16u));
        prefix = select(prefix, candidate, vec2<u32>(counts & 0xffffu, counts >> 16u) <= ranks);
    }
    return vec2<u32>(completed(prefix.x), completed(prefix.y));
}

// The key of a rank, given that of the rank before.
fn key_of_next_rank(before: u32, rank: u32) -> u32 {
    var least = PADDING;
    for (var k = 0u; k < KEYS; k += 1u) {
        least = min(least, select(PADDING, keys[k], keys[k] > before));
    }
    let up_to = total(counted_below(before + 1u));
    return select(before, ~most(~least), up_to <= rank);
}
