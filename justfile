# List the commands.
default:
    @just --list

# Everything a pull request must pass, short of the tests.
check:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

# Run the tests.
test:
    cargo test

# Time whole merges against the read floor; FILTER picks rows by name.
bench *FILTER:
    cargo bench --bench aggregate -- {{FILTER}}

# Merge the round in data/ as the README does and measure the accuracies (needs NumPy).
demo:
    #!/usr/bin/env bash
    set -euo pipefail
    cargo build --release --quiet
    for rule in mean median trimmed-mean:cut=0.2; do
        target/release/fedmill aggregate --rule $rule --base data/mnist-round/base.safetensors \
            data/mnist-round/updates -o target/merged-${rule%%:*}.safetensors
        python3 data/mnist-round/accuracy.py target/merged-${rule%%:*}.safetensors
    done

# Merge the round in data/ by every rule and step, and put what came out into docs/rules.md (needs NumPy).
table:
    cargo build --release --quiet
    python3 data/mnist-round/rules_table.py target/release/fedmill --write docs/rules.md

# Accept changed snapshots.
bless:
    INSTA_UPDATE=always cargo test --test integration help

# Make the golden vectors anew (needs what data/vectors/README.md says).
vectors:
    python3 data/vectors/make_dtypes.py
    python3 data/vectors/make_rules.py

# Build the documentation.
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

# Fuzz the header reader (needs cargo-fuzz).
fuzz *ARGS:
    cargo fuzz run --sanitizer none --fuzz-dir tests/fuzz header {{ARGS}}
