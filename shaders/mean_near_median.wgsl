// Sums the values nearest to the median of every column of up to 64 rows.
//
// `parameter` values count, added in ascending order. Of two values at the same distance the smaller one counts. The
// host divides.
//
// Close: |error| <= 64 * 2^-24 * sum |kept value|. Each value takes part in at most 64 additions. The choice of values
// is exact.

const LOW: bool = false;

#import sorted
#import network
#import nearness
#import status

const GROUP: u32 = 64u;

@group(0) @binding(4) var<storage, read_write> sums: array<f32>;

// The sorted columns, next to each other: the first kept value is known only after the sort. Each invocation reads its
// own column.
var<workgroup> sorted_keys: array<u32, SIZE * GROUP>;
var<private> own: u32;

fn take(place: u32, key: u32) {
    sorted_keys[place * GROUP + own] = key;
}

fn sorted_at(place: u32) -> u32 {
    return sorted_keys[place * GROUP + own];
}

// The number of values that are farther from the median than the value `kept` places above; these come first.
fn farther_below(kept: u32) -> u32 {
    let below = sorted_at((shape.rows - 1u) / 2u);
    let above = sorted_at(shape.rows / 2u);
    var first = 0u;
    var end = shape.rows - kept;
    while first < end {
        let place = (first + end) / 2u;
        if is_farther(sorted_at(place), sorted_at(place + kept), below, above) {
            first = place + 1u;
        } else {
            end = place;
        }
    }
    return first;
}

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    column = column_of(group, groups, GROUP, lane);
    own = lane;
    if column < shape.columns {
        visit_sorted();
        let first = farther_below(shape.parameter);
        var sum = 0.0;
        for (var i = 0u; i < shape.parameter; i += 1u) {
            sum += value_of(sorted_at(first + i));
        }
        sums[column] = sum;
    }
    finish(lane, largest);
}
