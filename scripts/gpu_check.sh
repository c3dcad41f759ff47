#!/usr/bin/env bash
# Measures a GPU, for comparison with simulated cards: docs/gpu-check.md. No network is used.
#
#   scripts/gpu_check.sh [--dry-run] [--quick] [DIR]     DIR: where everything goes, results/gpu_check
#
# A call takes ten minutes at most (GPU_CHECK_S=540 seconds, then it stops); the same command goes on until all is done.
# --dry-run says what would be done and what is missing; --quick takes one small model.
# Packages are taken from wheels/ (VRAM_BENCH_WHEELS), where they are not installed yet.
# Exit codes: 0 all done, 1 done, but look at problems.txt, 2 something is missing, 3 time is up: run it again.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

dry_run="" quick="" out="results/gpu_check"
for argument in "$@"; do
    case "$argument" in
        --dry-run) dry_run=1 ;;
        --quick) quick=1 ;;
        -*) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
        *) out="${argument%/}" ;;
    esac
done
limit_s="${GPU_CHECK_S:-540}"
wheels="${VRAM_BENCH_WHEELS:-wheels}"
python="${VRAM_BENCH_PYTHON:-$out/venv/bin/python}"
rows="$out/rows" models="$out/models"
# The extension is built once, and kept with the results; a sandbox may throw the user's cache away. ExLlamaV2 takes it
# as a module where it finds one; building it again would ask for nvcc and the same settings in every process.
export TORCH_EXTENSIONS_DIR="$PWD/$out/extensions"
[[ $out = /* ]] && TORCH_EXTENSIONS_DIR="$out/extensions"
export PYTHONPATH="$PWD:$TORCH_EXTENSIONS_DIR/exllamav2_ext${PYTHONPATH:+:$PYTHONPATH}"

# Name of the directory, then what `synth` makes of it. Sparse ones: memory depends on shapes alone.
if [ -n "$quick" ]; then
    checkpoints=("tinyllama-4.0 model=tinyllama_1_1b bpw=4.0")
    lengths="512,2048" limits_gib="1 2" disk_gib=1
    # Two cards that hold this model together, and how much of its weights a split by hand gives the first.
    shared="tinyllama-4.0" two_limits="[1200MiB,2GiB]" two_split="[0.3,1.5]"
else
    checkpoints=(
        "llama-3.1-8b-2.5 model=llama_3_1_8b bpw=2.5"
        "llama-3.1-8b-4.0 model=llama_3_1_8b bpw=4.0"
        "llama-3.1-8b-6.0 model=llama_3_1_8b bpw=6.0"
        "phi-3-medium-2.5 model=phi_3_medium_128k bpw=2.5"
        "phi-3-medium-4.0 model=phi_3_medium_128k bpw=4.0"
        "gemma-2-9b-4.0 model=gemma_2_9b bpw=4.0"
    )
    lengths="2048,8192" limits_gib="8 12 16" disk_gib=4
    shared="llama-3.1-8b-4.0" two_limits="[4GiB,8GiB]" two_split="[2.5,6]"
fi
# Cards inside this one are smaller than it.
total_mib="$(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits 2>/dev/null | head -1)"
limits=""
for gib in $limits_gib; do
    [ "${total_mib:-0}" -gt 0 ] 2>/dev/null && [ "$((gib * 1024))" -ge "$total_mib" ] || limits="$limits,${gib}GiB"
done
limits="${limits#,}"

# The GPUs, or those that CUDA_VISIBLE_DEVICES leaves of them.
num_gpus="$(nvidia-smi -L 2>/dev/null | grep -c '^GPU ')"
[ -z "${CUDA_VISIBLE_DEVICES+set}" ] || num_gpus="$(tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -c '[^[:space:]]')"

# What is missing

missing() {
    [ -x "$python" ] || [ -d "$wheels" ] || echo "$wheels/: the packages as wheels, or VRAM_BENCH_PYTHON with them installed"
    command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1 || echo "an NVIDIA GPU and its driver (nvidia-smi -L)"
    if ! has_module exllamav2_ext; then
        for tool in nvcc ninja c++; do
            command -v "$tool" >/dev/null || echo "$tool, to build ExLlamaV2's extension (or the extension, built, on PYTHONPATH)"
        done
    fi
    has_module torch || echo "torch, a CUDA build"
    local parent="$out"
    until [ -d "$parent" ]; do parent="$(dirname "$parent")"; done
    [ "$(df -Pk "$parent" | awk 'NR == 2 { print int($4 / 1048576) }')" -ge "$disk_gib" ] || echo "$disk_gib GiB of disk for $out"
}

has_module() {
    local interpreter="$python"
    [ -x "$interpreter" ] || interpreter=python3
    "$interpreter" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)' "$1" 2>/dev/null
}

attentions="sdpa,matmul"
! has_module xformers || attentions="xformers,$attentions"

# How steps are run

step() { # NAME COMMAND...: does it, unless it was done; what was cut off goes on with the next call
    # A step that fails is noted and never tried again, but for the first ones: without them there is nothing to measure.
    local name="$1" code
    shift
    if [ -n "$dry_run" ]; then
        printf '%-28s %s\n' "$name" "$*"
        return
    fi
    [ -e "$out/done/$name" ] && return
    local left=$((limit_s - SECONDS))
    if [ "$left" -le 5 ]; then stop "$name"; fi
    echo "== $name ($left s left)"
    timeout --foreground --signal=INT --kill-after=20 "$left" "$@" 2>&1 | tee -a "$out/log.txt"
    code="${PIPESTATUS[0]}"
    case "$code" in
        0) ;;
        124 | 130 | 137) stop "$name" ;;
        *) [ "$name" != install ] && [ "$name" != extension ] || fail "$name" "$code" ;;&
        *) echo "$name: exit code $code" | tee -a "$out/problems.txt" ;;
    esac
    touch "$out/done/$name"
}

fail() {
    echo "$1: exit code $2; nothing can be measured without it" >&2
    exit 2
}

stop() {
    echo "time is up in $1; the same command goes on"
    exit 3
}

sweep() { # NAME OVERRIDES...: rows of all steps go to one folder
    local name="$1"
    shift
    step "$name" "$python" -m bench sweep device=cuda model=local results_dir="$rows" timeout_s=300 "$@"
}

# A step is one process in the end: `timeout` ends that one, and what a shell has started would live on.

bench_to() { # FILE ARGUMENTS...
    local file="$1"
    shift
    exec "$python" -m bench "$@" > "$file"
}

install() {
    [ -x "$out/venv/bin/python" ] || python3 -m venv --system-site-packages "$out/venv"
    exec "$out/venv/bin/python" -m pip install --quiet --no-index --find-links "$wheels" "vram-bench[dev]"
}

build_extension() {
    # A build that was cut off leaves its lock behind, and every later import would wait for it.
    rm -f "$TORCH_EXTENSIONS_DIR/exllamav2_ext/lock"
    exec "$python" - <<'PYTHON'
import glob, os, site, sys
# Where torch has no CUDA toolkit's headers beside it, those of its own packages.
roots = [*site.getsitepackages(), *sys.path]
headers = [path for root in roots for path in glob.glob(os.path.join(root, "nvidia", "cu1*", "include"))]
os.environ["CPATH"] = os.pathsep.join(filter(None, [os.environ.get("CPATH"), *headers]))
import torch
major, minor = torch.cuda.get_device_capability()
os.environ["TORCH_CUDA_ARCH_LIST"] = f"{major}.{minor}"
import exllamav2.ext
PYTHON
}

self_test() {
    exec "$python" -m pytest -q -m gpu -p no:cacheprovider tests
}

pack() { # what is to be sent: rows and small files
    tar -czf "$out.tar.gz" -C "$out" --exclude=venv --exclude=extensions --exclude=models --exclude=.hydra --exclude=report .
    echo "send this: $out.tar.gz"
}
export -f install build_extension bench_to self_test pack
export python wheels out

# The steps

lacking="$(missing)"
if [ -n "$dry_run" ]; then
    echo "Would be done, $limit_s s a call, into $out:"
elif [ -n "$lacking" ]; then
    printf 'missing: %s\n' "${lacking//$'\n'/$'\n'missing: }" >&2
    exit 2
else
    mkdir -p "$out/done" "$models" "$rows" "$out/recordings"
fi

[ -n "${VRAM_BENCH_PYTHON:-}" ] || step install bash -c install
step extension bash -c build_extension
step doctor bash -c 'bench_to "$out/doctor.json" doctor --json'
step self-test bash -c self_test
for checkpoint in "${checkpoints[@]}"; do
    read -r name recipe <<<"$checkpoint"
    # shellcheck disable=SC2086  # the recipe is two arguments
    [ -d "$models/$name" ] || step "synth-$name" "$python" -m bench synth $recipe --out "$models/$name" --sparse
done
for checkpoint in "${checkpoints[@]}"; do # the first answers of every model come before all answers of one
    name="${checkpoint%% *}"
    sweep "lengths-$name" model.path="$models/$name" max_seq_len="$lengths" cache=FP16,Q8,Q6,Q4 lazy=false,true
done
for checkpoint in "${checkpoints[@]}"; do
    name="${checkpoint%% *}"
    step "record-$name" "$python" -m bench validate record "$out/recordings" device=cuda model=local \
        model.path="$models/$name" max_seq_len="${lengths##*,}" cache=FP16,Q4 lazy=false,true
    sweep "boundaries-$name" model.path="$models/$name" cache=FP16,Q4 lazy=false,true repeats=1
    # Each smaller card twice: another process holds the rest of it, and PyTorch's allocator is capped.
    [ -z "$limits" ] || sweep "cards-inside-$name" model.path="$models/$name" cache=FP16,Q4 lazy=false,true repeats=1 \
        vram_limit="$limits" vram_limit_by=process,allocator
    sweep "jobs-$name" model.path="$models/$name" scenario=generator max_seq_len=2048 batch_size=1,2,4,8 cache=FP16,Q4
    sweep "attention-$name" model.path="$models/$name" max_seq_len="$lengths" attention="$attentions" repeats=1
    # At the boundary of the smallest card: without flash-attn a whole large one takes thousands of chunks.
    sweep "attention-boundary-$name" model.path="$models/$name" attention="flash,$attentions" repeats=1 \
        ${limits:+vram_limit="${limits%%,*}"}
    step "cost-$name" "$python" scripts/cost/own_cost.py "$out/cost" device=cuda model=local model.path="$models/$name" \
        max_seq_len="${lengths##*,}" repeats=10
done
if [ "$num_gpus" -ge 2 ]; then # one model on the first two
    sweep "two-cards-$shared" device.index=0+1 model.path="$models/$shared" max_seq_len="$lengths" cache=FP16,Q4 \
        split="auto,$two_split,tensor_parallel" vram_limit="$two_limits" vram_limit_by=process,allocator
    sweep "two-cards-boundary-$shared" device.index=0+1 model.path="$models/$shared" cache=FP16,Q4 repeats=1 \
        vram_limit="$two_limits"
    step "two-cards-record-$shared" "$python" -m bench validate record "$out/recordings" device=cuda device.index=0+1 \
        model=local model.path="$models/$shared" max_seq_len="${lengths##*,}" vram_limit="$two_limits"
else
    left_out="left out: two-cards, two-cards-boundary, two-cards-record (they take two GPUs, and there is $num_gpus)"
    echo "$left_out"
    [ -n "$dry_run" ] || echo "$left_out" > "$out/left_out.txt"
fi
step pack bash -c pack

if [ -n "$dry_run" ]; then
    [ -z "$lacking" ] && { echo "Nothing is missing."; exit 0; }
    printf 'missing: %s\n' "${lacking//$'\n'/$'\n'missing: }"
    exit 2
fi
[ ! -e "$out/problems.txt" ] || { echo "look at $out/problems.txt"; exit 1; }
