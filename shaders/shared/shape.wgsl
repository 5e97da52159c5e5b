// The size of a dispatch, which every kernel reads.

struct Shape {
    // Rows that the kernel reads.
    rows: u32,
    // Columns of the tile.
    columns: u32,
    // Words from one row to the next.
    stride: u32,
    // A number whose meaning each kernel defines.
    parameter: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;

// The column of an invocation in workgroups of `size` columns. Workgroups that do not fit one dimension continue in the
// next.
fn column_of(group: vec3<u32>, groups: vec3<u32>, size: u32, lane: u32) -> u32 {
    return (group.y * groups.x + group.x) * size + lane;
}
