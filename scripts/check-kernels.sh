#!/usr/bin/env bash
# Compiles every kernel of clipood-cuda by NVRTC for the architectures named, by default those of A100, H100 and B200. Needs no
# GPU and no CUDA: NVRTC comes from pip, into an environment below target/.
set -euo pipefail
cd "$(dirname "$0")/.."

environment=target/nvrtc
if ! "$environment/bin/python" -c 'import nvidia' 2>/dev/null; then
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet --disable-pip-version-check 'nvidia-cuda-nvrtc>=13,<14'
fi
architectures=("$@")
if [ ${#architectures[@]} -eq 0 ]; then
    architectures=(sm_80 sm_90 sm_100)
fi
VIRTUAL_ENV="$PWD/$environment" cargo run --quiet --release --locked -p clipood-cuda --example compile_kernels -- "${architectures[@]}"
