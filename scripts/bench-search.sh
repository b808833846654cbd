#!/usr/bin/env bash
# Exact search over a million features beside faiss. ROWS and ROUNDS override the sizes.
# PEERS_VENV names a virtual environment that holds benches/peers/requirements.txt already.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${PEERS_VENV:-.venv-peers}
if [ -z "${PEERS_VENV:-}" ]; then
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r benches/peers/requirements.txt
fi
"$venv/bin/python" benches/peers/search.py target/release/examples/search_speed --rows "${ROWS:-1000000}" --rounds "${ROUNDS:-5}"
