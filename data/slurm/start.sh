#!/usr/bin/env bash
# Starts a Slurm cluster of one node on this machine, for tests and demonstrations: controller and node daemon on the
# loopback address, without authentication and without accounting. Needs Debian's slurmctld, slurmd and slurm-client;
# no systemd, no munge, no root. Commands with SLURM_CONF=FOLDER/slurm.conf in their environment use it.
#
#     start.sh FOLDER [PORT]         starts the cluster, or what of it does not run, and takes a drained node back; PORT
#                                    and PORT+1 are its ports
#     start.sh FOLDER --stop         ends both daemons and all jobs
#     start.sh FOLDER --kill         kills the controller with SIGKILL
#
# SETTINGS, if set, is one more line of slurm.conf, such as MaxArraySize=4.
set -euo pipefail
mkdir -p "$1"
folder=$(realpath "$1") second=${2:-}
export SLURM_CONF=$folder/slurm.conf

# Whether a daemon of this folder runs.
runs() { [ -s "$folder/$1.pid" ] && kill -0 "$(cat "$folder/$1.pid")" 2>/dev/null; }

# Sends a signal to a daemon, and waits until it ended.
end() {
    runs "$1" || return 0
    local pid
    pid=$(cat "$folder/$1.pid")
    kill "-$2" "$pid"
    # A daemon that this shell did not start is reaped by another process.
    for _ in $(seq 100); do
        runs "$1" && [ "$(ps -o stat= -p "$pid" | cut -c1)" != Z ] || { rm -f "$folder/$1.pid"; return 0; }
        sleep 0.1
    done
    kill -KILL "$pid"
    rm -f "$folder/$1.pid"
}

case $second in
--stop)
    if runs slurmctld; then scancel --quiet --full --signal=KILL --user="$(id -un)" || true; fi
    end slurmctld TERM
    end slurmd TERM
    exit ;;
--kill)
    end slurmctld KILL
    exit ;;
esac

if [ ! -e "$SLURM_CONF" ]; then
    port=${second:-$((20000 + RANDOM % 10000 * 2))}
    mkdir -p "$folder/state" "$folder/spool"
    memory=$(awk '/^MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
    # The name of a node must be its host name, or have an address.
    cat >"$SLURM_CONF" <<END
ClusterName=loopback
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=2
PriorityType=priority/basic
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ReturnToService=2
MinJobAge=300
KillWait=2
InactiveLimit=0
SlurmdTimeout=15
SlurmctldTimeout=300
DefMemPerCPU=64
${SETTINGS:-}
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$memory State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
fi

# The daemons stay in the foreground and write no PID file then.
for daemon in slurmctld slurmd; do
    runs $daemon && continue
    setsid $daemon -D >"$folder/$daemon.out" 2>&1 </dev/null &
    echo $! >"$folder/$daemon.pid"
done
for _ in $(seq 150); do
    state=$(sinfo --noheader --format=%t 2>/dev/null || true)
    case $state in
    idle | mix | alloc) exit 0 ;;
    # A controller that was killed gives numbers of forgotten jobs to new ones; the node then wants an operator.
    drain* | drng* | down*) scontrol update NodeName="$(hostname -s)" State=RESUME 2>/dev/null || true ;;
    esac
    sleep 0.1
done
echo "start.sh: the cluster did not come up within 15 s; see $folder/slurmctld.log and $folder/slurmd.log" >&2
tail -n 5 "$folder"/slurm*.log "$folder"/slurm*.out >&2
exit 1
