#!/usr/bin/env bash
# Runs a small recipe and opens its tables with the libraries that notebooks use.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ ! -x .venv/bin/python ]; then
    python3 -m venv .venv
fi
.venv/bin/pip install --quiet --disable-pip-version-check -r scripts/requirements.txt
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
target/release/clipood run demo --shots 1 --methods zero-shot,dpcoop --store "$work/store" --run "$work/run" >"$work/log" 2>&1 || {
    cat "$work/log"
    exit 1
}
.venv/bin/python scripts/check_tables.py "$work/run" "$work/store"
