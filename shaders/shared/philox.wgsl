// Random words by counter: Philox4x32 with ten rounds, as `src/kernels/philox.rs` has it.

// The upper half of a product of two words.
fn multiplied_high(a: u32, b: u32) -> u32 {
    let low = (a & 0xffffu) * (b & 0xffffu);
    let first = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
    let second = (a & 0xffffu) * (b >> 16u) + (first & 0xffffu);
    return (a >> 16u) * (b >> 16u) + (first >> 16u) + (second >> 16u);
}

// The four words of a counter.
fn random_words(counter: vec4<u32>, seed: vec2<u32>) -> vec4<u32> {
    var words = counter;
    var key = seed;
    for (var round = 0u; round < 10u; round += 1u) {
        words = vec4<u32>(
            multiplied_high(0xcd9e8d57u, words.z) ^ words.y ^ key.x,
            0xcd9e8d57u * words.z,
            multiplied_high(0xd2511f53u, words.x) ^ words.w ^ key.y,
            0xd2511f53u * words.x,
        );
        key += vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
    }
    return words;
}
