#!/bin/bash
# A Slurm of two nodes, n1 and n2, on this machine: without systemd, cgroups and a database of accounts.
#
#   slurm.sh up                  start it; installs what is missing of Debian's packages
#   slurm.sh down                end it and all that runs on it; nothing is left
#   slurm.sh env                 print the exports that Slurm's commands need
#   slurm.sh lose NODE           the node is gone at once, with all that ran there
#   slurm.sh back NODE           it is started anew
#   slurm.sh kill NODE           its slurmd is killed; what ran there goes on
#   slurm.sh link NODE up|down   its network
#   slurm.sh comments TEXT       the site gives each job that is submitted this comment; without TEXT the user's own again
#   slurm.sh in NODE CMD...      run a command there
#
# SLURM_NUMBER (0 to 99) tells clusters apart that are up at the same time: addresses, ports and names follow from it.
# SLURM_ROOT is the folder of all its files.
#
# Each node has network, host name, mounts and processes of its own, so that nothing between nodes can go over `lo`.
set -euo pipefail
NUMBER=${SLURM_NUMBER:-0}
ROOT=${SLURM_ROOT:-${TMPDIR:-/tmp}/hpml-slurm-$NUMBER}
NET=10.77.$NUMBER
LINK=hs$NUMBER # names of network devices have 15 characters at most
BRIDGE=$LINK-bridge
PORT=$((26800 + NUMBER))
NODES="n1 n2"
export SLURM_CONF=$ROOT/slurm.conf

fail() {
  echo "slurm.sh: $*" >&2
  exit 1
}

# Fail with one sentence where this machine can't have a cluster; install what is missing.
require() {
  [ "$(id -u)" = 0 ] || fail "a cluster needs root, for namespaces and a network; run it as root, in a container for example"
  "$(dirname "${BASH_SOURCE[0]}")/../packages.sh" slurm || fail "Slurm can't be installed; see above"
  unshare --net --uts --mount --pid --fork --mount-proc true 2>/dev/null ||
    fail "namespaces of network, mounts and processes can't be made here; in a container it takes --privileged"
  ip link add $BRIDGE type bridge forward_delay 0 2>/dev/null ||
    fail "a network bridge named $BRIDGE can't be made here (is a cluster of that number up? give another SLURM_NUMBER)"
}

configure() {
  mkdir -p "$ROOT"/{controller,n1,n2,log}
  mungekey --create --keyfile="$ROOT/munge.key"
  printf '127.0.0.1 localhost\n%s.1 n1\n%s.2 n2\n%s.254 %s\n' $NET $NET $NET "$(hostname -s)" >"$ROOT/hosts"
  echo 'CgroupPlugin=disabled' >"$ROOT/cgroup.conf"
  : >"$ROOT/plugstack.conf"
  cat >"$ROOT/job_submit.lua" <<LUA
function slurm_job_submit(job, partitions, user)
  local file = io.open("$ROOT/comments")
  if file then
    job.comment = file:read("*a")
    file:close()
  end
  return slurm.SUCCESS
end
function slurm_job_modify() return slurm.SUCCESS end
return slurm.SUCCESS
LUA
  # cred_expire: else a requeued job waits for 120 s; config_overrides: CPUs are as said here, whatever there are
  cat >"$ROOT/slurm.conf" <<CONF
ClusterName=hpml$NUMBER
SlurmctldHost=$(hostname -s)($NET.254)
SlurmctldPort=$PORT
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$ROOT/munge.socket,cred_expire=5
StateSaveLocation=$ROOT/controller
SlurmdSpoolDir=$ROOT/%n/spool
SlurmctldPidFile=$ROOT/controller/pid
SlurmdPidFile=$ROOT/%n/pid
SlurmctldLogFile=$ROOT/log/slurmctld
SlurmdLogFile=$ROOT/log/slurmd.%n
PlugStackConfig=$ROOT/plugstack.conf
JobSubmitPlugins=lua
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$ROOT/log/jobs
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0
ReturnToService=2
KillWait=2
SlurmdTimeout=10
SlurmctldTimeout=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n1 NodeHostname=n1 NodeAddr=$NET.1 Port=26818 CPUs=2 State=UNKNOWN
NodeName=n2 NodeHostname=n2 NodeAddr=$NET.2 Port=26818 CPUs=2 State=UNKNOWN
PartitionName=low Nodes=n1,n2 Default=YES DefaultTime=60 PriorityTier=1 PreemptMode=REQUEUE GraceTime=2
PartitionName=high Nodes=n1,n2 DefaultTime=60 PriorityTier=10 PreemptMode=OFF
CONF
}

# Start a node. Its first process outlives slurmd, which may be killed; with it everything there ends.
node() {
  local name=$1 address=$NET.${1#n} outer inner
  setsid unshare --net --uts --mount --pid --fork --kill-child --mount-proc \
    bash -c 'hostname "$0"; mount --bind "$1/hosts" /etc/hosts; ip link set lo up
      until ip link show eth0 >/dev/null 2>&1; do sleep 0.02; done
      ip addr add "$2/24" dev eth0; ip link set eth0 up
      until ip link show eth0 | grep -q LOWER_UP; do sleep 0.02; done
      slurmd -D -N "$0" & while :; do wait; sleep 1; done' \
    "$name" "$ROOT" "$address" >"$ROOT/log/$name" 2>&1 </dev/null &
  outer=$!
  until inner=$(tr -d ' ' <"/proc/$outer/task/$outer/children") && [ -n "$inner" ]; do
    kill -0 $outer || fail "node $name ended at once; see $ROOT/log/$name"
    sleep 0.02
  done
  echo $outer >"$ROOT/$name/outer"
  echo "$inner" >"$ROOT/$name/inner"
  ip link add "$LINK-$name" type veth peer name eth0 netns "$inner"
  ip link set "$LINK-$name" master $BRIDGE up
}

# Kill processes, and wait until they are dead; their parent may leave them as zombies.
finish() {
  local pid
  for pid in "$@"; do
    kill -9 "$pid" 2>/dev/null || true
    while grep -qs '^State:.[^Z]' "/proc/$pid/status"; do sleep 0.02; done
  done
}

lose() {
  finish $(cat "$ROOT/$1/inner" "$ROOT/$1/outer" 2>/dev/null)
  rm -f "$ROOT/$1/inner" "$ROOT/$1/outer"
  while ip link show "$LINK-$1" >/dev/null 2>&1; do
    ip link del "$LINK-$1" 2>/dev/null || sleep 0.02
  done
}

inside() {
  local name=$1
  shift
  [ -e "$ROOT/$name/inner" ] || fail "node $name is not up"
  exec nsenter --all --target "$(cat "$ROOT/$name/inner")" "$@"
}

up() {
  [ -e "$ROOT" ] && fail "there is $ROOT; slurm.sh down first"
  require
  configure
  trap 'down' EXIT
  ip addr add $NET.254/24 dev $BRIDGE
  ip link set $BRIDGE up
  munged --force --key-file="$ROOT/munge.key" --socket="$ROOT/munge.socket" --pid-file="$ROOT/munge.pid" \
    --log-file="$ROOT/log/munged" --seed-file="$ROOT/munge.seed"
  setsid slurmctld -D >"$ROOT/log/slurmctld.out" 2>&1 </dev/null &
  echo $! >"$ROOT/controller/started"
  local name
  for name in $NODES; do node "$name"; done
  for _ in $(seq 300); do
    if [ "$(sinfo -h -p low -t idle -o %D 2>/dev/null)" = 2 ]; then
      trap - EXIT
      return
    fi
    sleep 0.1
  done
  tail -n 3 "$ROOT"/log/* >&2
  fail "the nodes were not up after 30 s"
}

down() {
  local name
  for name in $NODES; do lose "$name"; done
  finish $(cat "$ROOT/controller/started" "$ROOT/munge.pid" 2>/dev/null)
  ip link del $BRIDGE 2>/dev/null || true
  rm -rf "$ROOT"
}

PATH=$PATH:/usr/sbin:/sbin
case ${1:-}:$# in
  up:1) up ;;
  down:1) down ;;
  env:1) echo "export SLURM_CONF=$SLURM_CONF" ;;
  lose:2) lose "$2" ;;
  back:2) lose "$2" && node "$2" ;;
  kill:2) inside "$2" kill -9 "$(cat "$ROOT/$2/pid")" ;;
  link:3) ip link set "$LINK-$2" "$3" ;;
  comments:1) rm -f "$ROOT/comments" ;;
  comments:2) printf %s "$2" >"$ROOT/comments" ;;
  in:*) inside "${@:2}" ;;
  *) sed -n '2,/^set/{/^#/p}' "$0"; exit 2 ;;
esac
