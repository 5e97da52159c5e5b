// Fills workgroup memory with a pattern.
//
// A kernel that reads memory before it writes it then gives wrong results. Not a kernel: devices that are opened with
// `spoils` run it before each run.

const GROUP: u32 = 256u;
// The workgroup memory that every device has.
const WORDS: u32 = 4096u;

@group(0) @binding(0) var<storage, read_write> seen: array<u32>;

var<workgroup> memory: array<u32, WORDS>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    for (var i = lane; i < WORDS; i += GROUP) {
        memory[i] = 0xa5a5a5a5u;
    }
    workgroupBarrier();
    // A read, so that the compiler keeps the writes.
    seen[lane] = memory[(lane * 17u + group.x) % WORDS];
}
