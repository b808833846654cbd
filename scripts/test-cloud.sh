#!/usr/bin/env bash
# Object stores for real: the conformance suite and whole runs with killed workers on two servers that speak the protocols of S3
# and Azure Blob Storage over HTTP (moto and Azurite, installed below target/). Usage: scripts/test-cloud.sh
set -euo pipefail
cd "$(dirname "$0")/.."

work=$PWD/target/test-cloud
mkdir -p "$work"
if [ ! -x "$work/venv/bin/python" ]; then
    python3 -m venv "$work/venv"
fi
# Each time, because an environment that is kept may lack what was added since.
"$work/venv/bin/pip" install -q --disable-pip-version-check -r scripts/cloud-requirements.txt
if [ ! -x "$work/node/node_modules/.bin/azurite-blob" ]; then
    npm install --silent --no-audit --no-fund --prefix "$work/node" azurite@3.37.0
fi
python=$work/venv/bin/python

free_port() { $python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
s3_port=$(free_port)
az_port=$(free_port)
data=$(mktemp -d "$work/run.XXXXXX")
"$work/venv/bin/moto_server" -H 127.0.0.1 -p "$s3_port" > "$data/moto.log" 2>&1 &
"$work/node/node_modules/.bin/azurite-blob" --blobHost 127.0.0.1 --blobPort "$az_port" --location "$data/azurite" \
    --skipApiVersionCheck --silent > "$data/azurite.log" 2>&1 &
end() {
    code=$?
    if [ $code -ne 0 ]; then tail -n 20 "$data"/*.log >&2; fi
    # Their files can be removed once nobody writes them: SIGKILL and wait, since on SIGTERM Azurite first saves its state.
    for child in $(jobs -p); do kill -9 "$child" 2> /dev/null || true; done
    wait 2> /dev/null || true
    rm -rf "$data"
    exit $code
}
trap end EXIT

# Azurite's account and key are public constants of the emulator.
export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_REGION=us-east-1 AWS_ALLOW_HTTP=true
export AWS_ENDPOINT=http://127.0.0.1:$s3_port
export AZURE_STORAGE_USE_EMULATOR=true AZURE_ALLOW_HTTP=true AZURITE_BLOB_STORAGE_URL=http://127.0.0.1:$az_port
export AZURE_STORAGE_ACCOUNT_NAME=devstoreaccount1
export AZURE_STORAGE_ACCOUNT_KEY=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==
$python scripts/cloud.py create

# The selection of `make test`, so that nothing is built twice.
cargo test --release --locked --workspace --features clipood-demo/train --no-run
clipood=target/release/clipood
recipe=$data/cloud.toml
cat > "$recipe" << 'RECIPE'
name = "cloud"
model = "demo"
methods = ["zero-shot", "coop"]
shots = [1]
seeds = [1]
detectors = ["mcm", "gl_mcm"]

[data]
id = "demo-id"
ood = ["demo-near"]

[train]
views = 1
epochs = 2

[engine]
shard_bytes = 100_000
RECIPE
tables() { "$clipood" report "$1" | grep -v "$1"; }

echo "the same run on local disk, uninterrupted"
"$clipood" run "$recipe" --run "$data/run" --store "$data/store" > "$data/local.log" 2>&1
tables "$data/run" > "$data/local.txt"

for place in s3://clipood az://clipood; do
    echo "$place: conformance"
    # With the features of `make test`, so that nothing is built again.
    CLIPOOD_TEST_STORE=$place/conformance cargo test --release --locked --workspace --features clipood-demo/train \
        --test conformance the_named_store -- --ignored

    echo "$place: two workers, one killed and started again"
    run=$place/run
    store=$place/store
    "$clipood" plan "$recipe" --run "$run" --store "$store" > "$data/plan.log" 2>&1
    worker=("$clipood" worker "$run" --store "$store" --count 2 --index)
    "${worker[@]}" 0 > "$data/worker-0.log" 2>&1 &
    first=$!
    "${worker[@]}" 1 > "$data/worker-1.log" 2>&1 &
    second=$!
    # Once it has committed something it is in the middle of its work.
    $python scripts/cloud.py wait "$store/features"
    kill -9 $second
    wait $second || true
    "${worker[@]}" 1 > "$data/worker-1.log" 2>&1
    wait $first
    "$clipood" status "$run" --store "$store" --audit
    tables "$run" > "$data/remote.txt"
    diff "$data/local.txt" "$data/remote.txt"

    echo "$place: a finished run has nothing to do"
    "$clipood" run "$recipe" --run "$run" --store "$store" > "$data/again.log" 2>&1
    if grep -E "^ *(extract|score|train) +[0-9]" "$data/again.log"; then
        echo "$place: work was done again" >&2
        exit 1
    fi
done
echo "s3://clipood: eight workers over all stages, with a grid of prompts, killed at random"
grid=$data/grid.toml
sed -e 's/name = "cloud"/name = "grid"/' -e 's/"coop"\]/"coop", "locoop"]/' -e 's/shots = \[1\]/shots = [1, 2]/' \
    -e 's/"gl_mcm"\]/"gl_mcm", "knn:k=1"]/' "$recipe" > "$grid"
"$clipood" run "$grid" --run "$data/grid" --store "$data/store" > "$data/grid.log" 2>&1
tables "$data/grid" > "$data/local.txt"
run=s3://clipood/grid
store=s3://clipood/grid-store
"$clipood" plan "$grid" --run "$run" --store "$store" > "$data/plan.log" 2>&1
LOGS=$data $python scripts/cloud.py workers "$clipood" "$run" "$store" 8 10
"$clipood" status "$run" --store "$store" --audit
tables "$run" > "$data/remote.txt"
diff "$data/local.txt" "$data/remote.txt"
# Images: every layout, on local disk, S3, Azure and an HTTP server that lists nothing.
layouts=$data/layouts
$python scripts/cloud_layouts.py make data/demo/images/id/test "$layouts"
for place in s3://clipood/layouts az://clipood/layouts; do
    $python scripts/cloud_layouts.py upload "$layouts" "$place"
done
http_port=$(free_port)
$python scripts/cloud_layouts.py serve "$layouts" "$http_port" > "$data/http.log" 2>&1 &
stores=()
for root in "$layouts" s3://clipood/layouts az://clipood/layouts "http://127.0.0.1:$http_port"; do
    name=${root%%:*}
    [ "$root" = "$layouts" ] && name=local
    $python scripts/cloud_layouts.py manifests "$data/manifests-$name" "$root"
    for layout in image-folder imglist table parquet webdataset; do
        sed "s/@layout@/$layout/" > "$data/layout.toml" << 'RECIPE'
name = "layout"
model = "demo"
methods = ["zero-shot"]
detectors = ["mcm"]

[data]
id = "@layout@"
ood = ["demo-near"]
RECIPE
        at=$data/layout-$name-$layout
        command=("$clipood" run "$data/layout.toml" --manifests "$data/manifests-$name" --run "$at" --store "$at-store")
        # What an HTTP server cannot do is refused and explained.
        if [ "$name-$layout" = http-image-folder ]; then
            if "${command[@]}" > "$data/refused.log" 2>&1; then exit 1; fi
            grep -q "does not list its files" "$data/refused.log"
            continue
        fi
        "${command[@]}" > "$data/layout.log" 2>&1 || { cat "$data/layout.log" >&2; exit 1; }
        stores+=("$data/layout-$name-$layout-store")
    done
done
$python scripts/cloud_layouts.py same "${stores[@]}"
echo "S3 and Azure: conformance, killed workers, equal tables, audits; images in every layout on every store"
