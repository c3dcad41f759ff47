#!/usr/bin/env bash
# The null GPU: PyTorch's own CUDA allocator and ExLlamaV2's own engine, without a GPU (docs/oracle.md).
#
#   scripts/oracle.sh build allocator   what the allocator needs: torch for CUDA, gcc; 3 GB, a few minutes
#   scripts/oracle.sh build             and the engine: CUDA's libraries, nvcc; 10 GB, 15 minutes on two cores
#   scripts/oracle.sh allocator [...]   PyTorch's allocator beside our model of it
#   scripts/oracle.sh expandable [...]  the same with expandable segments, a process a sequence
#   scripts/oracle.sh engine [...]      the engine on the null GPU beside the simulated card
#   scripts/oracle.sh machines [...]    the engine on two and three null GPUs beside simulated cards
#   scripts/oracle.sh served [...]      the engine's generator with jobs, beside the simulated card
#   scripts/oracle.sh exllamav3_served  the same with exllamav3's
#   scripts/oracle.sh renew             all of them, and the recorded vectors that the test suite replays
#   scripts/oracle.sh python [...]      the interpreter, with the null GPU under it
#
# ORACLE_DIR is where all of it goes (.oracle), ORACLE_TORCH the version of torch (the one in constraints.txt).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

dir="${ORACLE_DIR:-$PWD/.oracle}"
torch="${ORACLE_TORCH:-$(sed -n 's/^torch==//p' constraints.txt)}"
python="$dir/venv/bin/python"
pip() { "$python" -m pip --quiet --disable-pip-version-check "$@"; }
die() { echo "oracle: $*" >&2; exit 2; }

# Says what stands in the way before anything is downloaded.
check() {
    local gigabytes="$1" free
    command -v cc >/dev/null || die "no C compiler (Debian: apt install gcc); without one nothing here can be built"
    command -v nm >/dev/null || die "no nm (Debian: apt install binutils)"
    python3 -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        die "needs Python 3.11 or newer with venv and pip (Debian: apt install python3-venv)"
    mkdir -p "$dir"
    free=$(($(df --output=avail -k "$dir" | tail -1) / 1024 / 1024))
    [ "$free" -ge "$gigabytes" ] || die "$dir has ${free} GB free, $gigabytes GB are needed; ORACLE_DIR may lie elsewhere"
    echo "oracle: building in $dir, about $gigabytes GB of $free GB that are free"
}

# torch for CUDA and what the allocator's half of the program imports.
build_allocator() {
    [ -x "$python" ] || python3 -m venv "$dir/venv"
    pip install --no-deps "torch==$torch"
    local site cuda
    site="$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')"
    cuda="$(sed -n "s/^cuda.*= '\(.*\)'$/\1/p" "$site/torch/version.py")"
    [ -n "$cuda" ] || die "pip has found a torch $torch without CUDA; give it an index that has CUDA builds" \
        "(PIP_INDEX_URL, and no PIP_FIND_LINKS that comes before it)"
    pip install filelock typing-extensions sympy networkx jinja2 fsspec -c constraints.txt \
        numpy numba "nvidia-cuda-runtime==$cuda.*" "nvidia-cuda-crt==$cuda.*"
    cc -shared -fPIC -O2 -Wall -Wno-unused-parameter -I"$site/nvidia/cu${cuda%%.*}/include" \
        -Wl,-soname,libcuda.so.1 -o "$dir/libcuda.so.1" tests/oracle/null_gpu.c
    ln -sf libcuda.so.1 "$dir/libnvidia-ml.so.1"
    "$python" tests/oracle/stubs.py "$site" "$dir/stubs"
    run -c 'import torch; print("oracle: torch", torch.__version__, "runs on", torch.cuda.get_device_name())'
}

# The engine: CUDA's own libraries and headers, ExLlamaV2's extension, flash-attn's binding without its kernels.
build_engine() {
    command -v nvcc >/dev/null || [ -x "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" ] ||
        die "no nvcc (a CUDA toolkit of torch's version; CUDA_HOME says where): the allocator can be compared without it," \
            "with 'scripts/oracle.sh build allocator'"
    command -v c++ >/dev/null || die "no C++ compiler (Debian: apt install g++)"
    build_allocator
    grep -v '^torch==' constraints.txt >"$dir/constraints.txt"
    pip install "torch==$torch"
    rm -rf "$dir/stubs"
    pip install -c "$dir/constraints.txt" ninja setuptools wheel packaging psutil exllamav2 hydra-core pydantic \
        platformdirs huggingface_hub rich pyarrow pandas matplotlib nvidia-ml-py tokenizers llguidance marisa-trie
    pip install -c "$dir/constraints.txt" --no-deps exllamav3
    "$python" tests/oracle/extensions.py "$dir"
}

run() {
    local stubs="$dir/stubs"
    [ -x "$python" ] || die "not built yet: scripts/oracle.sh build"
    PYTHONPATH="$PWD:$dir/extensions" LD_PRELOAD="$dir/libcuda.so.1" LD_LIBRARY_PATH="$dir:$stubs" "$python" "$@"
}

case "${1:-}" in
build)
    if [ "${2:-}" = allocator ]; then check 3 && build_allocator; else check 10 && build_engine; fi
    ;;
allocator | expandable) run -m "tests.oracle.$1" "${@:2}" ;;
engine | machines | served | exllamav3_served)
    run -m "tests.oracle.$1" "${@:2}" --record "$dir/$1.json.gz"
    PYTHONPATH="$PWD" "$python" -m tests.oracle.compare "$dir/$1.json.gz"
    ;;
renew)
    run -m tests.oracle.allocator --operations 24000 --seeds 12 --record tests/oracle/vectors/allocator.npz
    run -m tests.oracle.expandable --record tests/oracle/vectors/expandable.npz
    run -m tests.oracle.engine --record tests/oracle/vectors/engine.json.gz
    run -m tests.oracle.machines --every 6 --record tests/oracle/vectors/machines.json.gz
    run -m tests.oracle.served --every 4 --record tests/oracle/vectors/served.json.gz
    run -m tests.oracle.exllamav3_served --every 5 --record tests/oracle/vectors/exllamav3_served.json.gz
    ;;
python) run "${@:2}" ;;
*) sed -n '2,15s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac
