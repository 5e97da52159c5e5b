#!/usr/bin/env bash
# Secure aggregation on the round of this folder: 20 clients and 5 helpers, each a process with a folder of its own; they
# share the folder of the session alone. Eight clients and two helpers are gone. In a second session all helpers answer,
# and one lies. The third has groups: a robust rule over their means withstands the hostile clients. Needs NumPy and blake3.
#
#     demo_secagg.sh FEDMILL FOLDER
set -euo pipefail
fedmill=$(realpath "$1") data=$(cd "$(dirname "$0")" && pwd)
rm -rf "$2"
mkdir -p "$2"
out=$(realpath "$2")
cd "$out"

say() { printf '\n-- %s\n' "$*"; }
fail() { echo "demo_secagg.sh: $*" >&2; exit 1; }
secagg() { "$fedmill" secagg "$@"; }
accuracy() { python3 "$data/accuracy.py" "$@"; }

say "keys: each party keeps its own, and has the public keys of all"
mkdir public
for party in server helper-{1..5} $(seq -f client-%02g 0 19); do
    mkdir "$party"
    secagg keygen --id "$party" -o "$party/key" >/dev/null
    cp "$party/key.pub" "public/$party.pub"
    cp "$data/base.safetensors" "$party/"
done

# Opens the session in the folder $1; more options follow.
open() {
    local session=$1
    shift
    secagg open "$session" --key server/key --clients public/client-*.pub --helpers public/helper-*.pub \
        --base server/base.safetensors --clip 0.5 --statistics-clip 20 --round 1 "$@"
}
# Client $2 masks its update in the session $1.
mask() {
    secagg mask "$1" "$data/updates/$2.safetensors" --quiet --key "$2/key" --base "$2/base.safetensors" \
        --trust public --require-known 20 --integers "$2/$1-integers.safetensors" --allow-again >/dev/null
}
help() { secagg help "$1" --quiet --key "$2/key" >/dev/null; }
unmask() {
    local session=$1
    shift
    secagg unmask "$session" --key server/key "$@" >/dev/null
}
# The clients that stay: eight are gone, the hostile ones 16 to 19 among them.
stay=$(seq -f client-%02g 0 11)

say "first session: 8 of 20 clients and 2 of 5 helpers are gone"
open first --min-survivors 10
for client in $stay; do mask first "$client"; done
for helper in helper-{2..4}; do secagg check first --quiet --key "$helper/key" >/dev/null; done
secagg sum first --key server/key >/dev/null
for helper in helper-{2..4}; do help first "$helper"; done
unmask first -o server/mean.safetensors --sums server/sums.safetensors
# shellcheck disable=SC2086 # one word for each client
python3 "$data/same_sum.py" server/sums.safetensors $(printf '%s/first-integers.safetensors ' $stay)
"$fedmill" aggregate --quiet --base server/base.safetensors server/mean.safetensors -o server/merged.safetensors
accuracy --min 93.5 server/merged.safetensors
secagg verify first

say "one flipped byte"
for file in first/masked/client-03.safetensors first/answers/helper-3.safetensors first/set.json first/transcript.json; do
    cp "$file" kept
    python3 - "$file" <<'END'
import os, sys
at = os.path.getsize(sys.argv[1]) // 2
with open(sys.argv[1], "r+b") as file:
    file.seek(at)
    byte = file.read(1)[0]
    file.seek(at)
    file.write(bytes([byte ^ 1]))
END
    if secagg verify first >/dev/null 2>verify.log; then fail "verify accepts a changed $file"; fi
    tail -n 1 verify.log
    cp kept "$file"
done
secagg verify first >/dev/null || fail "verify refuses the whole session"

say "second session: all helpers answer, and helper 4 lies in one of its lanes"
open second --min-survivors 10
for client in $stay; do mask second "$client"; done
secagg sum second --key server/key >/dev/null
for helper in helper-{1..4}; do help second "$helper"; done
python3 "$data/lie.py" helper-4/key second/answers/helper-4.safetensors 1234
if unmask second -o server/second.safetensors 2>lie.log; then fail "four answers, one wrong, gave a mean"; fi
cat lie.log
help second helper-5
unmask second -o server/second.safetensors --sums server/second-sums.safetensors
# shellcheck disable=SC2086 # one word for each client
python3 "$data/same_sum.py" server/second-sums.safetensors $(printf '%s/second-integers.safetensors ' $stay)
grep -q '"wrong":\["helper-4"\]' second/transcript.json || fail "the transcript does not name helper 4"
secagg verify second >/dev/null

say "third session: all 20 clients, four of them hostile, in ten groups"
open third --groups 10 --min-survivors 2
for client in $(seq -f client-%02g 0 19); do mask third "$client"; done
secagg sum third --key server/key >/dev/null
for helper in helper-{1..5}; do help third "$helper"; done
unmask third -o server/groups
"$fedmill" aggregate --quiet --base server/base.safetensors --rule median server/groups -o server/grouped.safetensors
secagg verify third >/dev/null
accuracy --min 90 server/grouped.safetensors
