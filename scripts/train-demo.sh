#!/usr/bin/env bash
# Trains the demo CLIP. The allocator settings keep freed memory in the process: without them a third of the time goes
# into page faults.
set -euo pipefail
cd "$(dirname "$0")/.."
export MALLOC_MMAP_THRESHOLD_=4000000000 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=500000000
cargo build --release --locked -p clipood-demo --features train --bin train-demo-clip
exec target/release/train-demo-clip "$@"
