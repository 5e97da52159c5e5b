#!/usr/bin/env bash
# Runs one plan on the round of this folder in three ways: to its end, killed in the middle and resumed, and on a local
# Slurm whose controller is killed. The plan tries rules in a loop until a model is accurate, merges with that rule in
# shards, and lets three commands vote on the result. Each way ends in the same bytes, those of one `fedmill aggregate`.
# Without Slurm the third way is left out, unless FEDMILL_REQUIRE_ENGINES is set. Needs NumPy.
#
#     demo_plan.sh FEDMILL FOLDER
set -euo pipefail
fedmill=$(realpath "$1") data=$(cd "$(dirname "$0")" && pwd)
rm -rf "$2"
mkdir -p "$2"
out=$(realpath "$2")

say() { printf '\n-- %s\n' "$*"; }
fail() { echo "demo_plan.sh: $*" >&2; exit 1; }

# A voter: who it is, the measured accuracy, the model.
cat >"$out/vote.sh" <<'END'
accuracy=$(sed 's/.*"accuracy": \([0-9.]*\).*/\1/' "$2")
case $1 in
# The model is good.
accurate) option=$(awk -v accuracy="$accuracy" 'BEGIN { print (accuracy >= 0.93 ? "accept" : "reject") }') ;;
# The file is whole: as large as the model that the round began with.
whole) [ "$(wc -c <"$3")" -ge "$(wc -c <"$4")" ] && option=accept || option=reject ;;
# It never agrees.
contrary) option=reject ;;
esac
echo "{\"option\": \"$option\"}"
END

# Tries the rule of an iteration: the iteration, the model, the file for the rule, the base, the updates.
cat >"$out/try.sh" <<'END'
rules="mean trimmed-mean:cut=0.05 median"
rule=$(echo "$rules" | cut -d' ' -f"$1") model=$2 file=$3 base=$4
shift 4
printf %s "$rule" >"$file"
exec fedmill aggregate --quiet --rule "$rule" --base "$base" "$@" -o "$model"
END

# A step of a merge in shards, with the rule that a file holds.
cat >"$out/shard.sh" <<'END'
step=$1 rule=$(cat "$2")
shift 2
exec fedmill "$step" --quiet --rule "$rule" "$@"
END

ln -s "$fedmill" "$out/fedmill"
export PATH=$out:$PATH
cp -r "$data/updates" "$data/base.safetensors" "$out/"

shard() {
    printf '{"id": "%s", "needs": %s, "agent": "shard", %s "argv": ["%s", "{attempt.rule}", "--base", "{in.base}", %s, "{in.updates}"], %s}' \
        "$1" "$2" "$3" "$1" "$4" "$5"
}
voter() { printf '{"kind": "command", "argv": ["sh", "%s/vote.sh", "%s"], "capabilities": ["review"]}' "$out" "$1"; }
cat >"$out/plan.json" <<END
{"schema": "fedmill.plan/1", "id": "demo", "goal": "merge the round with a rule that withstands its hostile clients",
 "params": {"good": 0.93},
 "inputs": [{"name": "updates", "path": "updates"}, {"name": "base", "path": "base.safetensors"}],
 "agents": {
  "try": {"kind": "command", "argv": ["sh", "$out/try.sh"]},
  "shard": {"kind": "command", "argv": ["sh", "$out/shard.sh"]},
  "accuracy": {"kind": "command", "argv": ["python3", "$data/accuracy.py", "--json"]},
  "copy": {"kind": "command", "argv": ["cp"]},
  "accurate": $(voter accurate), "whole": $(voter whole), "contrary": $(voter contrary)},
 "limits": {"timeout": {"run": "5m"}},
 "stages": [
  {"id": "attempt", "agent": "try", "argv": ["{k}", "{out.model}", "{out.rule}", "{in.base}", "{in.updates}"],
   "out": [{"name": "model", "path": "model.safetensors"}, {"name": "rule", "path": "rule.txt"}]},
  {"id": "score", "needs": ["attempt"], "agent": "accuracy", "argv": ["{attempt.model}"], "metrics": ["accuracy"],
   "out": [{"name": "scores", "path": "-", "metrics": true}]},
  $(shard gram '["score"]' '"for_each": {"shards": 3},' '"--shard", "{shard}/{shards}", "-o", "{out.part}"' \
      '"out": [{"name": "part", "path": "gram-{shard}.safetensors"}]'),
  $(shard decide '["gram"]' '' '"--partials", "{gram.part}", "-o", "{out.decision}"' \
      '"out": [{"name": "decision", "path": "decision.json"}]'),
  $(shard combine '["decide"]' '"for_each": {"shards": 3},' \
      '"--shard", "{shard}/{shards}", "--decision", "{decide.decision}", "-o", "{out.part}"' \
      '"out": [{"name": "part", "path": "part-{shard}.safetensors"}]'),
  $(shard merge '["combine"]' '' '"--partials", "{combine.part}", "--decision", "{decide.decision}", "-o", "{out.model}"' \
      '"out": [{"name": "model", "path": "merged.safetensors"}]'),
  {"id": "measure", "needs": ["merge"], "agent": "accuracy", "argv": ["{merge.model}"],
   "out": [{"name": "scores", "path": "-"}]},
  {"id": "vote", "needs": ["measure"], "argv": ["{measure.scores}", "{merge.model}", "{in.base}"],
   "consensus": {"capability": "review", "options": ["accept", "reject"], "threshold": 0.6, "quorum": 0.9, "weight": "equal",
    "timeout": "1m"}},
  {"id": "publish", "branch": "accept", "needs": ["vote"], "agent": "copy", "argv": ["{merge.model}", "{out.model}"],
   "out": [{"name": "model", "path": "model.safetensors"}]}],
 "loops": [{"id": "rules", "over": ["attempt", "score"], "until": "metrics.accuracy >= params.good", "max_iters": 3,
  "on_exhausted": "fail"}]}
END

# Kills the process $1 once the file $2 is there; $3 is what the process does.
kill_once_there() {
    until [ -e "$2" ]; do
        kill -0 "$1" 2>/dev/null || fail "$3 ended before it was killed"
        sleep 0.01
    done
    kill -KILL "$1"
    wait "$1" 2>/dev/null || true
}

say "The plan"
fedmill plan lint "$out/plan.json"
fedmill plan show "$out/plan.json"

digest() { sha256sum <"$1" | cut -d' ' -f1; }
digests=()
# Keeps the digest of a model.
ends_in() { digests+=("$(digest "$2")"); echo "$1: ${digests[-1]}"; }

say "The embedded runner"
fedmill plan run "$out/plan.json" --dir "$out/run" >/dev/null
ends_in "undisturbed" "$out/run/out/publish/model.safetensors"
fedmill plan status "$out/run"

say "One process, with the rule that the loop ended with"
rule=$(cat "$(printf '%s\n' "$out"/run/out/attempt@*/rule.txt | tail -n 1)")
fedmill aggregate --quiet --rule "$rule" --base "$out/base.safetensors" "$out/updates" -o "$out/whole.safetensors" \
    >/dev/null
ends_in "fedmill aggregate --rule $rule" "$out/whole.safetensors"

say "The embedded runner, killed in the middle"
fedmill plan run --quiet "$out/plan.json" --dir "$out/killed" >/dev/null &
kill_once_there $! "$out/killed/receipts/gram.1.json" "the run"
[ ! -e "$out/killed/out/publish/model.safetensors" ] || fail "the run was killed too late"
echo "killed with $(ls "$out/killed/receipts" | wc -l) receipts"
before=$(cd "$out/killed/receipts" && sha256sum ./*)
fedmill plan resume --quiet "$out/killed" >/dev/null
(cd "$out/killed/receipts" && sha256sum --quiet --check <<<"$before") || fail "the resumed run did finished work again"
ends_in "killed and resumed" "$out/killed/out/publish/model.safetensors"

if ! command -v slurmctld >/dev/null || ! command -v slurmd >/dev/null; then
    [ -z "${FEDMILL_REQUIRE_ENGINES:-}" ] || fail "Slurm is not installed"
    say "SKIPPED: Slurm is not installed (apt-get install slurmctld slurmd slurm-client)"
else
    say "Slurm, with its controller and the submitting script killed in the middle"
    "$data/../slurm/start.sh" "$out/slurm"
    trap '"$data/../slurm/start.sh" "$out/slurm" --stop' EXIT
    export SLURM_CONF=$out/slurm/slurm.conf FEDMILL=$fedmill POLL=0.5 STUCK=10
    fedmill plan render "$out/plan.json" --target slurm -o "$out/rendered"
    bash "$out/rendered/submit.sh" --wait &
    kill_once_there $! "$out/rendered/done/loop-rules.json" "submit.sh"
    "$data/../slurm/start.sh" "$out/slurm" --kill
    echo "killed with $(ls "$out/rendered/done" | wc -l) tasks done"
    "$data/../slurm/start.sh" "$out/slurm"
    bash "$out/rendered/submit.sh" --wait &
    submit=$!
    # As an operator would: the node again, if the controller drained it.
    while kill -0 $submit 2>/dev/null; do
        "$data/../slurm/start.sh" "$out/slurm" || true
        sleep 1
    done
    wait $submit || fail "submit.sh failed"
    ends_in "Slurm" "$out/rendered/tasks/publish/out/publish/model.safetensors"
fi

say "The result"
[ "$(printf '%s\n' "${digests[@]}" | sort -u | wc -l)" = 1 ] || fail "the digests differ"
python3 "$data/accuracy.py" --min 93 "$out/whole.safetensors"
echo "${#digests[@]} ways, one digest: ${digests[0]}"
