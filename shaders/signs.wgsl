// Sums the majorities of signs: per column, how many more deltas have one sign.
//
// Bits. The kernel compares signs as integers and counts them.

#import rows
#import references
#import status

const GROUP: u32 = 256u;

// Of each row whether the base is to be subtracted.
@group(0) @binding(5) var<storage, read> less_base: array<u32>;
// One sum a workgroup.
@group(0) @binding(6) var<storage, read_write> counts: array<u32>;

var<workgroup> group_count: atomic<u32>;

// Zeros of both signs have one key.
fn signed_key(bits: u32) -> u32 {
    return select(key_of(bits), SIGN, (bits & MAGNITUDE) == 0u);
}

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    if lane == 0u {
        atomicStore(&group_count, 0u);
    }
    workgroupBarrier();
    let column = column_of(group, groups, GROUP, lane);
    if column < shape.columns {
        var count = 0i;
        var base = SIGN;
        if REFERENCES > 0u {
            base = signed_key(bitcast<u32>(reference_at(0u, column)));
        }
        for (var i = 0u; i < shape.rows; i += 1u) {
            let key = signed_key(bits_at(i, column));
            let zero = select(SIGN, base, less_base[i] != 0u);
            count += i32(key > zero) - i32(key < zero);
        }
        atomicAdd(&group_count, u32(abs(count)));
    }
    workgroupBarrier();
    if lane == 0u {
        counts[group.y * groups.x + group.x] = atomicLoad(&group_count);
    }
    finish(lane, 0u);
}
