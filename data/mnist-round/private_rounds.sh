#!/usr/bin/env bash
# Ten rounds over the twenty clients of this folder with differential privacy, from the shell, one process a round: a
# budget is set up, every round is charged to it and told, an eleventh is refused, and at the end the ledger is held
# against all ten models.
#
#     private_rounds.sh FEDMILL FOLDER
#
# Twenty clients are few: the noise that hides one of them is eight times as long as what they have in common. So the
# server takes small steps, and what ten rounds agree on adds up faster than their noise does.
set -euo pipefail
fedmill=$1 out=$2 data=$(cd "$(dirname "$0")" && pwd)
rounds=10

# All clients take part in every round, so nothing is amplified. The least noise with which ten rounds keep within the
# budget is found. The clip bound is shorter than every client's update: all count alike, the hostile ones too.
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
