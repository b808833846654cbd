#!/usr/bin/env bash
# Detectors over 100,000 images and metrics of 10^7 scores beside numpy, PyTorch, faiss and scikit-learn.
# PEERS_VENV names a virtual environment that holds benches/peers/requirements.txt already.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${PEERS_VENV:-.venv-peers}
if [ -z "${PEERS_VENV:-}" ]; then
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r benches/peers/requirements.txt
fi
"$venv/bin/python" benches/peers/score.py target/release/examples/score_speed target/release/examples/metrics_speed
"$venv/bin/python" benches/peers/stream.py target/release/examples/stream_speed
