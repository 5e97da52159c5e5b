// Finds the two middle values of every column of up to 64 rows.
//
// They are equal for an odd number of rows. The host computes their midpoint.
//
// Bits.

const LOW: bool = true;

#import sorted
#import network
#import status

const GROUP: u32 = 64u;

// The lower middle value of every column, then the upper.
@group(0) @binding(4) var<storage, read_write> middle: array<u32>;

var<private> lower: u32;
var<private> upper: u32;

fn take(place: u32, key: u32) {
    if place == SIZE / 2u - 1u {
        lower = key;
    }
    upper = key;
}

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    column = column_of(group, groups, GROUP, lane);
    if column < shape.columns {
        visit_sorted();
        middle[column] = bits_of(lower);
        middle[shape.columns + column] = bits_of(select(upper, lower, shape.rows % 2u == 1u));
    }
    finish(lane, largest);
}
