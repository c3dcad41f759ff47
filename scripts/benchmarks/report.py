"""How long does `vram-bench report` take, all that it writes and prints, and how much memory, for 10 thousand, 100
thousand and a million case rows?

The rows are made up, in a folder that is removed again: no such card or model exists. Each setting has a boundary, at
the longest of its cases that fits. CPU seconds are those of the command and of the process that draws its pictures.
Memory is their PSS together (a page that both have counts once), read twice a second.

    .venv/bin/python scripts/benchmarks/report.py [ROWS …]
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.core.columns import SCHEMA_VERSION
from bench.store.schema import BOUNDARIES, CASES

GIB = 1 << 30
CARDS = {f"made_up_card_{gib}gb": gib * GIB for gib in (8, 10, 11, 12, 16, 20, 24, 32, 40, 44, 48, 64, 80, 96)}
WIDTHS = (2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0)
CACHES = {"FP16": 2.0, "Q8": 1.0625, "Q6": 0.8125, "Q4": 0.5625}
LENGTHS = tuple(4096 * n for n in range(1, 33))
PER_MODEL = len(CARDS) * len(WIDTHS) * len(CACHES) * 2 * len(LENGTHS)


def made_up(count: int) -> pa.Table:
    """`count` rows: every card, bit width, cache, way of loading and length, for as many models as it takes."""
    number = np.arange(count)
    place, length = np.divmod(number, len(LENGTHS))
    place, lazy = np.divmod(place, 2)
    place, cache = np.divmod(place, len(CACHES))
    place, bpw = np.divmod(place, len(WIDTHS))
    model, card = np.divmod(place, len(CARDS))
    tokens, bits = np.array(LENGTHS)[length], np.array(WIDTHS)[bpw]
    parameters = 3e9 * 1.06 ** (model % 60)
    cache_bytes = (tokens * 65536 * np.array(list(CACHES.values()))[cache] / 2).astype(np.int64)
    weights = (parameters * bits / 8).astype(np.int64)
    total = np.array(list(CARDS.values()))[card]
    peak = weights + cache_bytes + GIB // 2 + lazy * (GIB // 2)
    fits = peak < total
    text = {
        "run_id": "made-up", "host": "nowhere", "device_kind": "simulated", "model_fingerprint": "made up",
        "attention": "flash", "attention_requested": "auto", "torch_version": "0", "exllamav2_version": "0",
        "environment": '{"made": "up"}' + " " * 600, "phases": '[{"made": "up"}]' + " " * 1500,
    }  # fmt: skip
    known = {
        **{name: pa.repeat(value, count) for name, value in text.items()},
        "schema_version": np.full(count, SCHEMA_VERSION, np.int32),
        "case_id": [f"{value:016x}" for value in number],
        "started_at": pa.array(
            np.datetime64(datetime(2026, 1, 1).isoformat(), "us") + number, pa.timestamp("us", tz=str(UTC))
        ),
        "device_name": np.array(list(CARDS))[card],
        "device_total_bytes": total,
        "model": np.char.add("made_up_model_", np.char.zfill(model.astype(str), 3)),
        "native_max_seq_len": np.full(count, LENGTHS[-1]),
        "bpw": bits,
        "head_bits": np.full(count, 6, np.int32),
        "cache": np.array(list(CACHES))[cache],
        "lazy": lazy.astype(bool),
        "max_seq_len": tokens,
        "batch_size": np.ones(count, np.int32),
        "max_input_len": np.full(count, 2048),
        "outcome": np.where(fits, "fits", "oom"),
        "phase": np.where(fits, "done", "cache"),
        "peak_device_bytes": peak,
        "peak_reserved_bytes": peak - GIB // 4,
        "peak_allocated_bytes": peak - GIB // 3,
        "weights_bytes": weights,
        "cache_bytes": cache_bytes,
        "estimated_decode_tokens_per_s": np.where(fits, 7e11 / (weights + cache_bytes), np.nan),
        "wall_s": np.ones(count),
        "notes": pa.repeat(pa.scalar(["made up"], pa.list_(pa.string())), count),
    }
    columns = {
        name: pa.array(values) if isinstance(values, np.ndarray | list) else values for name, values in known.items()
    }
    arrays = [
        columns[field.name].cast(field.type) if field.name in columns else pa.nulls(count, field.type)
        for field in CASES
    ]
    return pa.Table.from_arrays(arrays, schema=CASES)


def boundaries_of(cases: pa.Table) -> pa.Table:
    """The boundary of each setting: the longest of its cases that fits, as far as is known."""
    starts = np.arange(0, cases.num_rows, len(LENGTHS))
    count = np.add.reduceat((cases["outcome"].to_numpy(zero_copy_only=False) == "fits").astype(int), starts)
    heads = cases.take(starts + np.maximum(count - 1, 0))
    length, fitted = heads["max_seq_len"].to_numpy(), count > 0
    known = {
        **{name: heads[name] for name in set(CASES.names) & set(BOUNDARIES.names)},
        "boundary_id": heads["case_id"],
        "finished_at": heads["started_at"],
        "outcome": pa.array(np.where(fitted, "fits", "oom")),
        "fits_at": pa.array(length, mask=~fitted),
        "fails_at": pa.array(np.where(fitted, length + 256, 256), mask=fitted & (length == LENGTHS[-1])),
        "certified": pa.array(np.ones(len(starts), bool)),
        "contradictory": pa.array(np.zeros(len(starts), bool)),
        "case_ids": pa.array([[name] for name in heads["case_id"].to_pylist()]),
    }
    arrays = [known[f.name].cast(f.type) if f.name in known else pa.nulls(len(starts), f.type) for f in BOUNDARIES]
    return pa.Table.from_arrays(arrays, schema=BOUNDARIES)


def report(results: Path, out_dir: Path) -> tuple[float, float, int]:
    """Runs the command; wall seconds, CPU seconds, and the most bytes of memory."""
    command = [sys.executable, "-m", "bench", "report", "--results", str(results), "--out", str(out_dir)]
    before, started_at, most = cpu_s(), time.monotonic(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        most = max(most, pss_bytes(process.pid))
        time.sleep(0.5)  # counting pages takes CPU too
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with exit code {process.returncode}")
    return time.monotonic() - started_at, cpu_s() - before, most


def cpu_s() -> float:
    """Of all processes that this one has waited for, and that those have."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def pss_bytes(pid: int) -> int:
    """Of a process and all below it; 0 for one that has just ended."""
    try:
        own = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        below = [file.read_text().split() for file in Path(f"/proc/{pid}/task").glob("*/children")]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return (int(own[1]) << 10 if own else 0) + sum(pss_bytes(int(child)) for children in below for child in children)


def main() -> None:
    counts = [int(word.replace(",", "").replace("_", "")) for word in sys.argv[1:]] or [10_000, 100_000, 1_000_000]
    print(f"{os.cpu_count()} cores; {PER_MODEL:,} rows a model")
    took: list[float] = []
    for count in counts:
        with tempfile.TemporaryDirectory(prefix="vram-bench-") as folder:
            results, out_dir = Path(folder) / "results" / "made-up", Path(folder) / "report"
            results.mkdir(parents=True)
            cases = made_up(count)
            with pq.ParquetWriter(results / "cases.parquet", CASES, compression="zstd") as writer:
                writer.write_table(cases, row_group_size=100_000)
            pq.write_table(boundaries_of(cases), results / "boundaries.parquet", compression="zstd")
            del cases
            wall, cpu, most = report(results, out_dir)
            sizes = [file.stat().st_size for file in out_dir.iterdir()]
            written = f"{len(sizes)} files, {sum(sizes) / 2**20:,.0f} MiB"
            load = f"load {os.getloadavg()[0]:.1f}"
            print(
                f"{count:,} rows: {wall:.1f} s, {cpu:.1f} s of CPU, {most / 2**20:,.0f} MiB; {written}; {load}",
                flush=True,
            )
            took.append(cpu)
    for (fewer, less), (more, longer) in pairwise(zip(counts, took, strict=True)):
        print(f"{more / fewer:.0f} times the rows took {longer / less:.1f} times as much CPU")


if __name__ == "__main__":
    main()
