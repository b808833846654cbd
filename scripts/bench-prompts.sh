#!/usr/bin/env bash
# A prompt training step beside PyTorch: the reference's own way, and PyTorch doing what clipood does.
# PEERS_VENV names a virtual environment that holds benches/peers/requirements.txt already.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${PEERS_VENV:-.venv-peers}
if [ -z "${PEERS_VENV:-}" ]; then
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r benches/peers/requirements.txt
fi
# shellcheck disable=SC2086
"$venv/bin/python" benches/peers/prompt_step.py target/release/clipood ${CLASSES:-100 250 1000}
