#!/usr/bin/env bash
# A SLURM cluster of one node on the loopback interface, for tests; needs root and Debian's slurm-wlm and munge.
#   setup/slurm_one_node.sh install          the packages, where apt-get and root are to be had; otherwise says why not
#   setup/slurm_one_node.sh start FOLDER    configuration, state and logs go to FOLDER; prints the path of slurm.conf
#   setup/slurm_one_node.sh stop FOLDER
set -euo pipefail

verb=${1:?install, start or stop}
[ "$verb" = install ] || folder=$(realpath -m "${2:?folder}")

install() {
	for program in slurmctld slurmd munged sbatch; do
		command -v $program >/dev/null && continue
		if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
			echo "SLURM is not installed, and only root on Debian or Ubuntu can be helped: apt install slurm-wlm munge"
			return
		fi
		echo "installing slurm-wlm and munge"
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq slurm-wlm munge >/dev/null
		return
	done
}

stop() {
	export SLURM_CONF=$folder/slurm.conf
	if [ -s "$folder/slurmctld.pid" ] && squeue -h >/dev/null 2>&1; then
		squeue -h -o %A | sort -u | xargs -r scancel || true # a step whose node daemon is gone would wait for it for ever
		for _ in $(seq 150); do [ -z "$(squeue -h 2>/dev/null)" ] && break; sleep 0.1; done
	fi
	for name in slurmd slurmctld munged; do
		if [ -s "$folder/$name.pid" ]; then
			pid=$(cat "$folder/$name.pid")
			if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$name" ]; then
				kill "$pid"
				for _ in $(seq 50); do [ -d "/proc/$pid" ] || break; sleep 0.1; done
				[ -d "/proc/$pid" ] && kill -9 "$pid"
			fi
			rm -f "$folder/$name.pid"
		fi
	done
	return 0
}

start() {
	mkdir -p "$folder"/{state,spool,munge}
	chmod 700 "$folder/munge"
	if [ ! -s "$folder/munge/key" ]; then
		(umask 077; dd if=/dev/urandom of="$folder/munge/key" bs=1024 count=1 status=none)
	fi
	local socket=$folder/munge/socket host cores memory
	host=$(hostname -s) cores=$(env -u OMP_NUM_THREADS nproc)
	memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.8)}' /proc/meminfo)
	munged --force --key-file "$folder/munge/key" --socket "$socket" --pid-file "$folder/munged.pid" \
		--log-file "$folder/munged.log" --seed-file "$folder/munge/seed"
	# A requeued job waits until the credential of its first start has expired: 10 s instead of SLURM's 120.
	cat >"$folder/slurm.conf" <<CONF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket=$socket,cred_expire=10
CryptoType=crypto/munge
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=1,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobRequeue=1
ReturnToService=2
KillWait=5
MinJobAge=600
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cores RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
	export SLURM_CONF=$folder/slurm.conf
	slurmctld
	slurmd
	for _ in $(seq 100); do
		[ "$(sinfo -h -o %T 2>/dev/null)" = idle ] && break
		sleep 0.2
	done
	if [ "$(sinfo -h -o %T)" != idle ]; then
		echo "the node did not come up:" >&2
		tail -n 20 "$folder"/slurmctld.log "$folder"/slurmd.log >&2
		stop
		exit 1
	fi
	echo "$SLURM_CONF"
}

"$verb"
