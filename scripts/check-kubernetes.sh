#!/usr/bin/env bash
# Validates the manifests that the tests of clipood-launch compare with, strictly (no unknown field) and without a cluster, and lints
# the Dockerfile. Installs kubernetes-validate and hadolint below target/. Usage: scripts/check-kubernetes.sh
set -euo pipefail
cd "$(dirname "$0")/.."

venv=$PWD/target/check-kubernetes
if [ ! -x "$venv/bin/kubernetes-validate" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check -r scripts/kubernetes-requirements.txt
fi
# The oldest release whose Jobs have every field that is used, and the newest known one.
for version in 1.31.0 1.37.0; do
    "$venv/bin/kubernetes-validate" --strict --kubernetes-version "$version" crates/clipood-launch/tests/data/*.yaml
done
"$venv/bin/hadolint" Dockerfile
echo "make check-kubernetes: manifests and Dockerfile are valid"
