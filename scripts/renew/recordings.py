"""Records what the program predicts with where no engine is installed: one file a model, in bench/forecast/recordings.

    .venv/bin/python scripts/renew/recordings.py [--models NAME,…]   makes what is missing or of other sources
    .venv/bin/python scripts/renew/recordings.py --check N           makes N at random again, and compares them

A model takes from half a minute to some minutes (experts) on two cores. What was recorded is kept in the user's cache,
so that it can be interrupted. `GRID` says what is recorded of each, `BITS` for which bits per weight.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from bench.config import compose as config
from bench.config.cases import plan_sweep
from bench.core.case import Case
from bench.core.requests import Recording
from bench.engines.registry import engines
from bench.forecast.library import TraceLibrary
from bench.forecast.shipped import FOLDER, Origin, Shipped, ship
from bench.launch.launchers import Launchers
from bench.trace.parametric import load_arrays, load_tensor_bytes
from bench.trace.passes import NoPrediction

# Cards that run flash-attn, as one types a plan, and with what `plan` says one would gain; those that cannot run it.
GRID = (
    ("device=rtx_4090", "cache=FP16,Q4", "max_input_len=2048,1024"),
    ("device=rtx_4090", "cache=FP16,Q4", "lazy=true"),
    ("device=rtx_2080_ti", "cache=FP16,Q4"),
)
BITS = "2,2.25,2.4,2.5,2.65,3,3.25,3.5,3.75,4,4.25,4.5,4.65,5,5.5,6,6.5,7,8"
ENGINE = engines()[0].name


def cases_of(model: str) -> list[Case]:
    """What is recorded of a model of the catalogue."""
    asked = [[*axes, "bpw=4"] for axes in GRID] + [["device=rtx_4090", f"bpw={BITS}"]]
    planned = [plan_sweep([f"model={model}", f"engine={ENGINE}", *axes]) for axes in asked]
    return [search.longest for each in planned for search in each.searches]


def renew(models: Iterable[str], library: TraceLibrary) -> None:
    """Records what is missing of `models`, and writes their files."""
    for name in models:
        started, cases = time.monotonic(), cases_of(name)
        origin = Origin.now(cases[0].model, ENGINE)
        library.prepare(cases)
        paths = {path: kind for case in cases for kind, path in library.paths(case).items()}
        traces, tensors = {}, {}
        for path, kind in paths.items():
            try:
                if kind is Recording.TENSORS:
                    tensors[path.name] = load_tensor_bytes(path)
                else:
                    traces[path.name] = load_arrays(path)
            except NoPrediction as reason:
                traces[path.name] = {"reason": str(reason)}, {}
            except FileNotFoundError:
                print(f"{name}: {kind} came to no end", file=sys.stderr)
        file = ship(FOLDER, origin, traces, tensors)
        print(f"{name}: {len(paths)} recordings, {file.stat().st_size:,} bytes, {time.monotonic() - started:.0f} s")


def check(models: Sequence[str], count: int, library: TraceLibrary) -> int:
    """How many of `count` recordings, of models taken at random, are not as they are shipped."""
    different, shipped = 0, Shipped(any_origin=True)
    for name in random.sample(models, count):
        case = random.choice(cases_of(name))
        library.prepare([case])
        for kind, path in library.paths(case).items():
            if not shipped.has(case.model, ENGINE, path.name):
                same = False
            elif kind is Recording.TENSORS:
                same = load_tensor_bytes(path) == shipped.tensor_bytes(path.name)
            else:
                (about, arrays), (told, others) = load_arrays(path), shipped.arrays(path.name)
                same = about == told and arrays.keys() == others.keys()
                same = same and all(np.array_equal(arrays[key], others[key]) for key in arrays)
            print(f"{name} {kind}: {'the same' if same else 'DIFFERENT'}")
            different += not same
    return different


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", help="names of the catalogue, with commas between; default: all")
    parser.add_argument("--check", type=int, metavar="N", help="make N again and compare them; nothing is written")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    models = arguments.models.split(",") if arguments.models else config.listed("model", [])
    launchers = Launchers()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            if arguments.check:
                os.environ["XDG_CACHE_HOME"] = scratch  # where nothing is kept
            library = TraceLibrary(launchers.simulated, Path(scratch), arguments.jobs, Shipped(Path(scratch)))
            if arguments.check:
                return min(1, check(models, arguments.check, library))
            renew(models, library)
    finally:
        launchers.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
