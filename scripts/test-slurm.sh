#!/usr/bin/env bash
# A real Slurm on this machine: one controller and three nodes on loopback, with keys, sockets and folders of their own below
# target/. Runs of the demo model are submitted to it, requeued, preempted, interrupted, cancelled and broken, and must end with the
# tables of a local run. Needs root (a Slurm without a user of its own) and Debian's or Ubuntu's packages, which it installs.
# Usage: scripts/test-slurm.sh
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" -ne 0 ]; then
    echo "make test-slurm: run it as root: slurmctld, slurmd and munged are started without a user of their own" >&2
    exit 1
fi
if ! command -v slurmctld > /dev/null || ! command -v munged > /dev/null; then
    # The packages would start services of the machine, which this test neither needs nor touches.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' > $policy
        chmod +x $policy
        trap 'rm -f $policy' EXIT
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends slurm-wlm munge > /dev/null
fi
# The selection of `make test`, so that nothing is built twice.
cargo build --release --locked --workspace --features clipood-demo/train --bin clipood
python3 scripts/slurm.py target/release/clipood target/test-slurm
