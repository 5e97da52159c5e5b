#!/usr/bin/env bash
# Lets a real cron run a federation of ten clients of this folder, until three rounds are published: some four minutes.
# The line is that of docs/rounds.md, for this program and folder. The clients look for tasks every second. Needs Debian's `cron`, and what client.py
# needs. Starts cron if none runs, which needs root; leaves the crontab and cron as they were.
#
#     cron_rounds.sh FEDMILL FOLDER
set -euo pipefail
fedmill=$(realpath "$1") data=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$2" && out=$(cd "$2" && pwd)
federation=$out/federation wanted=3 seconds=420
export PATH="$PATH:/usr/sbin"

. "$data/federation.sh"
rm -f "$out/cron.out" "$out/cron.err"
make_federation "$federation" 00 01 02 03 04 05 06 07 08 09
printf '[coordination]\nmin_clients = 8\n' >"$federation/fedmill.toml"
evaluation_settings >>"$federation/fedmill.toml"

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

published() { "$fedmill" round status "$federation" --json | sed 's/.*"published":\([0-9]*\).*/\1/'; }

before=$(mktemp)
started=()
clean_up() {
    if [ -s "$before" ]; then crontab "$before"; else crontab -r 2>/dev/null || true; fi
    rm -f "$before"
    [ ${#started[@]} = 0 ] || as_root kill "${started[@]}" 2>/dev/null || true
}
trap clean_up EXIT
trap 'exit 1' INT TERM

# What stood in the crontab stays in it.
crontab -l >"$before" 2>/dev/null || true
line=$(grep -m1 '^\* \* \* \* \* fedmill round run' "$data/../../docs/rounds.md")
line=${line/fedmill/$fedmill} line=${line/\/srv\/federation/$federation}
line="${line/>\/dev\/null/>>$out/cron.out} 2>>$out/cron.err"
printf '%s\n' "$(cat "$before")" "$line" | crontab -
if ! pgrep -r D,R,S -x cron >/dev/null; then
    { [ "$(id -u)" != 0 ] || exec cron -f; exec sudo cron -f; } &
    started+=($!)
fi
(
    mapfile -t names < <(seq -f 'client-0%g' 0 9)
    while sleep 1; do
        [ ! -e "$federation/tasks/round.json" ] ||
            python3 "$data/client.py" "$federation" "$federation-clients" "${names[@]}" --fedmill "$fedmill"
    done
) >"$out/clients.log" 2>&1 &
started+=($!)

echo "cron runs: $line"
second=0
while ((second++ < seconds && $(published) < wanted)) && [ ! -s "$out/cron.err" ]; do sleep 1; done
echo "$(published) rounds published after $second s"
"$fedmill" round history "$federation"
if [ "$(published)" -lt $wanted ] || [ -s "$out/cron.err" ] || ! "$fedmill" round verify "$federation"; then
    echo "cron_rounds.sh: expected $wanted published rounds and no message; found:" >&2
    "$fedmill" round status "$federation" >&2 || true
    for file in cron.out cron.err clients.log; do
        echo "== $file" >&2
        cat "$out/$file" >&2 || true
    done
    crontab -l >&2 || true
    grep -a CRON /var/log/syslog >&2 || true
    exit 1
fi
# cron's own output is the path of each model.
[ "$(wc -l <"$out/cron.out")" = "$(published)" ] || { echo "cron_rounds.sh: cron.out has other lines" >&2; exit 1; }
