#!/usr/bin/env bash
# How far does Phi-3-medium-128k go on a 12 GB, a 24 GB and a 40 GB card? 72 boundaries, without a GPU.
# Arguments are passed on: scripts/quickstart.sh device=rtx_3060_12gb bpw=3.0,4.0
source "$(dirname "$0")/setup.sh"
if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then
    echo "An NVIDIA GPU is here. To measure it, give it EXL2 weights:"
    echo "  .venv/bin/vram-bench sweep model=local model.path=DIR device=cuda max_seq_len=4096,16384"
    echo "What follows are simulated cards."
fi
exec .venv/bin/vram-bench sweep experiment=quickstart "$@"
