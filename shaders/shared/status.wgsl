// What a run says of itself: how many workgroups finished, and the largest magnitude among the values they looked at.
//
// Every entry point ends in `finish`, in uniform control flow. The host knows how many workgroups it started, so an
// output that was never written is not taken for one of zeros.

struct Status {
    finished: atomic<u32>,
    largest: atomic<u32>,
}

@group(0) @binding(1) var<storage, read_write> status: Status;

var<workgroup> group_largest: atomic<u32>;

// `largest` holds the bits of a magnitude: as integers these are in the order of the floats, and those of infinity and
// NaN come last.
fn finish(lane: u32, largest: u32) {
    if lane == 0u {
        atomicStore(&group_largest, 0u);
    }
    workgroupBarrier();
    atomicMax(&group_largest, largest);
    workgroupBarrier();
    if lane == 0u {
        atomicMax(&status.largest, atomicLoad(&group_largest));
        atomicAdd(&status.finished, 1u);
    }
}
