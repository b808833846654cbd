#!/usr/bin/env bash
# Images a second of the image tower beside PyTorch and onnxruntime, on the same parameters and images.
# PEERS_VENV names a virtual environment that holds benches/peers/requirements.txt already.
set -euo pipefail
cd "$(dirname "$0")/.."
export MODELS=${MODELS:-ViT-B-16-quickgelu RN50-quickgelu}
export BATCHES=${BATCHES:-1 16}
venv=${PEERS_VENV:-.venv-peers}
if [ -z "${PEERS_VENV:-}" ]; then
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r benches/peers/requirements.txt
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$venv/bin/python" benches/peers/encode.py "$work" "${ROUNDS:-9}" target/release/examples/encode_speed
