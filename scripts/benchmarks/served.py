"""Is what is predicted of the engine's generator what runs, to the byte, and how many runs does a boundary take?

Each cell is a model cut to a few layers, a bit width, a cache, a way to load, an attention, a chunk, jobs, a cache that
they share and drafts, by n-grams or by a smaller model with bits and a cache of its own, all at random, on a card that
is predicted to hold about a random length. Its boundary is searched with the prediction, on the simulated card; of
every case that is run, whether it fits or the phase in which memory runs out, the peaks of allocated, requested and
reserved bytes and the parts are compared with the prediction.

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
from bench.core.case import PAGE, Case
from bench.forecast.predict import predict_boundary
from bench.forecast.search import Observation, found, next_probe
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


def random_case(chosen: random.Random, draft_models: float) -> Case:
    """A case on a card of the catalogue, as long as its jobs may be; of all `draft_models` have one."""
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
    if chosen.random() < 0.4:
        case = replace(case, cache_size=longest * chosen.choice((1, 1, 2, jobs)))
    return case


def replayer_of(case: Case) -> Replayer:
    """The search of a case, recorded for it alone."""
    return Replayer(trace_of(case, LAYOUTS), tensor_bytes_of(case, LAYOUTS))


def on_a_card_that_is_about_full(chosen: random.Random, case: Case, replayer: Replayer) -> Case:
    """The same on a smaller card, that has room for about a random length."""
    length = chosen.randrange(1, case.max_seq_len // PAGE) * PAGE
    need = predict(replayer, replace(case, max_seq_len=length))
    between = need.peak_reserved_bytes - need.peak_allocated_bytes
    room = need.peak_allocated_bytes + int(between * chosen.uniform(0, 1.2)) + (case.device.context_bytes or 0)
    return replace(case, vram_limit_bytes=min(room, case.device.total_memory_bytes))


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
        case = random_case(chosen, arguments.draft_models)
        replayer = replayer_of(case)
        guess: int | None = None
        try:
            case = on_a_card_that_is_about_full(chosen, case, replayer)
            limits = case_limits(case.device, case.vram_limit_bytes, case)
            boundary = predict_boundary(replayer, limits, case.max_seq_len)
            guess = boundary.max_seq_len if boundary.fits else 0
        except NoPrediction as reason:
            counts["boundaries not predicted"] += 1
            print(f"not predicted: {case.model.name} {case.attention} {case.cache} {case}: {reason}", flush=True)
        seen: list[Observation] = []
        while (length := next_probe(case.max_seq_len, guess, seen)) is not None:
            probe = replace(case, max_seq_len=length)
            ran, _ = simulate(probe, LAYOUTS)
            seen.append(Observation(length, ran.fits))
            try:
                same = predict(replayer, probe) == ran
            except NoPrediction:
                counts["cases not predicted"] += 1
                continue
            counts["cases as predicted" if same else "cases that differ"] += 1
            if not same:
                print(f"differs: {probe}", flush=True)
        fits_at = found(case.max_seq_len, seen).fits_at
        inside = fits_at is not None and fits_at < case.max_seq_len
        counts["boundaries inside" if inside else "boundaries at an end"] += 1
        probes.append(len(seen))
        print(
            f"{number} {case.model.name} {case.device.name} {case.cache} {case.batch_size} jobs {case.cache_size} "
            f"{case.draft} {len(seen)} probes, fits at {fits_at}",
            flush=True,
        )
    for name, count in sorted(counts.items()):
        print(f"{count:5} {name}")
    print(f"runs for a boundary: {mean(probes):.2f} on the mean, {max(probes)} at most")


if __name__ == "__main__":
    main()
