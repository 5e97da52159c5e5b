// Computes random words by counter: Philox4x32 with ten rounds, as `src/kernels/philox.rs` does.

#import limbs

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
