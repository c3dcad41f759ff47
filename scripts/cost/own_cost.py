"""What the harness itself costs: one case measured by it, and the same calls of ExLlamaV2 without it, in one run.

    .venv/bin/python scripts/cost/own_cost.py DIR model=local model.path=MODEL max_seq_len=4096 device=cuda
    .venv/bin/python scripts/cost/own_cost.py DIR model=local model.path=MODEL max_seq_len=4096 device=cuda lazy=true

The other side is plain_speed.py beside it, which imports nothing of this program: the same calls in the same order, and
the loop of ExLlamaV2's own test script (test_inference.py --speed, which is in its repository and not in its wheel).
Both are run three times in turn, in processes of their own; rows of the harness and a Markdown table go to DIR. Fails
(1) where the harness decodes at less than 99 % of the plain calls' tokens/s, or where the bytes on the card differ.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from bench.config.cases import plan_sweep
from bench.core.case import Case
from bench.core.errors import BadInput
from bench.launch.environment import child_environment
from bench.launch.launchers import uuids_of
from bench.report.naming.work import WorkNames
from bench.run.sweep import SweepOptions, new_run_id, run_sweep
from bench.store.store import read_cases

_TIMES = 3
_LEAST_SHARE = 0.99
_TIMEOUT_S = 300.0
_PLAIN = Path(__file__).with_name("plain_speed.py")
_FIGURES = ("decode_tokens_per_s", "decode_tokens_per_s_full", "prefill_tokens_per_s")
_BYTES = ("peak_allocated_bytes", "peak_reserved_bytes", "device_bytes")


def main() -> int:
    directory, *overrides = sys.argv[1:] or [""]
    if not directory or not overrides:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        (case,) = plan_sweep(overrides).cases
        if case.device.kind != "cuda":
            raise ValueError
    except BadInput as error:
        print(f"own_cost: {error}", file=sys.stderr)
        return 2
    except ValueError:
        print("own_cost: one case on a real GPU is compared: device=cuda max_seq_len=TOKENS", file=sys.stderr)
        return 2
    both = [(_plain(case), _harness(case, Path(directory))) for _ in range(_TIMES)]
    text, within = _table(case, [plain for plain, _ in both], [row for _, row in both])
    print(text)
    (Path(directory) / f"{case.model.name.replace('/', '_')}-{case.max_seq_len}.md").write_text(f"{text}\n")
    return 0 if within else 1


def _plain(case: Case) -> dict[str, Any]:
    sizes = [case.max_seq_len, case.max_input_len, case.batch_size, case.repeats]
    done = subprocess.run(
        [sys.executable, _PLAIN, str(case.model.path), case.cache, "lazy" if case.lazy else "load", *map(str, sizes)],
        env={
            **child_environment("cuda", uuids_of(case.devices), case.allocator),
            "PLAIN_SPEED_ATTENTION": case.attention,
        },
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"own_cost: the plain calls ended with exit code {done.returncode}")
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def _harness(case: Case, directory: Path) -> dict[str, Any]:
    finished = run_sweep([case], [], SweepOptions(directory, f"{new_run_id()}_cost", _TIMEOUT_S, rerun=True))
    if finished.interrupted or finished.run_dir is None:
        raise KeyboardInterrupt
    (row,) = read_cases(finished.run_dir)[0].to_pylist()
    if row["outcome"] != "fits":
        raise SystemExit(f"own_cost: {WorkNames([case]).title(case)}: {row['outcome']}, {row['error']}")
    last = json.loads(row["phases"])[-1]["memory"]
    return {**row, "device_bytes": last["device_bytes"]}


def _table(case: Case, plain: list[dict[str, Any]], rows: list[dict[str, Any]]) -> tuple[str, bool]:
    """Both side by side, and whether the harness is as fast as it should be, and held the same."""
    lines = [
        f"{WorkNames([case]).title(case)}, {rows[-1]['attention']}: medians of {_TIMES} runs each, in turn",
        "",
        "| figure | plain calls | harness | harness / plain |",
        "|---|---:|---:|---:|",
    ]
    shares = {}
    for name in _FIGURES:
        ours, theirs = median(row[name] for row in rows), median(said[name] for said in plain)
        shares[name] = ours / theirs
        lines.append(f"| {name} | {theirs:,.2f} | {ours:,.2f} | {ours / theirs:.4f} |")
    equal = True
    for name in _BYTES:
        held, plainly = {row[name] for row in rows}, {said[name] for said in plain}
        equal = equal and held == plainly
        lines.append(f"| {name} | {_all(plainly)} | {_all(held)} | {'equal' if held == plainly else 'different'} |")
    speeds = [said["decode_tokens_per_s"] for said in plain]
    lines += ["", f"From run to run, the plain calls alone differ by {max(speeds) / min(speeds) - 1:.2%}."]
    if case.batch_size == 1:
        loop = median(said["test_script_tokens_per_s"] for said in plain)
        lines.append(f"test_inference.py's own loop (argmax on the GPU, positions 1 to 128): {loop:,.2f} tokens/s.")
    return "\n".join(lines), equal and shares["decode_tokens_per_s"] >= _LEAST_SHARE


def _all(values: set[int]) -> str:
    return " or ".join(f"{value:,}" for value in sorted(values))


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
