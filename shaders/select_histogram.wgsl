// Counts the values whose magnitude starts with given digits, by their next digit.
//
// This is one pass of a radix select. The digits of a magnitude are its upper 11 bits, the next 11, the lowest 9.
//
// Bits. Counts do not depend on their order.

#import shape
#import floats
#import status

const GROUP: u32 = 256u;
const CHUNK: u32 = 4096u;
const BINS: u32 = 2048u;

struct Digits {
    // The bits of the digits before, and their mask.
    prefix: u32,
    mask: u32,
    // The number of bits below the counted digit, and the mask of the digit.
    shift: u32,
    digit: u32,
}

@group(0) @binding(2) var<storage, read> values: array<u32>;
@group(0) @binding(3) var<storage, read> digits: Digits;
// The counts, which start at zero.
@group(0) @binding(4) var<storage, read_write> counts: array<atomic<u32>>;

var<workgroup> own: array<atomic<u32>, BINS>;

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var bin = lane; bin < BINS; bin += GROUP) {
        atomicStore(&own[bin], 0u);
    }
    workgroupBarrier();
    let start = column_of(group, groups, CHUNK, 0u);
    for (var i = start + lane; i < min(start + CHUNK, shape.columns); i += GROUP) {
        let magnitude = values[i] & MAGNITUDE;
        if (magnitude & digits.mask) == digits.prefix {
            atomicAdd(&own[(magnitude >> digits.shift) & digits.digit], 1u);
        }
    }
    workgroupBarrier();
    for (var bin = lane; bin < BINS; bin += GROUP) {
        let count = atomicLoad(&own[bin]);
        if count > 0u {
            atomicAdd(&counts[bin], count);
        }
    }
    finish(lane, 0u);
}
