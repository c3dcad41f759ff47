"""Records what the program predicts with where no engine is installed: one file a model, in bench/forecast/recordings.

    .venv/bin/python scripts/renew/recordings.py [--models NAME,…]   makes them
    .venv/bin/python scripts/renew/recordings.py --check N           makes N at random again, and compares them
    .venv/bin/python scripts/renew/recordings.py --check N --stamp   the same; if none differs, all are of these sources

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
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.config.cases import plan_sweep
from bench.core.case import Case
from bench.core.requests import Recording
from bench.engines.registry import engines, rules_of
from bench.forecast.library import TraceLibrary
from bench.forecast.packs import read_pack, write_pack
from bench.forecast.shipped import FOLDER, Origin, Shipped, ship
from bench.launch.launchers import Launchers
from bench.launch.versions import recording_digest
from bench.trace.parametric import ParametricTrace, load_arrays, load_tensor_bytes
from bench.trace.passes import NoPrediction
from bench.trace.template import Array

_BETWEEN = (
    2.15,
    2.25,
    2.35,
    2.45,
    2.55,
    2.65,
    2.75,
    2.85,
    2.95,
    3.05,
    3.25,
    3.35,
    3.45,
    3.75,
    4.15,
    4.25,
    4.65,
    4.75,
    4.85,
    5.25,
    6.25,
)
# Cards that run flash-attn, as one types a plan, and with what `plan` says one would gain; those that cannot run it.
GRID = (
    ("device=rtx_4090", "cache=FP16,Q4", "max_input_len=2048,1024"),
    ("device=rtx_4090", "cache=FP16,Q4", "lazy=true"),
    ("device=rtx_2080_ti", "cache=FP16,Q4"),
)
# Models that are mostly put on two cards, and how that is recorded (`split=auto`).
ON_TWO_CARDS = ("llama_3_1_70b", "llama_3_3_70b", "qwen2_5_72b")
TWO_CARDS = ("device=2xrtx_3090", "cache=FP16,Q4")
# Every tenth, and what people publish between them.
BITS = ",".join(f"{bits:g}" for bits in sorted({*(n / 10 for n in range(20, 81)), *_BETWEEN}))
# The other engine has a recording for each number of multiprocessors, each cache and all bits: only of these models.
OTHERS = ("llama_3_1_8b", "qwen3_8b")
OF_OTHERS = ("device=rtx_3060_12gb,rtx_3090,rtx_4090", "cache=FP16,Q8,Q4", "bpw=3,4,5,6")
ENGINE, *OTHER_ENGINES = (engine.name for engine in engines())


def cases_of(model: str, engine: str) -> list[Case]:
    """What is recorded of a model of the catalogue."""
    grid = (*GRID, TWO_CARDS) if model in ON_TWO_CARDS else GRID
    asked: list[Sequence[str]] = [OF_OTHERS]
    if engine == ENGINE:
        asked = [[*axes, "bpw=4"] for axes in grid] + [["device=rtx_4090", f"bpw={BITS}"]]
    planned = [plan_sweep([f"model={model}", f"engine={engine}", *axes]) for axes in asked]
    return [search.longest for each in planned for search in each.searches]


def engines_of(model: str) -> list[str]:
    """The engines that it is recorded with."""
    return [ENGINE, *(OTHER_ENGINES if model in OTHERS else [])]


def recorded() -> list[str]:
    """The models of the catalogue that have a file."""
    return sorted({read_pack(file)[0]["model"] for file in FOLDER.glob("*.recordings")})


Kept = tuple[dict[str, Any], dict[str, Array]] | dict[str, int] | str


def told(read: Callable[[], Kept]) -> Kept:
    """What a recording is, or the reason that there is none."""
    try:
        return read()
    except NoPrediction as reason:
        return str(reason)


def kept(kind: Recording, path: Path) -> Kept:
    return told(lambda: load_tensor_bytes(path) if kind is Recording.TENSORS else load_arrays(path))


def renew(model: str, engine: str, library: TraceLibrary) -> None:
    """Records what is missing of a model, and writes its file."""
    started, cases = time.monotonic(), cases_of(model, engine)
    origin = Origin.now(cases[0].model, engine)
    library.prepare(cases)
    traces, tensors = {}, {}
    for path, kind in {path: kind for case in cases for kind, path in library.paths(case).items()}.items():
        if not path.exists():
            print(f"{model}: {kind} came to no end", file=sys.stderr)
            continue
        recording = kept(kind, path)
        if isinstance(recording, dict):
            tensors[path.name] = recording
        else:
            traces[path.name] = ({"reason": recording}, {}) if isinstance(recording, str) else recording
    file = ship(FOLDER, origin, traces, tensors)
    took = f"{file.stat().st_size:,} bytes, {time.monotonic() - started:.0f} s"
    print(f"{model} {engine}: {len(traces) + len(tensors)} recordings, {took}")


def stamp() -> None:
    """Says of all files that they are of the sources that are here: a sample was made again, and is the same."""
    for file in sorted(FOLDER.glob("*.recordings")):
        told, blocks = read_pack(file)
        write_pack(file, {**told, "sources": recording_digest(told["engine"])}, blocks)


def check(models: Sequence[str], count: int, library: TraceLibrary) -> int:
    """How many of `count` recordings, of models taken at random, are not as they are shipped."""
    different, shipped = 0, Shipped(any_origin=True)
    for name in random.choices(models, k=count):
        case = random.choice(cases_of(name, random.choice(engines_of(name))))
        library.prepare([case])
        paths = library.paths(case)
        there = all(shipped.has(case.model, case.engine, path.name) for path in paths.values())
        if Recording.LOADING in paths:
            same = there and sections(paths, load_arrays, case.engine) == sections(
                paths, lambda path: shipped.arrays(path.name), case.engine
            )
        else:
            read = {Recording.TENSORS: shipped.tensor_bytes, Recording.TRACE: shipped.arrays}
            same = there and all(
                equal(kept(kind, path), told(partial(read[kind], path.name)), case.engine)
                for kind, path in paths.items()
            )
        print(f"{name} {case.engine}: {'the same' if same else 'DIFFERENT'}")
        different += not same
    return different


def sections(
    paths: dict[Recording, Path], arrays_of: Callable[[Path], tuple[dict[str, Any], dict[str, Array]]], engine: str
) -> dict[str, bytes] | str:
    """What is replayed of a trace and of a loading that was recorded by itself, by kind; or why nothing is."""
    rules = rules_of(engine).prediction
    assert rules.with_loading is not None
    try:
        trace, loading = (
            ParametricTrace.of(*arrays_of(paths[kind]), rules.setup) for kind in (Recording.TRACE, Recording.LOADING)
        )
    except NoPrediction as reason:
        return str(reason)
    return {kind: array.tobytes() for kind, array in rules.with_loading(trace, loading).templates.items()}


def equal(one: Kept, other: Kept, engine: str) -> bool:
    if not (isinstance(one, tuple) and isinstance(other, tuple)):
        return one == other
    same = about(one, engine) == about(other, engine) and one[1].keys() == other[1].keys()
    return same and all(np.array_equal(array, other[1][name]) for name, array in one[1].items())


def about(recording: tuple[dict[str, Any], dict[str, Any]], engine: str) -> dict[str, Any]:
    """What a recording tells of itself; a setting that came later has the value it had before."""
    told, _ = recording
    return {**told, "setup": rules_of(engine).prediction.setup(**told["setup"])} if "setup" in told else told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", help="names of the catalogue, with commas between; default: those that are there")
    parser.add_argument("--check", type=int, metavar="N", help="make N again and compare them; nothing is written")
    parser.add_argument("--stamp", action="store_true", help="with --check: where none differs")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    models = arguments.models.split(",") if arguments.models else recorded()
    launchers = Launchers()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            if arguments.check:
                os.environ["XDG_CACHE_HOME"] = scratch  # where nothing is kept
            library = TraceLibrary(launchers.simulated, Path(scratch), arguments.jobs, Shipped(Path(scratch)))
            if arguments.check:
                different = check(models, arguments.check, library)
                if arguments.stamp and not different:
                    stamp()
                return min(1, different)
            for name in models:
                for engine in engines_of(name):
                    renew(name, engine, library)
    finally:
        launchers.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
