// The Walsh-Hadamard transform of a block in workgroup memory, not normalised.
//
// The stages add neighbours first, as in `src/kernels/hadamard.rs`; nothing is multiplied.

const GROUP: u32 = 256u;
const CHUNK: u32 = 4096u;
// Values that an invocation holds: four stages of a transform.
const HELD: u32 = 16u;

var<workgroup> shared_values: array<f32, CHUNK>;

// The place of a value of the block, chosen so that values sixteen apart are in different banks.
fn place_of(i: u32) -> u32 {
    return i ^ ((i >> 4u) & 15u);
}

// Four stages, on values `stride` to `8 * stride` apart.
fn stages(lane: u32, stride: u32) {
    let start = (lane / stride) * stride * HELD + lane % stride;
    var held: array<f32, HELD>;
    for (var i = 0u; i < HELD; i += 1u) {
        held[i] = shared_values[place_of(start + i * stride)];
    }
    for (var apart = 1u; apart < HELD; apart *= 2u) {
        for (var pair = 0u; pair < HELD / 2u; pair += 1u) {
            let first = (pair / apart) * 2u * apart + pair % apart;
            let a = held[first];
            let b = held[first + apart];
            held[first] = a + b;
            held[first + apart] = a - b;
        }
    }
    for (var i = 0u; i < HELD; i += 1u) {
        shared_values[place_of(start + i * stride)] = held[i];
    }
}

// Transforms what the invocations wrote before. They may read the result right after.
fn transform(lane: u32) {
    workgroupBarrier();
    stages(lane, 1u);
    workgroupBarrier();
    stages(lane, HELD);
    workgroupBarrier();
    stages(lane, HELD * HELD);
    workgroupBarrier();
}
