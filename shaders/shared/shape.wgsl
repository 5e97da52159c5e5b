// What every kernel is told of its tile.

struct Shape {
    // Rows that the kernel takes.
    rows: u32,
    // Columns of the tile.
    columns: u32,
    // Words from one row to the next.
    stride: u32,
    // What the kernel says it is.
    parameter: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;

// The column of an invocation in workgroups of `size` columns; more workgroups than fit one dimension go on in the next.
fn column_of(group: vec3<u32>, groups: vec3<u32>, size: u32, lane: u32) -> u32 {
    return (group.y * groups.x + group.x) * size + lane;
}
