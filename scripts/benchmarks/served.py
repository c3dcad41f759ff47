"""Is what is predicted of the engine's generator what runs, to the byte, and how many runs does a boundary take?

Each cell is a model cut to a few layers, a bit width, a cache, a way to load, an attention, a chunk, jobs, a cache that
they share and drafts, by n-grams or by a smaller model with bits and a cache of its own, all at random, on a card that
is predicted to hold about a random length. Its boundary is searched with the prediction, on the simulated card: of
every other cell along the length of jobs, of the others along that of the cache (cache_size=auto), with jobs of whole
pages and not. Of every case that is run, whether it fits or the phase in which memory runs out, the peaks of allocated,
requested and reserved bytes and the parts are compared with the prediction.

    .venv/bin/python scripts/benchmarks/served.py --cells 100
"""

from __future__ import annotations

import argparse
import gc
import random
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import mean

from bench.allocator.limits import case_limits
from bench.config.cases import plan_sweep
from bench.core.case import PAGE, Axis, Search
from bench.forecast.predict import predict_boundary
from bench.forecast.search import Observation, found, grid, next_probe
from bench.trace.passes import NoPrediction
from bench.trace.replay import Replayer
from bench.worker import cards
from tests.worker.predicted_and_simulated import predict, simulate, tensor_bytes_of, trace_of

MIB = 1 << 20
ENGINE = "exllamav2"
# Layers that show how they repeat, and the longest job.
MODELS = {
    "llama_3_1_8b": (8, 16384),
    "qwen2_5_14b": (7, 16384),
    "phi_3_medium_128k": (8, 16384),
    "gemma_2_9b": (10, 8192),
    "mixtral_8x7b": (7, 8192),
}
# Models that propose tokens, of the same vocabulary, and how many layers they are cut to.
DRAFTS = {
    "llama_3_1_8b": (("llama_3_2_1b", 6), ("llama_3_2_3b", 9)),
    "qwen2_5_14b": (("qwen2_5_7b", 5),),
    "phi_3_medium_128k": (("phi_3_mini_128k", 10),),
    "gemma_2_9b": (("gemma_2_9b", 9),),
    "mixtral_8x7b": (("mixtral_8x7b", 6),),
}
DEVICES = ("rtx_4090", "rtx_3060_12gb", "a100_40gb", "h100_80gb", "t4")
LAYOUTS = Path(tempfile.mkdtemp())


def random_search(chosen: random.Random, draft_models: float, axis: Axis) -> Search:
    """A search on a card of the catalogue, along the length of jobs or that of the cache; of all `draft_models` have a
    draft model.
    """
    model = chosen.choice(list(MODELS))
    layers, longest = MODELS[model]
    device = chosen.choice(DEVICES)
    attention = "auto" if device != "t4" else chosen.choice(("auto", "matmul"))
    jobs = 1 if device == "t4" else chosen.choice((1, 1, 2, 3, 4, 8, 16))
    chunk = chosen.choice((512, 1024, 2048))
    words = [f"model={model}", f"model.name=cut_{model}", f"model.config.num_hidden_layers={layers}"]
    words += [f"bpw={chosen.choice((2.5, 4.0, 6.0))}", f"cache={chosen.choice(('FP16', 'Q8', 'Q6', 'Q4'))}"]
    words += [f"device={device}", f"attention={attention}", f"lazy={str(chosen.random() < 0.3).lower()}"]
    words += [f"max_input_len={chunk}", f"batch_size={jobs}", "scenario=generator", f"max_seq_len={longest}"]
    if chosen.random() < draft_models:
        draft, depth = chosen.choice(DRAFTS[model])
        words += [f"draft.model={draft}", f"draft.model.name=cut_{draft}"]
        words += [f"draft.model.config.num_hidden_layers={depth}", f"draft.bpw={chosen.choice((3.0, 4.0, 6.0, 16.0))}"]
        words += [f"draft.cache={chosen.choice(('FP16', 'Q8', 'Q6', 'Q4'))}"]
        words += [f"num_draft_tokens={chosen.randrange(1, 8)}"]
    elif chosen.random() < 0.3:
        words += ["draft=ngram", f"num_draft_tokens={chosen.randrange(1, 8)}"]
    case = plan_sweep(words).cases[0]
    if axis is Axis.CACHE_SIZE:
        length = chosen.randrange(1, longest // PAGE) * PAGE + chosen.choice((0, 0, chosen.randrange(1, PAGE)))
        largest = max(2 * longest, jobs * longest * 5 // 4)
        return Search(replace(case, max_seq_len=length, cache_size=largest), axis)
    if chosen.random() < 0.4:
        case = replace(case, cache_size=longest * chosen.choice((1, 1, 2, jobs)))
    return Search(case)


def replayer_of(search: Search) -> Replayer:
    """What replays a search, recorded for it alone."""
    case = search.longest
    return Replayer(trace_of(case, LAYOUTS, search.axis), tensor_bytes_of(case, LAYOUTS))


def on_a_card_that_is_about_full(chosen: random.Random, search: Search, replayer: Replayer) -> Search:
    """The same on a smaller card, that has room for about a random length."""
    case = search.longest
    need = predict(replayer, case, chosen.choice(grid(search.search_end, search.shortest)[:-1]))
    between = need.peak_reserved_bytes - need.peak_allocated_bytes
    room = need.peak_allocated_bytes + int(between * chosen.uniform(0, 1.2)) + (case.device.context_bytes or 0)
    return search.along(replace(case, vram_limit_bytes=min(room, case.device.total_memory_bytes)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=100, metavar="N", help="cells to search (default 100)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--draft-models", type=float, default=0.3, metavar="SHARE", help="of cells (default 0.3)")
    arguments = parser.parse_args()
    cards.preload("simulated", ENGINE)
    gc.collect()
    gc.freeze()
    chosen = random.Random(arguments.seed)
    counts: Counter[str] = Counter()
    probes: list[int] = []
    for number in range(arguments.cells):
        axis = Axis.CACHE_SIZE if number % 2 else Axis.MAX_SEQ_LEN
        search = random_search(chosen, arguments.draft_models, axis)
        replayer = replayer_of(search)
        guess: int | None = None
        try:
            search = on_a_card_that_is_about_full(chosen, search, replayer)
            limits = case_limits(search.longest.device, search.longest.vram_limit_bytes, search.longest)
            boundary = predict_boundary(replayer, limits, search.search_end, search.shortest)
            guess = boundary.length if boundary.fits else 0
        except NoPrediction as reason:
            counts[f"boundaries by {search.axis} not predicted"] += 1
            print(f"not predicted: {search}: {reason}", flush=True)
        seen: list[Observation] = []
        while (length := next_probe(search.search_end, guess, seen, search.shortest)) is not None:
            probe = search.at(length)
            ran, _ = simulate(probe, LAYOUTS)
            seen.append(Observation(length, ran.fits))
            try:
                same = predict(replayer, probe, length) == ran
            except NoPrediction:
                counts[f"cases by {search.axis} not predicted"] += 1
                continue
            counts[f"cases by {search.axis} {'as predicted' if same else 'that differ'}"] += 1
            if not same:
                print(f"differs: {probe}", flush=True)
        fits_at = found(search.search_end, seen, search.shortest).fits_at
        inside = fits_at is not None and fits_at < search.search_end
        counts[f"boundaries by {search.axis} {'inside' if inside else 'at an end'}"] += 1
        probes.append(len(seen))
        case = search.longest
        print(
            f"{number} by {search.axis}: {case.model.name} {case.device.name} {case.cache} {case.batch_size} jobs "
            f"{case.max_seq_len} {case.cache_size} {case.num_draft_tokens} {len(seen)} probes, fits at {fits_at}",
            flush=True,
        )
    for name, count in sorted(counts.items()):
        print(f"{count:5} {name}")
    print(f"runs for a boundary: {mean(probes):.2f} on the mean, {max(probes)} at most")


if __name__ == "__main__":
    main()
