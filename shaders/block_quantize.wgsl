// Turns values into codes on the grid of their block.
//
// `rows` values in blocks of `parameter`, of whose first `stride` values are left out; four values per invocation.
//
// Bits, where no step is below 2^-76. A device may flush a position below 2^-126 to zero; at such steps its fraction is
// below 2^-24, which rounds to none. A bound between a product and the next sum keeps devices from rounding both at
// once.
//
// Defined outside: SIGNED, whether codes are -top to top and the grid starts at zero; STOCHASTIC, whether random words
// round them.

#import shape
#import packed
#import philox
#import status

const GROUP: u32 = 256u;

struct Numbers {
    seed: vec2<u32>,
    // Counter and purpose of the random words of the first four values.
    first: vec2<u32>,
    purpose: u32,
    // The largest code.
    top: f32,
}

@group(0) @binding(2) var<storage, read> values: array<f32>;
// Start of each block's grid, and the inverse of its step.
@group(0) @binding(3) var<storage, read> grids: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read> numbers: Numbers;
@group(0) @binding(5) var<storage, read_write> codes: array<u32>;

fn position(i: u32) -> f32 {
    let grid = grids[(i + shape.stride) / shape.parameter];
    if SIGNED {
        return min(max(values[i] * grid.y, -numbers.top), numbers.top);
    }
    return min(max((values[i] - grid.x) * grid.y, 0.0), numbers.top);
}

fn rounded(t: f32, word: u32) -> i32 {
    if !STOCHASTIC {
        return i32(round(t));
    }
    let below = floor(t);
    let fraction = u32((t - below) * 16777216.0);
    return i32(below) + select(0, 1, (word >> 8u) < fraction);
}

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let four = column_of(group, groups, GROUP, lane);
    if four < shape.columns {
        var words = vec4<u32>();
        if STOCHASTIC {
            let low = numbers.first.x + four;
            let high = numbers.first.y + select(0u, 1u, low < four);
            words = random_words(vec4<u32>(low, high, numbers.purpose, 0u), numbers.seed);
        }
        var word = 0u;
        for (var place = 0u; place < 4u; place += 1u) {
            let i = 4u * four + place;
            if i < shape.rows {
                word = with_code(word, place, bitcast<u32>(rounded(position(i), words[place])));
            }
        }
        codes[four] = word;
    }
    finish(lane, 0u);
}
