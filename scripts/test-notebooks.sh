#!/usr/bin/env bash
# Makes a small run and executes every notebook on it. Needs the command (`make build`) and Python 3.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ ! -x .venv-notebooks/bin/python ]; then
    python3 -m venv .venv-notebooks
fi
.venv-notebooks/bin/pip install --quiet --disable-pip-version-check -r scripts/notebooks-requirements.txt
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
target/release/clipood run demo --shots 1 --seeds 1 --methods zero-shot,coop --store "$work/store" --run "$work/run" >"$work/log" 2>&1 || {
    cat "$work/log"
    exit 1
}
RUN="$work/run" STORE="$work/store" .venv-notebooks/bin/python scripts/execute_notebooks.py "$work/executed"
