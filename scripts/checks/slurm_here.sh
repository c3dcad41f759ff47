#!/usr/bin/env bash
# A Slurm of one node with two pretended GPUs, without systemd, in the folder $1: `start` or `stop`. Needs root, and
# Debian's slurm-wlm and munge. SLURM_CONF=$1/slurm.conf is what the programs of Slurm are to read.
set -euo pipefail
folder="$1" host="$(hostname -s)"

stop() {
    for name in slurmd slurmctld munged; do
        [ ! -s "$folder/run/$name.pid" ] || kill "$(cat "$folder/run/$name.pid")" 2>/dev/null || true
    done
}

start() {
    mkdir -p "$folder"/{state,spool,log,dev,run}
    chmod 755 "$folder"
    for number in 0 1; do
        [ -e "$folder/dev/nvidia$number" ] || mknod "$folder/dev/nvidia$number" c 195 "$number"
    done
    dd if=/dev/urandom of="$folder/munge.key" bs=1 count=1024 status=none
    chmod 400 "$folder/munge.key"
    cat > "$folder/slurm.conf" <<END
ClusterName=bench
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmctldPort=16817
SlurmdPort=16818
AuthType=auth/munge
AuthInfo=socket=$folder/run/munge.sock
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/run/slurmctld.pid
SlurmdPidFile=$folder/run/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
GresTypes=gpu
MpiDefault=none
KillWait=5
MaxArraySize=6
SchedulerParameters=sched_interval=2,bf_interval=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000 Gres=gpu:2 State=UNKNOWN
PartitionName=gpu Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
    printf "NodeName=$host Name=gpu File=$folder/dev/nvidia%d Flags=nvidia_gpu_env\n" 0 1 > "$folder/gres.conf"
    if dpkg --compare-versions "$(dpkg-query -W -f '${Version}' slurmd)" ge 24; then
        echo 'CgroupPlugin=disabled' > "$folder/cgroup.conf"
    else
        printf 'CgroupPlugin=cgroup/v1\nConstrainDevices=no\n' > "$folder/cgroup.conf"
    fi
    munged --key-file="$folder/munge.key" --socket="$folder/run/munge.sock" --pid-file="$folder/run/munged.pid" \
        --log-file="$folder/log/munged.log" --seed-file="$folder/run/munge.seed" --force
    export SLURM_CONF="$folder/slurm.conf"
    slurmctld
    slurmd
    for _ in $(seq 60); do
        [ "$(sinfo --noheader --format=%T)" != idle ] || return 0
        sleep 0.5
    done
    echo "Slurm does not come up: see $folder/log" >&2
    return 1
}

"$2"
