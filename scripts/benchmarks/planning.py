"""How long does planning 10,000 searches take, with nothing kept from before, and with what that has left behind?

Runs `vram-bench plan` twice over the same sweep, on as many cores as there are.

    .venv/bin/python scripts/benchmarks/planning.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter

MODELS = [
    "command_r_35b", "gemma_2_27b", "gemma_2_9b", "glm_tts", "llama_3_1_70b", "llama_3_1_8b", "llama_3_8b",
    "mistral_7b_v0_3", "mistral_nemo_12b", "mixtral_8x7b", "phi_3_medium_128k", "phi_3_mini_128k", "qwen2_5_14b",
    "qwen2_5_32b", "qwen2_5_72b", "qwen2_5_7b", "tinyllama_1_1b",
]  # fmt: skip
# All but the T4, which runs another attention back end.
DEVICES = [
    "a100_40gb", "a100_80gb", "h100_80gb", "h200_141gb", "l4", "l40s", "rtx_3060_12gb", "rtx_3090", "rtx_4060_8gb",
    "rtx_4060_ti_16gb", "rtx_4090", "rtx_5090", "rtx_a6000",
]  # fmt: skip
SWEEP = [
    f"model={','.join(MODELS)}",
    f"device={','.join(DEVICES)}",
    "bpw=2.5,3.0,4.0,5.0,6.0,8.0",
    "cache=FP16,Q8,Q6,Q4",
    "lazy=false,true",
    "max_seq_len=auto",
]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "XDG_CACHE_HOME": folder}
        command = [sys.executable, "-m", "bench", "plan", *SWEEP, f"results_dir={folder}/results", "--json"]
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        for kept in ("cold", "warm"):
            started_at = time.monotonic()
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
            took_s = time.monotonic() - started_at
            rows = json.loads(done.stdout)["cells"]
            reasons = Counter(row["reason"] for row in rows)
            print(
                f"{kept}: {len(rows)} cells in {took_s:.1f} s; without a prediction: {reasons.total() - reasons[None]}"
            )


if __name__ == "__main__":
    main()
