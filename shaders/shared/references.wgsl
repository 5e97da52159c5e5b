// Rows of f32 that are no client's: the base, then the centre that an earlier round left.
//
// Defined outside: REFERENCES, how many there are.

@group(0) @binding(4) var<storage, read> references: array<f32>;

fn reference_at(i: u32, column: u32) -> f32 {
    return references[i * shape.columns + column];
}
