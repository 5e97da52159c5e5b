// The reference rows of f32 behind the clients' rows: the base, then a centre.
//
// Defined outside: REFERENCES, the number of these rows.

@group(0) @binding(4) var<storage, read> references: array<f32>;

fn reference_at(i: u32, column: u32) -> f32 {
    return references[i * shape.columns + column];
}
