#!/usr/bin/env bash
# Runs ten rounds of fedadam over the clients of this folder, one process a round, twice. The second time it kills round 5
# before every durable step, and runs it again until it succeeds. Both series end in the same model.
#
#     ten_rounds.sh FEDMILL FOLDER
set -euo pipefail
fedmill=$1 out=$2 data=$(cd "$(dirname "$0")" && pwd)

# Ten of the twenty clients take part in each round, and the choice changes from round to round.
clients() {
    for i in 0 1 2 3 4 5 6 7 8 9; do
        printf "$data/updates/client-%02d.safetensors\n" $((($1 * 7 + i) % 20))
    done
}

round() {
    clients "$2" | "$fedmill" aggregate --quiet --files-from - --base "$1/round-$(($2 - 1)).safetensors" \
        --rule trimmed-mean:cut=4 --strategy fedadam:lr=0.003 --state "$1/fedadam.safetensors" \
        --report "$1/round-$2.json" --output "$1/round-$2.safetensors" >/dev/null
}

start() {
    rm -rf "$1" && mkdir -p "$1" && cp "$data/base.safetensors" "$1/round-0.safetensors"
}

start "$out/undisturbed"
for r in 1 2 3 4 5 6 7 8 9 10; do round "$out/undisturbed" $r; done

start "$out/killed"
kills=0
for r in 1 2 3 4 5 6 7 8 9 10; do
    if [ $r = 5 ]; then
        # A shell reports an aborted program as 134.
        status=0
        FEDMILL_FAIL_AT=1 round "$out/killed" $r 2>/dev/null || status=$?
        while [ $status = 134 ]; do
            kills=$((kills + 1)) status=0
            FEDMILL_FAIL_AT=$((kills + 1)) round "$out/killed" $r 2>/dev/null || status=$?
        done
        echo "round 5 was killed $kills times"
    fi
    round "$out/killed" $r
done

for run in undisturbed killed; do (cd "$out" && sha256sum "$run/round-10.safetensors" "$run/fedadam.safetensors"); done
cmp "$out/undisturbed/round-10.safetensors" "$out/killed/round-10.safetensors"
cmp "$out/undisturbed/fedadam.safetensors" "$out/killed/fedadam.safetensors"
echo "the same model, and the same state"
