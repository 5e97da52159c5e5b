// One column per LANES invocations, which communicate through workgroup memory.
//
// Defined outside: LANES, which divides 256.

const COLUMNS: u32 = 256u / LANES;

// Three places per column, used in turn. While lanes read one, others may add to the next, and the one after that is
// cleared. So one barrier per reduction is enough.
var<workgroup> agreed: array<atomic<u32>, 3u * COLUMNS>;
var<private> own: u32;
var<private> turn: u32;

fn clear_next() {
    if lane == 0u {
        atomicStore(&agreed[own + (turn + 1u) % 3u], 0u);
    }
}

fn next_agreed() -> u32 {
    workgroupBarrier();
    let result = atomicLoad(&agreed[own + turn]);
    turn = (turn + 1u) % 3u;
    return result;
}

// The sum over the lanes of a column, for all of its lanes.
fn total(count: u32) -> u32 {
    clear_next();
    atomicAdd(&agreed[own + turn], count);
    return next_agreed();
}

// The largest key among the lanes of a column, for all of its lanes.
fn most(key: u32) -> u32 {
    clear_next();
    atomicMax(&agreed[own + turn], key);
    return next_agreed();
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    column = column_of(group, groups, COLUMNS, index / LANES);
    lane = index % LANES;
    own = 3u * (index / LANES);
    if lane == 0u {
        atomicStore(&agreed[own], 0u);
    }
    workgroupBarrier();
    load_column();
    reduce(index);
    finish(index, largest);
}
