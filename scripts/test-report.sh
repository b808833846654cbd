#!/usr/bin/env bash
# Makes runs of several kinds and opens their pages in headless Chromium: no console error, every figure has a drawing, tables sort.
# Screenshots stay in target/report-screenshots. Needs the command (`make build`) and Python 3; installs Debian's Chromium if there
# is none.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v chromedriver >/dev/null || ! command -v chromium >/dev/null; then
    as_root=$([ "$(id -u)" = 0 ] || echo sudo)
    $as_root apt-get update -qq
    $as_root apt-get install -y -qq --no-install-recommends chromium chromium-driver fonts-dejavu-core >/dev/null
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
clipood=$PWD/target/release/clipood
quiet() {
    "$@" >"$work/log" 2>&1 || {
        cat "$work/log"
        exit 1
    }
}
run() {
    quiet "$clipood" run "$1" --data "$work/data" --store "$work/store" --run "$work/$2" "${@:3}"
}

# The demo with curves, and a run to compare it with.
run demo demo --shots 1,2,4 --seeds 1,2
run demo other --shots 2 --seeds 1 --model demo --detectors mcm,max_logit,knn
quiet "$clipood" compare "$work/demo" "$work/other" --page "$work/compare.html"
# Dual-pattern methods with oracles: badges and hollow marks.
run demo dual --shots 2 --seeds 1 --methods zero-shot,dpcoop,linear-probe
# The images are gone.
quiet "$clipood" report "$work/demo" --store "$work/store" --data "$work/nowhere" --page "$work/no-images.html"
# Patches of two images.
stars=("$work"/data/demo/images/id/test/star/*)
quiet "$clipood" regions "${stars[@]:0:2}" --classes star,fish,house,tree,moon --out "$work/regions"
# A run that has only been planned, and one that has stopped before its metrics.
quiet "$clipood" plan demo --data "$work/data" --store "$work/store" --run "$work/planned" --shots 1 --seeds 3
quiet "$clipood" report "$work/planned" --store "$work/store" --data "$work/data" --page "$work/planned.html"
quiet "$clipood" worker "$work/planned" --data "$work/data" --store "$work/store" --stages extract,train
quiet "$clipood" report "$work/planned" --store "$work/store" --data "$work/data" --page "$work/unfinished.html"
# Blank and repeated class names, and an image that cannot be read.
mkdir -p "$work/own" "$work/manifests"
cp manifests/datasets/demo-*.toml "$work/manifests"
cp -r "$work/data/demo" "$work/own/demo"
sed -e 's/^generator.*$//' manifests/datasets/demo-id.toml >"$work/manifests/demo-id.toml"
classes=("$work"/own/demo/images/id/test/*)
first=$(basename "${classes[0]}")
second=$(basename "${classes[1]}")
printf '[class_names]\n"%s" = "star"\n"%s" = "star"\n' "$first" "$second" >>"$work/manifests/demo-id.toml"
images=("${classes[2]}"/*)
: >"${images[0]}"
quiet "$clipood" run demo --data "$work/own" --manifests "$work/manifests" --store "$work/store" --run "$work/names" --shots 1 --seeds 1

# Contact sheets: hits of a search, one image of which is gone, and images judged, one of which cannot be read.
cp -r "$work/data/demo/images/id/test" "$work/photos"
shown=("$work"/photos/*/*)
quiet "$clipood" search "a photo of a star" --image "${shown[0]}" --features "$work/store" --model demo \
    --data "$work/data" --manifests manifests/datasets --top 12 --page "$work/search.html"
quiet "$clipood" search "a photo of a fish" --features "$work/store" --model demo --data "$work/nowhere" --top 4 --page "$work/search-gone.html"
: >"${shown[1]}"
quiet "$clipood" detect "$work/photos" --classes star,fish,house,tree --top 3 --page "$work/detect.html"

python3 scripts/test_report.py target/report-screenshots \
    demo="$work/demo/report/index.html" dual="$work/dual/report/index.html" names="$work/names/report/index.html" \
    no-images="$work/no-images.html" planned="$work/planned.html" unfinished="$work/unfinished.html" compare="$work/compare.html" \
    search="$work/search.html" search-gone="$work/search-gone.html" detect="$work/detect.html" regions="$work/regions/index.html"
