// Does as many multiply-adds in registers as the device can.
//
// `fedmill bench` compares sums over pairs with this rate. Not a kernel: the result is of no use.
// `src/gpu/vulkan/measure.rs` runs it.

const GROUP: u32 = 256u;

struct Plan {
    // Rounds of CHAINS times four multiply-adds.
    rounds: u32,
}

@group(0) @binding(0) var<uniform> plan: Plan;
@group(0) @binding(1) var<storage, read_write> sums: array<f32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(local_invocation_index) lane: u32) {
    // Unknown to the compiler, so that it cannot compute anything in advance.
    let factor = vec4<f32>(sums[lane]) + vec4<f32>(0.999, 0.998, 0.997, 0.996);
    var a = factor;
    var b = factor + 1.0;
    var c = factor + 2.0;
    var d = factor + 3.0;
    for (var i = 0u; i < plan.rounds; i += 1u) {
        a = fma(a, factor, factor);
        b = fma(b, factor, factor);
        c = fma(c, factor, factor);
        d = fma(d, factor, factor);
    }
    let total = a + b + c + d;
    // Never true, but the compiler cannot know.
    if total.x + total.y + total.z + total.w == 0.5 {
        sums[lane] = 0.5;
    }
}
