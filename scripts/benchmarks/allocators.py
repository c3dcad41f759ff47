"""Is what is predicted with expandable segments what runs, to the byte? Random cells on cards that are about full.

Each cell is a model cut to a few layers, a bit width, a cache, an attention, a way to load, a chunk and a length. It is
predicted and run on a card that has between what is allocated at the peak and what is reserved, a little less or more.
Compared are whether it fits or the phase in which memory runs out, the peaks of allocated, requested and reserved
bytes, and the parts.

    .venv/bin/python scripts/benchmarks/allocators.py --cells 50
"""

from __future__ import annotations

import argparse
import gc
import random
import tempfile
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

from bench.allocator.limits import case_limits
from bench.config.cases import plan_sweep
from bench.core.case import ALLOCATORS, EXPANDABLE, Case
from bench.engines.registry import engine_of, rules_of
from bench.trace.parametric import ParametricTrace
from bench.trace.replay import Replayer
from bench.worker import cards, recorder
from tests.worker.predicted_and_simulated import predict, simulate, tensor_bytes_of

MIB = 1 << 20
ENGINE = "exllamav2"
LAYERS = {"llama_3_1_8b": 9, "qwen2_5_14b": 7, "phi_3_medium_128k": 8, "mistral_nemo_12b": 7, "gemma_2_9b": 8}
LAYOUTS = Path(tempfile.mkdtemp())


def case_of(model: str, how: str, **keys: object) -> Case:
    """A case of the model, cut; its card is an RTX 4090."""
    words = [f"model={model}", f"model.name=cut_{model}", f"model.config.num_hidden_layers={LAYERS[model]}"]
    asked = {"device": "rtx_4090", "max_seq_len": 8192, **keys}
    return plan_sweep([*words, *how.split(), *(f"{key}={value}" for key, value in asked.items())]).cases[0]


@cache
def trace_of(model: str, how: str, recorded_as: str) -> ParametricTrace:
    """Recorded once, of the cache in whose place it is recorded."""
    trace = recorder.make_trace(case_of(model, how, cache=recorded_as), LAYOUTS)
    assert isinstance(trace, ParametricTrace)
    return trace.deepened()


def replayer_of(model: str, how: str, case: Case) -> Replayer:
    """The search of a case."""
    recorded_as = engine_of(ENGINE).caches[case.cache].recorded_as
    rules = rules_of(ENGINE).prediction
    assert rules is not None
    return Replayer(rules.with_cache(trace_of(model, how, recorded_as), case.cache), tensor_bytes_of(case, LAYOUTS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=50, metavar="N")
    parser.add_argument("--recordings", type=int, default=10, metavar="N", help="to predict them with (default 10)")
    parser.add_argument("--allocator", choices=ALLOCATORS, default=EXPANDABLE)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    cards.preload("simulated", ENGINE)
    gc.collect()
    gc.freeze()
    chosen = random.Random(arguments.seed)
    hows = [
        (
            chosen.choice(list(LAYERS)),
            f"attention={chosen.choice(('flash', 'sdpa', 'matmul'))} lazy={chosen.choice(('true', 'false'))} "
            f"max_input_len={chosen.choice((512, 2048))}",
            number % 2 == 0,
        )
        for number in range(arguments.recordings)
    ]
    counts: Counter[str] = Counter()
    for number in range(arguments.cells):
        model, how, is_plain = hows[number * len(hows) // arguments.cells]
        cache_type = "FP16" if is_plain else chosen.choice(("Q8", "Q6", "Q4"))
        length, bpw = chosen.randrange(300, 8193), chosen.choice((2.5, 4.0, 6.0))
        case = case_of(model, how, cache=cache_type, max_seq_len=length, bpw=bpw, allocator=arguments.allocator)
        replayer = replayer_of(model, how, case)
        need = replayer.replay(length, case_limits(case.device, None, case), endless=True)
        most = need.peak_reserved_bytes + 8 * MIB
        size = chosen.randrange(need.peak_allocated_bytes - 8 * MIB, most) + (case.device.context_bytes or 0)
        case = replace(case, vram_limit_bytes=size)
        predicted = predict(replayer, case)
        ran, retries = simulate(case, LAYOUTS)
        counts["as predicted" if ran == predicted else "differ"] += 1
        counts[f"ended: {ran.failed_in or 'fits'}"] += 1
        counts["gave cached memory back, and fit"] += bool(retries) and ran.fits
        if ran != predicted:
            print(f"differs: cell {number} {case.model.name} {how} {cache_type} {bpw} {length} {size}", flush=True)
            print(f"  {ran}\n  {predicted}")
    print(f"{arguments.cells} cells, allocator={arguments.allocator}")
    for what, count in sorted(counts.items()):
        print(f"  {what}: {count}")


if __name__ == "__main__":
    main()
