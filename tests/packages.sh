#!/bin/bash
# Debian's packages that some tests need, installed before those tests begin: packages.sh chromium|slurm ...
# Elsewhere it says in one line what to install: without it those tests are skipped, or fail where that is no excuse.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
for name in "$@"; do
  case $name in
    chromium) needed=chromium packages=chromium ;;
    slurm)
      needed="slurmctld slurmd sbatch munged mungekey ip unshare nsenter"
      packages="slurmctld slurmd slurm-client munge iproute2 util-linux"
      ;;
    *) echo "packages.sh: there is no $name; choose from chromium, slurm" >&2; exit 2 ;;
  esac
  # one at a time: a second call waits for the first, then finds all there
  exec 9>"/tmp/hpml-bench-packages-$(id -u).lock"
  flock 9
  missing=
  for command in $needed; do
    command -v "$command" >/dev/null || missing+=" $command"
  done
  if [ "$name" = chromium ] && command -v chromium-browser google-chrome >/dev/null; then missing=; fi
  if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
      echo "packages.sh: for tests that need $name there is no$missing here; as root on Debian: apt-get install $packages" >&2
    else
      log=$(mktemp)
      { { apt-get update -q || { sleep 20; apt-get update -q; }; } &&
        DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -qy --no-install-recommends $packages; } \
        </dev/null >"$log" 2>&1 || { tail -n 5 "$log" >&2; echo "packages.sh: apt-get can't install $packages" >&2; exit 1; }
      rm "$log"
    fi
  fi
  flock -u 9
done
