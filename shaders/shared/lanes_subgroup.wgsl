// One column per subgroup, whose lanes communicate by subgroup operations.
//
// Defined outside: LANES, the size of every subgroup, which divides 256.

const COLUMNS: u32 = 256u / LANES;

// The sum over the lanes of a column, for all of its lanes.
fn total(count: u32) -> u32 {
    return subgroupAdd(count);
}

// The largest key among the lanes of a column, for all of its lanes.
fn most(key: u32) -> u32 {
    return subgroupMax(key);
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) invocation: u32,
) {
    column = column_of(group, groups, COLUMNS, subgroup);
    lane = invocation % LANES;
    load_column();
    reduce((subgroup * LANES + lane) % 256u);
    // If subgroups differ from the device's report, the workgroup counts as unfinished.
    if index == 0u && subgroups != COLUMNS {
        atomicSub(&status.finished, 1u);
    }
    finish(index, largest);
}
