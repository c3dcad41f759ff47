"""How fast `vram-bench synth` writes, beside plain writes of as many bytes to the same disk.

Both take turns in one run, and each ends with fsync, so that a disk whose speed drifts slows both. Run it with
`.venv/bin/python scripts/benchmarks/synth.py --dir DISK`; it prints medians and the ratio, and how fast the values
alone are made, which is what a faster disk would be held up by.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.config.cases import plan_checkpoint
from bench.synth.layout import Layout
from bench.synth.make import Recipe, lay_out, make
from bench.synth.values import Values

_BLOCK_BYTES = 8 << 20


def plain_s(path: Path, size_bytes: int) -> float:
    """Seconds for `size_bytes` from one buffer of random bytes, as `dd bs=8M conv=fsync` writes them."""
    block = os.urandom(_BLOCK_BYTES)
    started = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        left = size_bytes
        while left:
            left -= file.write(block[: min(left, _BLOCK_BYTES)])
        os.fsync(file.fileno())
    seconds = time.perf_counter() - started
    path.unlink()
    return seconds


def synth_s(directory: Path, recipe: Recipe, layout: Layout) -> float:
    """Seconds for the whole checkpoint, the layout left out: it takes as long for any size."""
    started = time.perf_counter()
    make(recipe, layout, directory)
    seconds = time.perf_counter() - started
    shutil.rmtree(directory)
    return seconds


def values_s(layout: Layout) -> float:
    """Seconds for the same bytes, written nowhere."""
    started = time.perf_counter()
    values = Values(0)
    for tensor in layout.tensors:
        for _ in values.chunks(tensor):
            pass
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dir", type=Path, default=Path("."), help="on the disk to write to; default: here")
    parser.add_argument("overrides", nargs="*", default=["model=phi_3_mini_128k", "bpw=4.0"])
    arguments = parser.parse_args()
    recipe = Recipe(plan_checkpoint(arguments.overrides), seed=0, shard_bytes=8 << 30, sparse=False)
    layout = lay_out(recipe.case)
    times: dict[str, list[float]] = {"plain writes": [], "vram-bench synth": [], "values alone": []}
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        for _ in range(arguments.repeats):
            times["plain writes"].append(plain_s(Path(folder) / "plain", layout.size_bytes))
            times["vram-bench synth"].append(synth_s(Path(folder) / "synth", recipe, layout))
            times["values alone"].append(values_s(layout))
    plain = median(times["plain writes"])
    sizes = f"{layout.size_bytes / 1e9:.2f} GB, {arguments.repeats} of each"
    print(f"{recipe.case.model.name} {recipe.case.bpw:g} bpw, {sizes}")
    for name, samples in times.items():
        middle = median(samples)
        speed = f"{layout.size_bytes / middle / 1e6:7.0f} MB/s"
        print(
            f"{name:18} {speed}   {min(samples):6.2f} to {max(samples):6.2f} s   {plain / middle:5.2f} of plain writes"
        )


if __name__ == "__main__":
    main()
