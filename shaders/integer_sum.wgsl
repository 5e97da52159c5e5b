// Sums the integers of rows on a grid: one column per invocation, two words per sum.
//
// Bits.

#import grid
#import status

const GROUP: u32 = 256u;

@group(0) @binding(6) var<storage, read_write> sums: array<vec2<u32>>;

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let column = column_of(group, groups, GROUP, lane);
    if column < shape.columns {
        var sum = vec2<u32>();
        for (var i = 0u; i < shape.rows; i += 1u) {
            let integer = integer_at(i, column);
            sum = wide_sum(sum, wide_signed(integer.magnitude, integer.negative));
        }
        sums[column] = sum;
    }
    finish(lane, 0u);
}
