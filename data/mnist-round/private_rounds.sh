#!/usr/bin/env bash
# Runs ten rounds over the twenty clients of this folder with differential privacy, one process a round. It sets up a
# budget, charges every round to it, and prints the status. The budget refuses an eleventh round. At the end the script
# verifies the ledger with all ten models.
#
#     private_rounds.sh FEDMILL FOLDER
#
# Twenty clients are few: the noise that hides one of them is eight times as long as the sum of their updates. So the
# server takes small steps. The common direction of ten rounds then adds up faster than their noise.
set -euo pipefail
fedmill=$1 out=$2 data=$(cd "$(dirname "$0")" && pwd)
rounds=10

# All clients take part in every round, so sampling amplifies nothing. fedmill finds the least noise with which ten rounds
# keep within the budget. Every client's update is longer than the clip bound, so all count alike, the hostile ones too.
rm -rf "$out" && mkdir -p "$out" && cp "$data/base.safetensors" "$out/round-0.safetensors"
"$fedmill" privacy init "$out/dp" --population 20 --sampling all --epsilon 8 --delta 1e-3 --rounds $rounds --clip 1 \
    --base "$data/base.safetensors"

round() {
    "$fedmill" aggregate --quiet --dp "$out/dp" --base "$out/round-$(($1 - 1)).safetensors" \
        --strategy fedavg:lr=0.1 --output "$out/round-$1.safetensors" "$data/updates"
}

for ((r = 1; r <= rounds; r++)); do
    round $r
    "$fedmill" privacy status "$out/dp"
done

status=0
round $((rounds + 1)) || status=$?
if [ $status != 1 ] || [ -e "$out/round-$((rounds + 1)).safetensors" ]; then
    echo "round $((rounds + 1)) ended with $status, expected 1 and no model" >&2
    exit 2
fi
echo "round $((rounds + 1)) was refused: the budget is spent"

models=()
for ((r = 1; r <= rounds; r++)); do models+=("$out/round-$r.safetensors"); done
"$fedmill" privacy verify "$out/dp" --model "${models[@]}"
