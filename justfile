# List the commands.
default:
    @just --list

# Everything a pull request must pass, short of the tests.
check:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

# Run the tests; those of the GPU are skipped, and say so, where there is no adapter.
test:
    cargo test

# Run the tests of the GPU; a missing adapter fails. Without cargo the tests of `gpu-kit` run.
test-gpu *FILTER="gpu:: doctor::":
    #!/usr/bin/env bash
    set -euo pipefail
    export FEDMILL_REQUIRE_GPU=1
    if command -v cargo >/dev/null; then
        cargo test --test integration -- {{FILTER}}
    else
        FEDMILL_BIN=target/gpu-kit/fedmill target/gpu-kit/integration {{FILTER}}
    fi

# Time kernels and merges on the CPU and each GPU (`fedmill bench`). Without cargo the program of `gpu-kit` runs.
bench-gpu *ARGS:
    #!/usr/bin/env bash
    set -euo pipefail
    fedmill=target/gpu-kit/fedmill
    if command -v cargo >/dev/null; then
        cargo build --release --quiet
        fedmill=target/release/fedmill
    fi
    "$fedmill" doctor
    "$fedmill" bench {{ARGS}}

# Build what `test-gpu` and `bench-gpu` need on a machine without cargo, registry or network, into target/gpu-kit.
gpu-kit:
    #!/usr/bin/env bash
    set -euo pipefail
    rm -rf target/gpu-kit
    mkdir -p target/gpu-kit
    cargo build --release
    tests=$(cargo test --test integration --no-run --message-format=json |
        sed -n 's/.*"name":"integration".*"executable":"\([^"]*\)".*/\1/p')
    cp "${CARGO_TARGET_DIR:-target}/release/fedmill" target/gpu-kit/fedmill
    cp "$tests" target/gpu-kit/integration
    strip --strip-debug target/gpu-kit/*
    ls -l target/gpu-kit

# Check every variant of every shader, which needs no device.
shaders:
    cargo test --test integration -- gpu::shaders

# Lint and test without the GPU backend, and with homomorphic encryption.
features:
    cargo clippy --all-targets --no-default-features -- -D warnings
    cargo test --no-default-features
    cargo clippy --all-targets --no-default-features --features he -- -D warnings
    cargo test --no-default-features --features he --lib -- he::
    cargo test --no-default-features --features he --test integration -- he:: help:: outputs:: durability::

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

# Ten rounds of fedadam over the clients in data/, one process a round, one of them killed and run again. Only a debug
# build can be killed at a chosen step.
ten-rounds:
    cargo build --quiet
    data/mnist-round/ten_rounds.sh target/debug/fedmill target/ten-rounds

# Five rounds of the clients in data/ that compress what they send, and of the same clients as they are.
compressed-rounds *HOW:
    cargo build --release --quiet
    data/mnist-round/compressed_rounds.sh target/release/fedmill target/compressed-rounds {{HOW}}

# Ten rounds of the clients in data/ under a privacy budget, and one too many.
private-rounds:
    cargo build --release --quiet
    data/mnist-round/private_rounds.sh target/release/fedmill target/private-rounds

# Five rounds of a federation of the clients in data/ as cron would run them: kills, a hostile client, a rollback, the
# report page (needs data/requirements.txt). Only a debug build can be killed at a chosen step.
demo-rounds:
    cargo build --quiet
    data/mnist-round/demo_rounds.sh target/debug/fedmill target/demo-rounds

# One plan on the round in data/: killed and resumed, on the embedded runner and on a local Slurm, to one digest (needs
# NumPy; Slurm from Debian's slurmctld, slurmd and slurm-client).
demo-plan:
    cargo build --release --quiet
    data/mnist-round/demo_plan.sh target/release/fedmill target/demo-plan

# Secure aggregation of the round in data/: 20 clients and 5 helpers as processes, dropouts, a lying helper, groups (needs
# NumPy and blake3).
demo-secagg:
    cargo build --release --quiet
    data/mnist-round/demo_secagg.sh target/release/fedmill target/demo-secagg

# Merge the round in data/ by every rule and step, and put what came out into docs/rules.md (needs NumPy).
table:
    cargo build --release --quiet
    python3 data/mnist-round/rules_table.py target/release/fedmill --write docs/rules.md

# Accept what the code now gives: help texts, verdicts on the real round, digests of outputs (say in the commit why they
# changed), and the tables of registries in docs/.
bless:
    INSTA_UPDATE=always FEDMILL_RECORD_DIGESTS=1 cargo test --test integration -- help:: real_round digests:: tables::

# Make the golden vectors anew (needs what data/vectors/README.md says).
vectors:
    python3 data/vectors/make_dtypes.py
    python3 data/vectors/make_rules.py

# Build the documentation.
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

# Change files at random and take each through every command that reads them; COUNT files.
mutations COUNT="245000":
    FEDMILL_MUTATIONS={{COUNT}} cargo test --test integration -- mutations:: hostile_updates::files_that_are_changed

# Fuzz a reader: TARGET is header, update, plan, condition, manifest or lanes (needs cargo-fuzz).
fuzz TARGET="header" *ARGS:
    cargo fuzz run --sanitizer none --fuzz-dir tests/fuzz {{TARGET}} {{ARGS}}

# Change the source in 450 places, one at a time, and name the changes that no test notices; `--again` runs new tests
# and the changes that lived (needs cargo-mutants and tests/mutants/requirements.txt).
mutants *HOW:
    python3 tests/mutants/mutants.py {{HOW}}
