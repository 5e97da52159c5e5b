// One column of up to SIZE rows, sorted in registers by a generated network.
//
// Defined outside: SIZE, and LOW, whether half of the padding stands before the rows. The network (`network`) is
// `visit_sorted`: it asks `padded_key` for every wire and hands `take` the keys at the places it gets right, in
// ascending order. The importing kernel defines `take`.

#import rows

var<private> column: u32;
var<private> largest: u32;

// The key on a wire: that of a row, or padding that stands at the end where it sorts to.
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
