#!/usr/bin/env bash
# Images a second of the image tower beside PyTorch and onnxruntime, on the same parameters and images.
set -euo pipefail
cd "$(dirname "$0")/.."
batch=${BATCH:-16}
rounds=${ROUNDS:-9}
python=${PEERS_PYTHON:-.venv-peers/bin/python}
if [ ! -x "$python" ]; then
    python3 -m venv .venv-peers
    .venv-peers/bin/pip install --quiet --disable-pip-version-check -r benches/peers/requirements.txt
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" benches/peers/encode_model.py "$work" "$batch" >"$work/log" 2>&1 || {
    cat "$work/log"
    exit 1
}
clipood=target/release/examples/encode_speed
"$python" benches/peers/encode.py "$work" "$rounds" \
    "PyTorch fp32=$python benches/peers/encode_torch.py $work {features} float32" \
    "onnxruntime fp32=$python benches/peers/encode_onnx.py $work {features}" \
    "clipood f32=$clipood $work $work/pixels.f32 {features}" \
    "PyTorch bf16=$python benches/peers/encode_torch.py $work {features} bfloat16"
