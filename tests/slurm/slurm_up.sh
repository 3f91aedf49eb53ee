#!/usr/bin/env bash
# A real Slurm on this machine for the tests, without systemd: two nodes n1 and n2, each a slurmd with a port of its own.
#   slurm_up.sh up FOLDER     install what is missing (Debian, root), configure, start, wait until the nodes are idle
#   slurm_up.sh down FOLDER   cancel the jobs and stop what was started there
# Partitions: debug (the default), low and high; high pushes low's jobs out, which are requeued.
# cred_expire is also how long a requeued job waits; less than 5 s is taken for the default of 2 minutes.
# Everything lies in FOLDER: export SLURM_CONF=FOLDER/slurm.conf to use it. Ports are free ones and jobs are numbered
# from anywhere, so that several can run on one machine.
set -euo pipefail
action=${1:?up or down} folder=${2:?a folder}
export SLURM_CONF=$folder/slurm.conf
nodes=(n1 n2)

running() { [ -s "$1" ] && kill -0 "$(<"$1")" 2>/dev/null; }

install_slurm() {
    local tool
    for tool in slurmctld slurmd sbatch munged; do
        command -v "$tool" >/dev/null || break
    done
    command -v "$tool" >/dev/null && return
    # the packages would start daemons of their own
    local policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        trap "rm -f $policy" EXIT
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
    fi
    apt-get update -qq || true
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        slurmctld slurmd slurm-client munge
}

free_ports() { # all held at once, so that they differ
    python3 - "$1" <<'END'
import socket, sys
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(one.getsockname()[1] for one in held))
END
}

configure() {
    local host node ports
    host=$(hostname -s)
    read -ra ports <<<"$(free_ports $((1 + ${#nodes[@]})))"
    {
        printf '%s\n' "ClusterName=tests" "SlurmctldHost=$host(127.0.0.1)" "SlurmctldPort=${ports[0]}" \
            "FirstJobId=$((RANDOM % 30000 + 100))" \
            "SlurmUser=root" "SlurmdUser=root" "AuthType=auth/munge" \
            "AuthInfo=socket=$folder/munge.socket,cred_expire=5" \
            "SlurmctldPidFile=$folder/slurmctld.pid" "SlurmdPidFile=$folder/%n.pid" \
            "SlurmctldLogFile=$folder/slurmctld.log" "SlurmdLogFile=$folder/%n.log" \
            "StateSaveLocation=$folder/state" "SlurmdSpoolDir=$folder/spool/%n" \
            "ProctrackType=proctrack/linuxproc" "TaskPlugin=task/none" "MpiDefault=none" \
            "SwitchType=switch/none" "JobAcctGatherType=jobacct_gather/none" \
            "SlurmdParameters=config_overrides" "ReturnToService=2" \
            "SelectType=select/cons_tres" "SelectTypeParameters=CR_Core" \
            "SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1" \
            "PreemptType=preempt/partition_prio" "PreemptMode=REQUEUE" "JobRequeue=1" "KillWait=30" "MinJobAge=600"
        ports=("${ports[@]:1}")
        for node in "${nodes[@]}"; do
            printf 'NodeName=%s NodeHostname=%s NodeAddr=127.0.0.1 Port=%d CPUs=8 RealMemory=8000\n' \
                "$node" "$host" "${ports[0]}"
            ports=("${ports[@]:1}")
        done
        printf 'PartitionName=%s Nodes=ALL State=UP %s\n' \
            debug "Default=YES PriorityTier=1 PreemptMode=off" \
            low "PriorityTier=1 PreemptMode=REQUEUE GraceTime=60" \
            high "PriorityTier=9 PreemptMode=off"
    } >"$SLURM_CONF"
}

up() {
    mkdir -p "$folder"/{state,spool/n1,spool/n2,munge}
    chmod 755 "$folder"
    chmod 700 "$folder/munge"
    install_slurm
    configure
    for node in "${nodes[@]}"; do # the first node is where processes meet
        echo "127.0.0.1 $node # slurm tests in $folder" >>/etc/hosts
    done
    if ! running "$folder/munge/pid"; then
        (umask 077 && head -c 1024 /dev/urandom >"$folder/munge/key")
        munged --force --key-file="$folder/munge/key" --socket="$folder/munge.socket" --pid-file="$folder/munge/pid" \
            --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
    fi
    running "$folder/slurmctld.pid" || slurmctld -c
    for node in "${nodes[@]}"; do
        running "$folder/$node.pid" || slurmd -N "$node"
    done
    for _ in $(seq 150); do
        [ "$(sinfo -h -N -p debug -t idle -o %N 2>/dev/null | wc -l)" -eq ${#nodes[@]} ] && return
        sleep 0.2
    done
    tail -n 5 "$folder"/*.log >&2
    echo "the nodes don't come up" >&2
    return 1
}

down() {
    if running "$folder/slurmctld.pid"; then
        timeout 20 scancel --user=root || true
        for _ in $(seq 100); do
            [ -z "$(timeout 20 squeue -h)" ] && break
            sleep 0.2
        done
    fi
    local file pid
    for file in "$folder"/n?.pid "$folder/slurmctld.pid" "$folder/munge/pid"; do
        [ -s "$file" ] || continue
        pid=$(<"$file")
        kill "$pid" 2>/dev/null || true
        for _ in $(seq 50); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
    done
    # not replaced: the file may be mounted
    grep -vF "# slurm tests in $folder" /etc/hosts >"$folder/hosts" && cat "$folder/hosts" >/etc/hosts
}

"$action"
