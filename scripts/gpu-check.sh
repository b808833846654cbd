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
rm -rf "$out/store" "$out/run-cpu" "$out/run-device"
steps=$out/steps.txt
: >"$steps"

if [ "$cpu" ]; then
    device=cpu torch_device=cpu torch_compile=
    models="ViT-B-32" dtypes=f32 half=f32 batches=2 seconds=0.1 twice=cpu:2 classes=6 few=6 timed=1 pictures=8
else
    device=cuda:0 torch_device=cuda torch_compile=--compile
    models="ViT-B-16 ViT-L-14 ViT-B-32" dtypes=bf16,f16,f32 half=bf16 batches=64,256 seconds=2 twice=cuda:0,cuda:0
    classes=1000 few=20 timed=10 pictures=1024
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

# Correctness.
step agreement 120 agreement.jsonl "$clipood" bench extract --model ViT-B-32 --devices "$device" --dtypes "${dtypes}" \
    --batches 8 --seconds 0.1 --local --export "$out/model"
step torch-agreement 60 torch-agreement.jsonl "$python" benches/peers/gpu_encode.py --device "$torch_device" --models ViT-B-32 \
    --export "$out/model"
rm -rf "$out/model"
step prompt-agreement 90 prompt-agreement.jsonl "$clipood" bench prompt --model ViT-B-32 --devices "$device" --dtypes "$dtypes" \
    --classes $few --images 4 --steps 1
for name in cpu device; do
    where=cpu
    if [ $name = device ]; then where=$device; fi
    # Two stores, so that the second run cannot read what the first one computed.
    step demo-$name 120 demo-$name.txt "$clipood" run demo --methods zero-shot --devices "$where" --store "$out/store/$name" \
        --run "$out/run-$name"
done

# Speed. The most telling measurements come first.
for model in $models; do
    step extract-$model 75 extract-$model.jsonl "$clipood" bench extract --model "$model" --devices "$device" \
        --dtypes "$dtypes" --batches "$batches" --seconds "$seconds"
    step torch-extract-$model 60 torch-extract-$model.jsonl "$python" benches/peers/gpu_encode.py --device "$torch_device" \
        --models "$model" --dtypes "$dtypes" --batches "$batches" --seconds "$seconds" $torch_compile
    if [ "$model" = "${models%% *}" ]; then
        step prompt 90 prompt.jsonl "$clipood" bench prompt --model "$model" --devices "$device" --dtypes "$half" \
            --classes $classes --steps $timed
        step torch-prompt 60 torch-prompt.jsonl "$python" benches/peers/gpu_prompt.py --device "$torch_device" --model "$model" \
            --dtypes "$half" --classes $classes --steps $timed
        step two-workers 45 extract-two-workers.jsonl "$clipood" bench extract --model "$model" --devices "$twice" \
            --dtypes "$half" --batches "${batches##*,}" --seconds "$seconds"
        if "$python" benches/peers/gpu_pictures.py "$out/pictures" $pictures >"$out/pictures.log" 2>&1; then
            step decode 45 extract-decode.jsonl "$clipood" bench extract --model "$model" --devices "$twice" --dtypes "$half" \
                --batches "${batches##*,}" --seconds "$seconds" --images "$out/pictures"
            rm -rf "$out/pictures"
        fi
    fi
done
# Where the time goes, kernel by kernel.
if [ ! "$cpu" ]; then
    CUBECL_DEBUG_OPTION=profile-medium CUBECL_DEBUG_LOG=$out/kernels.txt step kernels 40 kernels.out "$clipood" bench extract \
        --model ViT-B-16 --devices "$device" --dtypes bf16 --batches 256 --seconds 0.1
fi

"$python" benches/peers/gpu_table.py "$out" | tee "$out/table.txt"
exit "${PIPESTATUS[0]}"
