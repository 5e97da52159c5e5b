// The status of a run: its finished workgroups, and the largest magnitude they read.
//
// Every entry point ends in `finish`, in uniform control flow. The host knows the number of workgroups that it started,
// so it never takes an unwritten output for zeros.

struct Status {
    finished: atomic<u32>,
    largest: atomic<u32>,
}

@group(0) @binding(1) var<storage, read_write> status: Status;

var<workgroup> group_largest: atomic<u32>;

// `largest` holds the bits of a magnitude. As integers they have the order of the floats, with infinity and NaN last.
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
