"""Is what is predicted of exllamav3 what runs, to the byte? Random cells, most of whose boundaries lie inside.

Each cell is a model of the catalogue, whole or with some of its layers, a bit width with a head of its own, a cache
of any pair of bits, a chunk, kind of segments, and a simulated card that is limited to about what a random length
needs. Its boundary is searched with the prediction. Every case is compared with its prediction: the phase in which
memory runs out, the peaks of allocated, requested and reserved bytes, of the whole device, and the parts.

    .venv/bin/python scripts/benchmarks/exllamav3_cells.py --cells 100

`--kind` says what is drawn: dense models, those with experts (which are cut to few layers), several sequences at
once, the engine's own way to load (`load=autosplit`), models with states beside the cache, or with latent attention;
`--kind all` takes turns.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import random
import tempfile
import time
from collections import Counter
from functools import cache
from pathlib import Path
from statistics import mean

from bench.allocator.limits import case_limits
from bench.config.cases import plan_sweep
from bench.core.case import PAGE, Case
from bench.engines.registry import engine_of, rules_of
from bench.forecast.predict import predict_fits_at
from bench.forecast.search import Observation, found, next_probe
from bench.forecast.speed import layers_and_experts
from bench.trace.parametric import ParametricTrace
from bench.trace.passes import NoPrediction
from bench.trace.replay import Replayer
from bench.worker import recorder
from bench.worker.cards import preload
from bench.worker.engines.exllamav3.shallow import with_layers
from tests.worker.predicted_and_simulated import simulate

ENGINE = "exllamav3"
DENSE = (
    "autoglm_phone_9b",
    "command_r_35b",
    "gemma_2_9b",
    "gemma_3_12b",
    "glm_4_9b_0414",
    "glm_tts",
    "llama_3_1_70b",
    "llama_3_1_8b",
    "llama_3_2_1b",
    "llama_3_2_3b",
    "mistral_nemo_12b",
    "mistral_small_3_2_24b",
    "phi_3_medium_128k",
    "phi_4",
    "qwen2_5_14b",
    "qwen2_5_7b",
    "qwen3_14b",
    "qwen3_32b",
    "qwen3_8b",
    "tinyllama_1_1b",
)
STATES = ("gpt_oss_20b", "qwen3_5_27b")
EXPERTS = ("mixtral_8x7b", "qwen3_30b_a3b")
LATENT = ("glm_4_7_flash",)
FEW_LAYERS = (*EXPERTS, *LATENT, "gpt_oss_20b")
POOLS = {
    "dense": DENSE,
    "experts": EXPERTS,
    "sequences": (*DENSE, *EXPERTS),
    "autosplit": (*DENSE, *EXPERTS),
    "states": STATES,
    "latent": LATENT,
}
CARDS = ("rtx_3060_12gb", "rtx_3090", "rtx_4090", "rtx_5090", "a100_80gb", "h200_141gb")
_KEPT_FREE_BYTES = 1 << 29  # by autosplit
LAYOUTS = Path(tempfile.mkdtemp())


def draw(chosen: random.Random, kind: str) -> tuple[Case, int]:
    """A cell, and where its search ends; its card has no limit yet."""
    models = POOLS[kind]
    words: dict[str, object] = {
        "model": chosen.choice(models),
        "bpw": chosen.choice((1.5, 2.0, 2.25, 2.5, 3.0, 3.5, 3.75, 4.0, 4.25, 5.0, 6.0, 8.0)),
        "head_bits": chosen.choice((4, 6, 6, 8)),
        "cache": chosen.choice(("FP16", "FP16", "Q8", "Q6", "Q4", chosen.choice(list(engine_of(ENGINE).caches)))),
        "max_input_len": chosen.choice((512, 1024, 2048, 2048)),
        "allocator": chosen.choice(("expandable", "expandable", "native")),
        "device": chosen.choice(CARDS),
    }
    if kind == "sequences":
        words["batch_size"] = chosen.choice((2, 2, 3, 4, 8, 12))
    if kind == "autosplit":
        words["load"] = "autosplit"
    search = plan_sweep([f"engine={ENGINE}", *(f"{key}={value}" for key, value in words.items())]).searches[0]
    case = search.longest
    depth, _ = layers_and_experts(case.model) or (0, 0)
    layers = depth if chosen.random() < 0.25 else chosen.randrange(max(2, depth // 3), depth + 1)
    if case.model.name in FEW_LAYERS:
        layers = chosen.randrange(6, 13)
    if layers < depth:
        config = with_layers(case.model.config, layers, depth)
        name, fingerprint = f"cut_{case.model.name}", f"{case.model.fingerprint}-{layers}"
        case = dataclasses.replace(
            case, model=dataclasses.replace(case.model, name=name, config=config, fingerprint=fingerprint)
        )
    return case, search.search_end


@cache
def _trace(case: Case) -> ParametricTrace:
    trace = recorder.make_trace(case, LAYOUTS)
    assert isinstance(trace, ParametricTrace)
    return trace.deepened()


def replayer_of(case: Case) -> Replayer:
    """As `bench.forecast.library` has it. Raises `NoPrediction`."""
    rules = rules_of(ENGINE).prediction
    if reason := rules.unpredicted(case):
        raise NoPrediction(reason)
    assert rules.with_loading is not None
    return Replayer(rules.with_loading(_trace(case), recorder.make_loading(case, LAYOUTS)), {})


def limited(case: Case, needed_bytes: int, chosen: random.Random) -> Case:
    """`case` on its card, limited to about what is needed with the context: a little more, or not quite."""
    context = case_limits(case.device, None, case).context_bytes
    kept_free = _KEPT_FREE_BYTES if case.lazy else 0
    limit = int(needed_bytes * chosen.uniform(0.97, 1.03)) + kept_free + context
    device = dataclasses.replace(case.device, total_memory_bytes=max(limit, case.device.total_memory_bytes))
    return dataclasses.replace(case, device=device, vram_limit_bytes=limit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=100, metavar="N", help="cells to search (default 100)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=[*POOLS, "all"], default="all")
    parser.add_argument("--longest", type=int, default=1 << 20, metavar="TOKENS", help="the longest length to draw")
    arguments = parser.parse_args()
    preload("simulated", ENGINE)
    gc.collect()
    gc.freeze()
    chosen = random.Random(arguments.seed)
    counts: Counter[str] = Counter()
    probes: dict[str, list[int]] = {}
    seconds = Counter[str]()
    for number in range(arguments.cells):
        kind = list(POOLS)[number % len(POOLS)] if arguments.kind == "all" else arguments.kind
        case, search_end = draw(chosen, kind)
        length = chosen.randrange(1, min(search_end, arguments.longest) // PAGE) * PAGE
        if case.lazy:  # the engine loads with no cache that is shorter than a chunk
            length = max(length, 2 * case.max_input_len)
        started = time.process_time()
        replayer, reason = None, ""
        try:
            replayer = replayer_of(case)
            need = replayer.replay(length, case_limits(case.device, None, case), endless=True).peak_held_bytes
        except NoPrediction as why:
            replayer, reason = None, str(why)
            endless = dataclasses.replace(case.device, total_memory_bytes=1 << 50)
            need = simulate(dataclasses.replace(case, max_seq_len=length, device=endless), LAYOUTS)[0].peak_held_bytes
        case = limited(case, need, chosen)
        limits = case_limits(case.device, case.vram_limit_bytes, case)
        guess = None
        if replayer is not None:
            try:
                guess = predict_fits_at(replayer, limits, search_end)
            except NoPrediction as why:
                reason = str(why)
        seconds["recorded and predicted"] += time.process_time() - started  # type: ignore[assignment]
        started = time.process_time()
        observations: list[Observation] = []
        told = []
        while (probe := next_probe(search_end, guess, observations)) is not None:
            ran, _ = simulate(dataclasses.replace(case, max_seq_len=probe), LAYOUTS)
            observations.append(Observation(probe, ran.failed_in is None))
            counts[f"{kind}: ended: {ran.failed_in or 'fits'}"] += 1
            try:
                if replayer is None:
                    raise NoPrediction(reason)
                predicted = replayer.replay(probe, limits)
            except NoPrediction as why:
                counts[f"{kind}: cases without a prediction: {why}"] += 1
                continue
            counts[f"{kind}: cases {'equal' if ran == predicted else 'that differ'}"] += 1
            if ran != predicted:
                told.append(f"{probe}: {ran}\n    predicted {predicted}")
        seconds["run"] += time.process_time() - started  # type: ignore[assignment]
        fits_at = found(search_end, observations).fits_at
        probes.setdefault(kind, []).append(len(observations))
        where = "nothing fits" if fits_at is None else "all fits" if fits_at == search_end else "inside"
        counts[f"{kind}: boundary {where}"] += 1
        if guess is not None:
            counts[f"{kind}: boundary {'as predicted' if (guess or None) == fits_at else 'differs'}"] += 1
        layers, _ = layers_and_experts(case.model) or (0, 0)
        axes = f"{case.bpw} h{case.head_bits} {case.cache} {case.max_input_len} {case.allocator} {case.device.name}"
        if case.batch_size > 1:
            axes += f" x{case.batch_size}"
        cell = f"{number} {kind} {case.model.name}-{layers} {axes} {case.vram_limit_bytes}"
        print(f"{cell}: {fits_at}, {len(observations)} runs")
        for line in told:
            print(f"  differs at {line}")
        print(end="", flush=True)
    for kind, runs in probes.items():
        print(f"{kind}: {len(runs)} cells, {mean(runs):.2f} runs on average, at most {max(runs)}")
    for what, count in sorted(counts.items()):
        print(f"  {what}: {count}")
    print("CPU seconds:", ", ".join(f"{taken:.0f} {what}" for what, taken in seconds.items()))


if __name__ == "__main__":
    main()
