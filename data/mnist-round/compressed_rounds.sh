#!/usr/bin/env bash
# Runs five rounds over the twenty clients of this folder, four of them hostile, twice. First every client sends its plain
# update. Then each sends a compressed update, and keeps the difference in its residual for the next round. The server
# merges by a robust rule. At the end the script prints how close both models are.
#
#     compressed_rounds.sh FEDMILL FOLDER [OPTION of `fedmill compress`]...
set -euo pipefail
fedmill=$1 out=$2 data=$(cd "$(dirname "$0")" && pwd)
shift 2
how=("$@")
[ ${#how[@]} -gt 0 ] || how=(--target 100)
rounds=5

# A client's trained model is the same in every round. It sends the difference from the model of the round before. Its
# metadata name the round, which residuals depend on.
trained() {
    LC_ALL=C sed "1s/\"round\":\"1\"/\"round\":\"$2\"/" "$data/updates/client-$1.safetensors"
}

start() {
    rm -rf "$1" && mkdir -p "$1/trained" "$1/sent" "$1/residuals" && cp "$data/base.safetensors" "$1/round-0.safetensors"
}

merge() {
    "$fedmill" aggregate --quiet "$1/$3" --base "$1/round-$(($2 - 1)).safetensors" --pre nnm --rule trimmed-mean \
        --byzantine 4 --output "$1/round-$2.safetensors" >/dev/null
}

bytes() { cat "$1"/* | wc -c; }

raw=0 sent=0
for way in plain compressed; do
    here=$out/$way
    start "$here"
    for ((r = 1; r <= rounds; r++)); do
        for i in $(seq -w 0 19); do
            trained "$i" $r >"$here/trained/client-$i.safetensors"
            [ $way = plain ] && continue
            "$fedmill" compress --quiet "${how[@]}" --base "$here/round-$((r - 1)).safetensors" \
                --residual "$here/residuals/client-$i.safetensors" "$here/trained/client-$i.safetensors" \
                --output "$here/sent/client-$i.safetensors" >/dev/null
        done
        if [ $way = plain ]; then
            merge "$here" $r trained
            raw=$((raw + $(bytes "$here/trained")))
        else
            merge "$here" $r sent
            sent=$((sent + $(bytes "$here/sent")))
        fi
    done
done

echo "$rounds rounds of 20 clients: $raw bytes as they are, $sent compressed"
# The distance of each model from the first, and the direction.
cp "$out/plain/round-$rounds.safetensors" "$out/plain.safetensors"
cp "$out/compressed/round-$rounds.safetensors" "$out/compressed.safetensors"
"$fedmill" inspect --base "$data/base.safetensors" "$out/plain.safetensors" "$out/compressed.safetensors"
