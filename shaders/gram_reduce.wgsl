// Adds the sums of all chunks of a tile, pair by pair, in the order of the chunks.
//
// Close: |added error| <= chunks * 2^-24 * sum |sum of a chunk|. The errors of the chunks' sums come on top.

#import shape
#import status

const GROUP: u32 = 256u;

// `rows` matrices of `columns` numbers.
@group(0) @binding(2) var<storage, read> chunks: array<f32>;
@group(0) @binding(3) var<storage, read_write> sums: array<f32>;

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let pair = column_of(group, groups, GROUP, lane);
    if pair < shape.columns {
        var sum = 0.0;
        for (var chunk = 0u; chunk < shape.rows; chunk += 1u) {
            sum += chunks[chunk * shape.columns + pair];
        }
        sums[pair] = sum;
    }
    finish(lane, 0u);
}
