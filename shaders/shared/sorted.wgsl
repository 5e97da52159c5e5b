// One column of up to SIZE rows, sorted in registers by a generated network.
//
// Defined outside: SIZE, and LOW, whether half of the padding stands before the rows. The imported `network` defines
// `visit_sorted`: it reads `padded_key` of every wire and calls `take` with the keys of the sorted places, in ascending
// order. The importing kernel defines `take`.

#import rows

var<private> column: u32;
var<private> largest: u32;

// The key on a wire: the key of a row, or padding at the end to which it sorts.
fn padded_key(wire: u32) -> u32 {
    let before = select(0u, (SIZE - shape.rows) / 2u, LOW);
    if wire < before {
        return 0u;
    }
    let i = wire - before;
    if i >= shape.rows {
        return 0xffffffffu;
    }
    let bits = bits_at(i, column);
    largest = max(largest, bits & MAGNITUDE);
    return key_of(bits);
}
