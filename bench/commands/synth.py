"""`vram-bench synth`: a checkpoint of any architecture and bpw, with weights that nobody trained."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench.answers.display import Display
from bench.commands.display import Quarters, display_for
from bench.config.cases import plan_checkpoint
from bench.config.models import resolve_model
from bench.config.settings import ModelSettings
from bench.config.units import parse_size
from bench.core.errors import BadInput, ExitCode
from bench.report.text.units import duration, size
from bench.synth.make import Recipe, lay_out, make, require_free

_MAX_SEED = (1 << 64) - 1


def run(arguments: argparse.Namespace) -> int:
    """`vram-bench synth KEY=VALUE… --out DIR [--seed N] [--shard-size SIZE] [--sparse]`."""
    return synth(arguments.overrides, arguments.out, arguments.seed, arguments.shard_size, arguments.sparse)


def synth(overrides: Sequence[str], out: Path, seed: int, shard_size: str, sparse: bool) -> int:
    """Makes the directory `out`; returns the exit code."""
    if not 0 <= seed <= _MAX_SEED:
        raise BadInput(f"--seed={seed}: give a number from 0 to {_MAX_SEED}")
    try:
        shard_bytes = parse_size(shard_size)
    except ValueError as error:
        raise BadInput(f"--shard-size={shard_size}: {error}") from None
    recipe = Recipe(plan_checkpoint(overrides), seed, shard_bytes, sparse)
    out = out.expanduser()
    require_free(out)
    started = time.monotonic()
    try:
        with display_for(sys.stderr) as display:
            display.begin(f"laying out {recipe.case.model.name}")
            display.say(f"laying out {recipe.case.model.name}")
            layout = lay_out(recipe.case)
            display.begin(f"{size(0)} of {size(layout.size_bytes)} written", layout.size_bytes)
            shards = make(recipe, layout, out, partial(_written, display, quarters=Quarters()))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on with the files that are missing", file=sys.stderr)
        return ExitCode.INTERRUPTED
    files = "1 file" if len(shards) == 1 else f"{len(shards)} files"
    kind = "sparse: all weights are zero" if sparse else f"random weights, seed {seed}"
    bpw = resolve_model(ModelSettings("local", path=str(out))).bpw
    print(
        f"{recipe.case.model.name} {bpw:g} bpw, {size(layout.size_bytes)} in {files}, {kind}; "
        f"{duration(time.monotonic() - started)}\n"
        f"use it with: model=local model.path={out}"
    )
    return ExitCode.DONE


def _written(display: Display, done: int, total: int, quarters: Quarters) -> None:
    """Shows how many of how many bytes are there."""
    display.reach(done, f"{size(done)} of {size(total)} written")
    if quarters.another(done, total):
        display.say(f"{size(done)} of {size(total)} written")
