// Computes the server's step at every column: the model's new value and the new moments.
//
// Close: |error| <= the bound that `src/gpu/step.rs` computes for each column. Sums and products round to f32, 2^-24 of
// their value; a quotient may be off by 5 * 2^-24, a root by 10 * 2^-24. Yogi's second moment may move either way where
// it is as close to the squared delta as their errors.
//
// Defined outside: KIND, the form of the step; PAIRED, whether merged values are the means of two rows. The references
// are the base, then the moments.

#import shape
#import floats
#import references
#import status

const GROUP: u32 = 256u;

const AVERAGE: u32 = 0u;
const MOMENTUM: u32 = 1u;
const ADAM: u32 = 2u;
const YOGI: u32 = 3u;
const ADAGRAD: u32 = 4u;

// The first references: the base, then the moments.
const BASE: u32 = 0u;
const FIRST: u32 = 1u;
const SECOND: u32 = 2u;

// The numbers of a step in this round.
struct Numbers {
    // The delta is `scale` times the merged value, less `less_base` times the base.
    scale: f32,
    less_base: f32,
    // Factors of the old first moment and of the delta.
    keep: f32,
    take: f32,
    // Factors of the old second moment and of the squared delta.
    keep_second: f32,
    take_second: f32,
    lr: f32,
    tau: f32,
}

@group(0) @binding(2) var<storage, read> merged: array<f32>;
@group(0) @binding(3) var<storage, read> numbers: Numbers;
// Rows: the model, then the moments.
@group(0) @binding(5) var<storage, read_write> stepped: array<f32>;

fn merged_at(column: u32) -> f32 {
    if PAIRED {
        return 0.5 * merged[column] + 0.5 * merged[shape.columns + column];
    }
    return merged[column];
}

fn second_moment(before: f32, square: f32) -> f32 {
    let taken = numbers.take_second * square;
    if KIND == YOGI {
        return before - select(select(0.0, -taken, before < square), taken, before > square);
    }
    return numbers.keep_second * before + taken;
}

// The bits of a magnitude for the host, which computes a tile again if a magnitude is too large. Never those of
// infinity or NaN: these would report a value that is not finite in an update.
fn magnitude(x: f32) -> u32 {
    return min(bitcast<u32>(x) & MAGNITUDE, 0x7f7fffffu);
}

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let column = column_of(group, groups, GROUP, lane);
    var largest = 0u;
    if column < shape.columns {
        let base = reference_at(BASE, column);
        let delta = numbers.scale * merged_at(column) - numbers.less_base * base;
        largest = max(magnitude(base), magnitude(delta));
        var first = delta;
        if KIND != AVERAGE {
            first = numbers.keep * reference_at(FIRST, column) + numbers.take * delta;
            stepped[FIRST * shape.columns + column] = first;
        }
        var step = numbers.lr * first;
        if KIND >= ADAM {
            let second = second_moment(reference_at(SECOND, column), delta * delta);
            stepped[SECOND * shape.columns + column] = second;
            largest = max(largest, magnitude(second));
            step /= sqrt(second) + numbers.tau;
        }
        largest = max(largest, max(magnitude(first), magnitude(step)));
        stepped[column] = base + step;
    }
    finish(lane, largest);
}
