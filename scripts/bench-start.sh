#!/usr/bin/env bash
# From the start of a process to the similarity of one image and three texts with a ViT-B/16, beside open_clip and onnxruntime.
# PEERS_VENV names a virtual environment that holds benches/peers/requirements.txt already.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${PEERS_VENV:-.venv-peers}
if [ -z "${PEERS_VENV:-}" ]; then
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r benches/peers/requirements.txt
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$venv/bin/python" benches/peers/start.py "$work" "${ROUNDS:-5}" target/release/clipood
