#!/usr/bin/env bash
# What there is to know about a GPU machine, in one call under 9 minutes: scripts/gpu-check.sh [--cpu] FOLDER
#
# Correctness first (against the CPU and PyTorch), then speed beside PyTorch, a short table last; full logs go into FOLDER.
# Needs a command built with `--features cuda` (CLIPOOD, by default target/release/clipood) and a Python with PyTorch
# (PYTHON, by default python3). --cpu is a dry run: the same steps, as small as they get, on the CPU.
# LIMIT is the time for everything in seconds. A step that fails or runs out of time does not stop those after it.
set -uo pipefail
cpu=
if [ "${1-}" = --cpu ]; then
    cpu=1
    shift
fi
if [ $# -ne 1 ]; then
    echo "usage: scripts/gpu-check.sh [--cpu] FOLDER" >&2
    exit 2
fi
mkdir -p "$1" && out=$(cd "$1" && pwd) || exit 2
cd "$(dirname "$0")/.." || exit 2
clipood=${CLIPOOD:-target/release/clipood}
python=${PYTHON:-python3}
limit=${LIMIT:-520}
if [ ! -x "$clipood" ]; then
    echo "no command $clipood: cargo build --release --locked -p clipood --features cuda, or set CLIPOOD" >&2
    exit 2
fi
"$python" -c 'import torch' 2>/dev/null || {
    echo "no PyTorch in $python: set PYTHON" >&2
    exit 2
}
rm -f "$out"/*.jsonl "$out"/*.log "$out"/*.txt
rm -rf "$out/store" "$out/run-cpu" "$out/run-device" "$out/resume" "$out/stand-in" "$out"/model-*
steps=$out/steps.txt
: >"$steps"

if [ "$cpu" ]; then
    device=cpu torch_device=cpu torch_compile=
    models="ViT-B-32" towers="ViT-B-32" dtypes=f32 half=f32 trained=f32 batches=2 seconds=0.1 twice=cpu:2 classes=6 few=6 timed=1 pictures=8
    methods=coop,sct val=1 ood=0.01
else
    device=cuda:0 torch_device=cuda torch_compile=--compile
    models="ViT-B-16 ViT-L-14 RN50 ViT-B-32" towers="ViT-B-32 RN50" dtypes=f32,tf32,f16,bf16 half=bf16 trained=f16 batches=64,256 seconds=1
    twice=cuda:0,cuda:0 classes=1000 few=20 timed=20 pictures=1024 methods=coop,locoop,sct val=5 ood=0.1
fi

# step NAME SECONDS OUTPUT COMMAND...: at most so long, and never past the limit.
step() {
    local name=$1 most=$2 output=$3 code start=$SECONDS left=$((limit - SECONDS))
    shift 3
    if [ $left -lt 5 ]; then
        echo "skipped $name: out of time" >>"$steps"
        return
    fi
    timeout -k 5 $((left < most ? left : most)) "$@" >"$out/$output" 2>"$out/$name.log"
    code=$?
    case $code in
    0) echo "ok $name, $((SECONDS - start)) s" >>"$steps" ;;
    124 | 137) echo "out of time $name after $((SECONDS - start)) s" >>"$steps" ;;
    *) echo "failed $name with $code after $((SECONDS - start)) s, see $name.log" >>"$steps" ;;
    esac
    tail -n 1 "$steps" >&2
}

{
    date -u
    uname -a
    nproc
    nvidia-smi 2>&1
    "$clipood" --version
    "$python" -c 'import sys, torch; print(sys.version, torch.__version__, torch.version.cuda)'
} >"$out/machine.txt" 2>&1

# Correctness: towers with local features, prompt learning, the demo, a killed training.
for model in $towers; do
    step agreement-$model 60 agreement-$model.jsonl "$clipood" bench extract --model "$model" --devices "$device" --dtypes "$dtypes" \
        --batches 8 --seconds 0.1 --local --export "$out/model-$model"
    step torch-agreement-$model 40 torch-agreement-$model.jsonl "$python" benches/peers/gpu_encode.py --device "$torch_device" \
        --models "$model" --export "$out/model-$model"
done
step prompt-agreement 60 prompt-agreement.jsonl "$clipood" bench prompt --model ViT-B-32 --devices "$device" --dtypes "$dtypes" \
    --methods "$methods" --classes $few --images 4 --steps 1
for name in cpu device; do
    where=cpu
    if [ $name = device ]; then where=$device; fi
    # Two stores, so that the second run cannot read what the first one computed.
    step demo-$name 60 demo-$name.txt "$clipood" run demo --methods zero-shot --devices "$where" --store "$out/store/$name" \
        --run "$out/run-$name"
done
step resume 60 resume.jsonl "$python" benches/peers/gpu_resume.py "$clipood" "$device" "$out/resume"
rm -rf "$out/resume"

# Speed. The most telling measurements come first.
for model in $models; do
    if [ "$model" = "${models%% *}" ]; then
        step prompt 40 prompt.jsonl "$clipood" bench prompt --model "$model" --devices "$device" --dtypes "$trained" \
            --methods "$methods" --classes $classes --steps $timed
        step torch-prompt 50 torch-prompt.jsonl "$python" benches/peers/gpu_prompt.py --device "$torch_device" --model "$model" \
            --dtypes "$trained" --methods "$methods" --classes $classes --steps $timed
    fi
    step extract-$model 30 extract-$model.jsonl "$clipood" bench extract --model "$model" --devices "$device" \
        --dtypes "$half" --batches "$batches" --seconds "$seconds"
    step torch-extract-$model 55 torch-extract-$model.jsonl "$python" benches/peers/gpu_encode.py --device "$torch_device" \
        --models "$model" --dtypes "$half" --batches "$batches" --seconds "$seconds" $torch_compile
    if [ "$model" = "${models%% *}" ]; then
        step two-workers 20 extract-two-workers.jsonl "$clipood" bench extract --model "$model" --devices "$twice" \
            --dtypes "$half" --batches "${batches##*,}" --seconds "$seconds"
        if "$python" benches/peers/gpu_pictures.py "$out/pictures" $pictures >"$out/pictures.log" 2>&1; then
            step decode 30 extract-decode.jsonl "$clipood" bench extract --model "$model" --devices "$twice" --dtypes "$half" \
                --batches "${batches##*,}" --seconds "$seconds" --images "$out/pictures"
            step start 30 start.jsonl "$python" benches/peers/gpu_start.py "$clipood" "$device" "$out" --dtypes "$half" \
                --model "$out/model-${towers%% *}" --image "$out/pictures/00000.jpg"
            rm -rf "$out/pictures"
        fi
    fi
done
# A tenth of the ImageNet stand-in through every stage; it needs numpy, Pillow and Python 3.11.
if [ $((limit - SECONDS)) -gt 20 ] && "$python" -c 'import numpy, PIL, tomllib' 2>>"$out/stand-in.log"; then
    step stand-in 150 stand-in.jsonl "$python" benches/peers/gpu_stand_in.py "$clipood" "$twice" "$out/stand-in" --dtype "$half" \
        --model "$out/model-${towers%% *}" --val $val --ood $ood
    rm -rf "$out/stand-in"
else
    echo "skipped stand-in: no time, or no numpy, Pillow and Python 3.11" >>"$steps"
fi
rm -rf "$out"/model-*

"$python" benches/peers/gpu_table.py "$out" | tee "$out/table.txt"
exit "${PIPESTATUS[0]}"
