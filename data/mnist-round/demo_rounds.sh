#!/usr/bin/env bash
# Runs a federation of the twenty clients of this folder for five rounds, as cron would, and shows what an operator sees.
# On the way the program is killed before every durable step of a round, a hostile client sends NaN, and the operator goes
# back to an earlier model. A second federation without the kills ends in the same models. Needs what client.py needs.
#
#     demo_rounds.sh FEDMILL FOLDER
set -euo pipefail
fedmill=$(realpath "$1") out=$2 data=$(cd "$(dirname "$0")" && pwd)
hostile=client-17 planned=3
. "$data/federation.sh"

say() { printf '\n-- %s\n' "$*"; }
fail() { echo "demo_rounds.sh: $*" >&2; exit 1; }

# A figure of `round status --json`, such as "['current']['number']".
status() { "$fedmill" round status "$1" --json | python3 -c "import json, sys; print(json.load(sys.stdin)$2)"; }

# Fails unless a figure of the status is as expected.
expect() {
    local found
    found=$(status "$1" "$2")
    [ "$found" = "$3" ] || fail "$1: status$2 is $found, expected $3"
}

settings() {
    cat >"$1/fedmill.toml" <<EOF
[coordination]
min_clients = 12
clients = 15
dropout = 0.1
quorum = 0.8
selection = "weighted:freshness=0"
rounds = $2
seed = 7

[robustness]
byzantine_tolerance = 0.2

[monitoring]
html = true
EOF
    evaluation_settings >>"$1/fedmill.toml"
}

run() { "$fedmill" round run --quiet "$1"; }

# All clients look for a task, except one that sleeps in the round; those that have one train and deliver.
clients() {
    local awake
    mapfile -t awake < <(seq -f 'client-%02g' 0 19 | grep -v "client-0$2")
    python3 "$data/client.py" "$1" "$1-clients" "${awake[@]}" --nan $hostile --fedmill "$fedmill" \
        >>"$1-clients.log"
}

# Kills the program before its first durable step, then before its second, and so on, until it gets through.
kills=0
run_killed() {
    local ended=134
    while [ $ended = 134 ]; do
        kills=$((kills + 1)) ended=0
        FEDMILL_FAIL_AT=$kills run "$1" 2>/dev/null || ended=$?
    done
    kills=$((kills - 1))
    # 1: the next round waits for updates, since the killed runs did all there was to do.
    [ $ended -le 1 ] || fail "round run ended with $ended"
}

# The rounds from $2 to $3. In a federation named `mnist` the program is killed in round 2.
rounds() {
    for ((r = $2; r <= $3; r++)); do
        [ "$r" != "$2" ] || run "$1" >/dev/null
        expect "$1" "['phase']" collect
        clients "$1" "$r"
        if [[ $r = 2 && $1 = */mnist ]]; then run_killed "$1" >/dev/null; else run "$1" >/dev/null; fi
        expect "$1" "['published']" "$r"
        echo "round $r: accuracy $(status "$1" "['current']['metrics']['accuracy']")"
    done
}

federation() {
    local numbers
    mapfile -t numbers < <(seq -w 0 19)
    make_federation "$1" "${numbers[@]}"
    settings "$1" $planned
    "$fedmill" round check "$1" >/dev/null
    rounds "$1" 1 $planned
    "$fedmill" round rollback "$1" --to 2 >/dev/null
    expect "$1" "['current']['number']" 2
    echo "rolled back to version 2"
    settings "$1" 5
    rounds "$1" $((planned + 1)) 5
}

mkdir -p "$out"
say "A federation of 20 clients, 4 of them hostile; the program is killed in round 2"
federation "$out/mnist"
[ $kills -gt 10 ] || fail "the program was killed $kills times, expected more than 10"
echo "the program was killed $kills times in round 2, and each time the next run went on"

say "The same federation without the kills"
federation "$out/undisturbed"
cmp "$out/mnist/current.safetensors" "$out/undisturbed/current.safetensors"
diff <(cd "$out/mnist/models" && ls) <(cd "$out/undisturbed/models" && ls)
echo "both ended in the same models, bit for bit"

say "What a client did: fedmill clients show $hostile"
"$fedmill" clients show "$out/mnist" $hostile
say "Why its updates are in quarantine"
cat "$out/mnist"/rounds/*/quarantine/reasons.jsonl
for reasons in "$out/mnist"/rounds/*/quarantine/reasons.jsonl; do grep -q "\"$hostile\".*NaN" "$reasons"; done
[ "$(cat "$out/mnist"/rounds/*/quarantine/reasons.jsonl | wc -l)" -ge 2 ] || fail "no quarantine"

say "fedmill round status"
"$fedmill" round status "$out/mnist"
say "fedmill round history"
"$fedmill" round history "$out/mnist"
say "fedmill round verify"
"$fedmill" round verify "$out/mnist"

say "The report page"
"$fedmill" round report "$out/mnist" --html "$out/report.html"
cmp "$out/report.html" "$out/mnist/report.html"
for text in '<svg' accuracy $hostile; do grep -q -- "$text" "$out/report.html" || fail "the page lacks $text"; done
for file in fedmill.prom rounds.jsonl events.out.tfevents.0.fedmill; do [ -s "$out/mnist/metrics/$file" ]; done
[ "$(wc -l <"$out/mnist/metrics/rounds.jsonl")" = 5 ] || fail "rounds.jsonl has not one line a round"

# The rounds went well: the model is better than the first (0.898), in spite of the hostile clients.
python3 "$data/accuracy.py" --min 92 "$out/mnist/current.safetensors"
