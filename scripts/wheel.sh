#!/usr/bin/env bash
# Builds a wheel that holds the command, in target/wheels, and tests it: installed into a fresh virtual environment it runs the demo
# in an empty folder. The build is linked against the C library GLIBC (2.28 by default) by zig, so that it starts on the login nodes
# of clusters that are some years old; GLIBC=native links against that of this machine, which needs no second build of everything.
# Usage: [GLIBC=2.28|native] scripts/wheel.sh
set -euo pipefail
cd "$(dirname "$0")/.."

work=$PWD/target/wheel
glibc=${GLIBC:-2.28}
if [ ! -x "$work/tools/bin/maturin" ]; then
    python3 -m venv "$work/tools"
    "$work/tools/bin/pip" install -q --disable-pip-version-check -r scripts/wheel-requirements.txt
fi
options=(--release --locked --out "$work/dist")
if [ "$glibc" != native ]; then
    options+=(--zig --compatibility "manylinux_${glibc/./_}")
fi
rm -rf "$work/dist"
PATH=$work/tools/bin:$PATH "$work/tools/bin/maturin" build "${options[@]}"
wheel=$(ls "$work"/dist/*.whl)
# What the wheel needs of the system, against the policies of manylinux.
"$work/tools/bin/auditwheel" show "$wheel"

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-index "$wheel"
mkdir "$folder/empty"
cd "$folder/empty"
"$folder/venv/bin/clipood" recipes
"$folder/venv/bin/clipood" run demo --shots 4 --methods zero-shot,coop --run run --store store > tables.txt
cat tables.txt
grep -q 'average' tables.txt
"$folder/venv/bin/clipood" status run --store store --audit
echo "make wheel: $(basename "$wheel"), $(($(stat -c %s "$wheel") / 1000000)) MB"
