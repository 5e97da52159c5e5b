#!/usr/bin/env bash
# Submits the tasks of the plan `@PLAN@` to Slurm; made by `fedmill plan render`.
#
#     bash submit.sh [--wait] [OPTION OF SBATCH]...
#
# Run it again after any crash: it submits the tasks that are neither done nor in the queue. It looks for jobs by their
# names and for results in done/, and believes no exit status of a job. With --wait it goes on until the plan is over,
# and submits again what the controller lost; its exit status is then 0 if every task is done, else 2. If a job can never
# start as it was submitted, it cancels the jobs that wait for that job and ends with exit status 2, with --wait or
# without.
# FEDMILL is the program, by default `fedmill`. PATIENCE is how many seconds a controller may be silent (300), POLL how
# many seconds pass between two looks at the queue (2), STUCK after how many seconds jobs of which none can start are
# submitted again (120), and SAY after how many seconds the reason of a job that waits is printed (60).
set -euo pipefail
dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
run=fedmill:@PLAN@-$(cksum <<<"$dir" | cut -d' ' -f1)
patience=${PATIENCE:-300} most_tries=5 wait=
if [ "${1:-}" = --wait ]; then wait=1; shift; fi
options=("$@")
mkdir -p "$dir/logs" "$dir/done" "$dir/failed"
exec 9>"$dir/submit.lock"
flock -n 9 || { echo "submit.sh: another submit.sh works on $dir" >&2; exit 1; }

# Ends if there is no controller; waits for one that is down.
reach() {
    local until=$((SECONDS + patience)) said told=
    command -v scontrol >/dev/null || said="there is no program scontrol"
    while [ -z "${said:-}" ] || [[ $said = *DOWN* ]]; do
        said=$(timeout 10 scontrol ping 2>&1) && [[ $said = *UP* ]] && return
        said=${said:-the controller is DOWN: no answer within 10 s}
        [[ $said = *DOWN* ]] && ((SECONDS < until)) || break
        [ -n "$told" ] || echo "submit.sh: $(tail -n 1 <<<"$said"); waits for it for up to $patience s" >&2
        told=1
        sleep 1
    done
    echo "submit.sh: no Slurm controller answers: $(tail -n 1 <<<"$said")" >&2
    echo "submit.sh: run it on a machine of the cluster, or set SLURM_CONF to its slurm.conf" >&2
    exit 1
}

# Prints what the controller answers, and asks until it does.
ask() {
    local until=$((SECONDS + patience)) answer
    until answer=$(timeout 60 "$@" 2>"$dir/logs/submit.err"); do
        if ((SECONDS >= until)); then
            echo "submit.sh: no answer to \`$1\` within $patience s: $(tail -n 1 "$dir/logs/submit.err")" >&2
            exit 1
        fi
        sleep 1
    done
    [ -z "$answer" ] || printf '%s\n' "$answer"
}

# A setting of the controller.
config() { ask scontrol show config | awk -v key="$1" '$1 == key { sub(/^[^=]*= */, ""); print }'; }

# Jobs of this run that wait or run: name, job, place in the array, state, the name for scancel, reason.
queue() {
    ask squeue --noheader --array --format='%j %F %K %T %i %r' |
        awk -v run="$run:" 'index($1, run) == 1 && $4 != "COMPLETING" { $1 = substr($1, length(run) + 1); print }'
}

# Cancels the jobs of this run that wait.
take_back() { queue | awk '$4 == "PENDING" { print $5 }' | xargs -r -n 100 scancel || true; }

declare -A jobs_of places_of is_queued tries since said needs=() never=()
order=()
# Prints once why the job NAME NUMBER REASON waits, if it can never start or waits for long.
explain() {
    local name=$1 job=$2 why=$3 key="$2 $3"
    case $why in Dependency* | JobArrayTaskLimit | BeginTime | None) return 0 ;; esac
    since[$key]=${since[$key]:-$SECONDS}
    [ -z "${said[$key]:-}" ] || return 0
    case $why in
    # PartitionNodeLimit is not among these: Slurm says it also of a node that is down for a while.
    PartitionConfig | PartitionTimeLimit | BadConstraints | InvalidAccount | InvalidQOS | *NotAllowed)
        never[$name]=1
        echo "submit.sh: job $job ($name) can never start as it was submitted: $why" >&2
        echo "submit.sh: compare the options of sbatch with \`sinfo\`; \`scancel $job\` takes the job back" >&2
        ;;
    *)
        ((SECONDS - since[$key] >= ${SAY:-60})) || return 0
        echo "submit.sh: job $job ($name) has been waiting for $((SECONDS - since[$key])) s: $why" >&2
        ;;
    esac
    said[$key]=1
}

# Ends if a job can never start: no job that waits for it could, and a run from cron has to say so.
give_up() {
    [ ${#never[@]} != 0 ] || return 0
    # Each job comes after those that it waits for.
    submits='' missing=0
    all_jobs
    local name need waiting
    for name in "${order[@]}"; do
        for need in ${needs[$name]}; do [ -z "${never[$need]:-}" ] || never[$name]=${never[$name]:-2}; done
    done
    waiting=$(queue)
    while read -r name _ _ state id _; do
        [ "${never[${name:--}]:-}" != 2 ] || [ "$state" != PENDING ] || echo "$id"
    done <<<"$waiting" | xargs -r -n 100 scancel || true
    echo "submit.sh: gives up: it cancelled the jobs that wait for such a job; other jobs go on" >&2
    exit 2
}

unstuck=$SECONDS
# Reads the queue.
look() {
    local jobs name job place state rest
    jobs=$(queue)
    jobs_of=() is_queued=() queued=0
    while read -r name job place state _ rest; do
        [ -n "$name" ] || continue
        queued=$((queued + 1)) is_queued[$name $place]=1
        [ "$state" != PENDING ] || explain "$name" "$job" "$rest"
        case " ${jobs_of[$name]:-} " in *" $job "*) ;; *) jobs_of[$name]+=" $job" ;; esac
        # Jobs wait for jobs of this run alone: if all of them wait for others, none can free them. Slurm holds a job
        # whose machine refused it, as one with the number of a job that the machine still knows, or lets it wait.
        [[ $state = PENDING && ($rest = Dependency* || $rest = "launch failed"* || $rest = BeginTime) ]] ||
            unstuck=$SECONDS
    done <<<"$jobs"
    [ $queued != 0 ] || unstuck=$SECONDS
}

# Whether the tasks at a place of the array are done.
is_done() {
    [ "$2" != - ] || { [ -e "$dir/done/$1.json" ]; return; }
    local task
    for ((task = $2 * pack; task < ($2 + 1) * pack && task < count; task++)); do
        [ -e "$dir/done/$1.$task.json" ] || return 1
    done
}

# Joins numbers to ranges, as --array takes them.
ranges() {
    awk '{ if (NR > 1 && $1 == last + 1) last = $1
           else { if (NR > 1) printf "%s,", first == last ? first : first "-" last; first = last = $1 } }
         END { printf "%s", first == last ? first : first "-" last }'
}

# Looks at the job NAME COUNT AT-A-TIME KIND [CONDITION:NAME]..., and submits what of it is missing.
job() {
    local name=$1 count=$2 most=$3 kind=$4 pack=1 slots=0 slot place open=() after=() id other how
    shift 4
    [ -n "${needs[$name]+known}" ] || order+=("$name")
    needs[$name]="${*#*:}"
    if [ "$forgets" = 1 ]; then
        # The stages of the end run at each end.
        [ "$kind" != end ] || rm -f "$dir/done/$name.json"
        return
    fi
    if [ "$count" != - ]; then
        pack=$(((count + most_places - 1) / most_places))
        slots=$(((count + pack - 1) / pack - 1))
    fi
    for ((slot = 0; slot <= slots; slot++)); do
        place=$slot
        [ "$count" != - ] || place=-
        ! is_done "$name" "$place" || continue
        missing=$((missing + 1))
        [ "$count" != - ] || place=N/A
        [ -n "${is_queued[$name $place]:-}" ] || open+=("$slot")
    done
    places_of[$name]=$pack:${open[*]:-}
    [ ${#open[@]} != 0 ] && [ "$submits" = 1 ] || return 0
    for other in "$@"; do
        how=${other%%:*} other=${other#*:}
        # The task with the same place is enough where both arrays have the same places.
        if [ "$how" = aftercorr ] && [ "${places_of[$other]}" != "${places_of[$name]}" ]; then how=afterok; fi
        for id in ${jobs_of[$other]:-}; do after+=("$how:$id"); done
    done
    tries[$name]=$((${tries[$name]:-0} + 1))
    if ((tries[$name] > most_tries)); then
        echo "submit.sh: $name came to no end in $most_tries tries; see $dir/logs" >&2
        exit 2
    fi
    local args=(--parsable --job-name="$run:$name") log=$name
    if [ "$count" != - ]; then
        args+=(--array="$(printf '%s\n' "${open[@]}" | ranges)$([ "$most" = - ] || echo "%$most")") log=$name.%a
    fi
    # sbatch replaces `%j` and others in the path, and `%%` by `%`.
    args+=(--output="${dir//%/%%}/logs/$log.log")
    if ((pack > 1)); then
        local minutes
        minutes=$(sed -n 's/^#SBATCH --time=//p' "$dir/jobs/$name.sh")
        [ -z "$minutes" ] || args+=(--time=$((minutes * pack)))
    fi
    if [ ${#after[@]} != 0 ]; then args+=(--dependency="$(IFS=,; echo "${after[*]}")"); fi
    # A submission without an answer may have arrived: the next look at the queue tells.
    if id=$(sbatch "${args[@]}" "${options[@]}" "$dir/jobs/$name.sh" "$dir" "$pack" 2>"$dir/logs/submit.err"); then
        jobs_of[$name]+=" ${id%%;*}"
        echo "submitted $name as job ${id%%;*}"
    else
        echo "submit.sh: $name: $(tail -n 1 "$dir/logs/submit.err")" >&2
        return 1
    fi
}

# All jobs of the plan, each behind those that it waits for.
all_jobs() {
@JOBS@
}

# Looks at all jobs, and submits what is missing; again if a submission had no answer.
#
# A controller that is killed may forget jobs that it accepted, and give their numbers to others. So what was submitted
# while one controller ended and the next began may wait for the wrong jobs: it is taken back and submitted again.
pass() {
    local until=$((SECONDS + patience)) boot
    while :; do
        boot=$(config BOOT_TIME)
        if [ -e "$dir/submit.boot" ] && [ "$(cat "$dir/submit.boot")" != "$boot" ]; then
            echo "another controller began: waiting jobs are submitted again"
            take_back
        fi
        echo "$boot" >"$dir/submit.boot"
        look
        missing=0
        if all_jobs && [ "$(config BOOT_TIME)" = "$boot" ]; then
            rm "$dir/submit.boot"
            return
        fi
        if ((SECONDS >= until)); then exit 1; fi
        sleep 1
    done
}

has_failures() { compgen -G "$dir/failed/*.json" >/dev/null; }

reach
most_places=$(config MaxArraySize) forgets='' submits=''
look
give_up
if [ $queued = 0 ]; then
    # A new chance for what failed.
    missing=0
    all_jobs
    if [ $missing != 0 ] && has_failures; then
        rm -f "$dir"/failed/*.json
        forgets=1
        all_jobs
    fi
fi
forgets='' submits=1
pass
if [ -z "$wait" ]; then
    # Says what can never start.
    sleep "${POLL:-2}"
    look
    give_up
    exit 0
fi
while [ $missing != 0 ]; do
    sleep "${POLL:-2}"
    if ((SECONDS - unstuck >= ${STUCK:-120})); then
        echo "no job can start: all are submitted again"
        take_back
        unstuck=$SECONDS
    fi
    ! has_failures || submits=''
    pass
    give_up
    if [ -z "$submits" ] && [ $queued = 0 ] && [ $missing != 0 ]; then
        echo "submit.sh: $missing tasks are not done; failed:" "$(cd "$dir/failed" && echo -- *.json | sed 's/^-- //; s/\.json//g')" >&2
        echo "submit.sh: \`fedmill plan status $dir\` shows the reasons; the logs of jobs are in $dir/logs" >&2
        exit 2
    fi
done
echo "all tasks are done"
