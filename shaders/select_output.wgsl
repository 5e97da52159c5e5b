// Writes the ascending indices of the largest magnitudes.
//
// These are the magnitudes above a threshold, and the first ones equal to it. A workgroup reads CHUNK values, an
// invocation HELD consecutive ones.
//
// Bits. Each workgroup gets the count of indices before its own, so the order of workgroups does not matter.
//
// Defined outside: COUNTS, whether a workgroup only writes its number of values above the threshold, and its number of
// values equal to it.

#import shape
#import floats
#import status

const GROUP: u32 = 256u;
const CHUNK: u32 = 4096u;
const HELD: u32 = CHUNK / GROUP;

struct Chosen {
    // The bits of the smallest selected magnitude, and the number of selected values equal to it.
    threshold: u32,
    ties: u32,
}

@group(0) @binding(2) var<storage, read> values: array<u32>;
@group(0) @binding(3) var<storage, read> chosen: Chosen;
// Per workgroup: the number of values above the threshold in the workgroups before, and the number equal to it.
@group(0) @binding(4) var<storage, read> before: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read_write> written: array<u32>;

// The number of values above the threshold up to and with an invocation; in the upper half, the number equal to it.
// Neither is above 4096 in a workgroup.
var<workgroup> seen: array<u32, GROUP>;

fn kind_of(i: u32) -> u32 {
    if i >= shape.columns {
        return 0u;
    }
    let magnitude = values[i] & MAGNITUDE;
    return select(0u, 1u, magnitude > chosen.threshold) + select(0u, 0x10000u, magnitude == chosen.threshold);
}

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = column_of(group, groups, 1u, 0u);
    let start = number * CHUNK + lane * HELD;
    var own = 0u;
    for (var i = 0u; i < HELD; i += 1u) {
        own += kind_of(start + i);
    }
    seen[lane] = own;
    workgroupBarrier();
    for (var apart = 1u; apart < GROUP; apart *= 2u) {
        var more = 0u;
        if lane >= apart {
            more = seen[lane - apart];
        }
        workgroupBarrier();
        seen[lane] += more;
        workgroupBarrier();
    }
    let has_values = number * CHUNK < shape.columns;
    if COUNTS {
        if has_values && lane == GROUP - 1u {
            written[2u * number] = seen[lane] & 0xffffu;
            written[2u * number + 1u] = seen[lane] >> 16u;
        }
    } else if has_values {
        let earlier = seen[lane] - own;
        var above = before[number].x + (earlier & 0xffffu);
        var at = before[number].y + (earlier >> 16u);
        for (var i = 0u; i < HELD; i += 1u) {
            let kind = kind_of(start + i);
            if kind == 1u || (kind == 0x10000u && at < chosen.ties) {
                written[above + min(at, chosen.ties)] = start + i;
            }
            above += kind & 0xffffu;
            at += kind >> 16u;
        }
    }
    finish(lane, 0u);
}
