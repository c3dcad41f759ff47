"""Is what is predicted for several cards what runs there, to the byte? On random machines that are rather small.

Each cell is a model cut to a few layers, a bit width, a cache and a chunk on two or three made-up cards that differ
in size, CUDA context and kind. They are as large as the predictions need for a random length, in random proportions, so
that most boundaries are inside the search. The boundary is searched with the prediction, on simulated cards. Every case
is compared with its prediction: whether it fits or the phase in which memory runs out, which layers are where, and on
each card the peaks of allocated, requested and reserved bytes and the parts.

With `--split gpu_split` the numbers are random, too, and a length in a predicted gap is run beside the boundary. With
`--split best` and two cards every division of the model is replayed 256 tokens above the boundary: none should fit.

    .venv/bin/python scripts/benchmarks/several_cards.py --cells 100 --split auto
"""

from __future__ import annotations

import argparse
import gc
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from statistics import mean

from bench.allocator.limits import MachineLimits, limits_of
from bench.config.cases import plan_sweep
from bench.core.case import PAGE, Case
from bench.core.split import Split, SplitBy
from bench.engines.base import PredictionRules
from bench.engines.registry import engine_of, rules_of
from bench.forecast.predict import AnyReplayer, best_split, predict_boundary
from bench.forecast.search import Observation, found, next_probe
from bench.trace.best_replay import BestReplayer
from bench.trace.card_programs import SplitReplay
from bench.trace.passes import NoPrediction
from bench.trace.split import SplitTrace
from bench.worker import recorder
from bench.worker.cards import preload
from tests.worker.predicted_and_simulated import Ended, run, tensor_bytes_of

MIB = 1 << 20
ENGINE = "exllamav2"
MODELS = {
    "llama_3_1_8b": (14, 8192),
    "llama_3_1_70b": (12, 8192),
    "qwen2_5_14b": (17, 8192),
    "phi_3_medium_128k": (16, 8192),
    "mistral_nemo_12b": (15, 8192),
    "command_r_35b": (13, 8192),
}
# Longer, as what tensor parallelism takes while it loads follows no length.
DIVIDED = {
    "llama_3_1_8b": (14, 32768),
    "llama_3_1_70b": (12, 32768),
    "qwen2_5_14b": (17, 32768),
    "qwen2_5_7b": (15, 32768),
}
# Deeper, as a last card with two to four whole layers is not predicted.
EXPERTS = {"mixtral_8x7b": (16, 8192), "qwen3_30b_a3b": (20, 8192)}
ALTERNATING = {"gemma_2_9b": (16, 8192), "gemma_3_12b": (19, 8192)}
OF_LAYERS = {"dense": MODELS, "experts": EXPERTS, "alternating": ALTERNATING}
LAYOUTS = Path(tempfile.mkdtemp())
# Sizes of a machine that are tried, in multiples of what its model needs on one card, and how finely one is told; and
# how many machines are drawn until one holds a length at any size (a gpu_split may be too small for the model).
SMALLEST, GROWTH, SIZES, FINEST = 0.7, 1.04, 40, 0.0001
DRAWN = 10


def differences(ran: Ended, predicted: SplitReplay) -> list[str]:
    """What is not as predicted. Where memory runs out in loading, the last card got as far as it got."""
    if ran.failed_in != predicted.failed_in:
        return [f"ran out in {ran.failed_in}, predicted in {predicted.failed_in}"]
    told = []
    if ran.layers is not None and tuple(ran.layers) != predicted.attention_layers:
        told.append(f"layers {ran.layers}, predicted {predicted.attention_layers}")
    if ran.failed_in is None:
        for number, (figures, card) in enumerate(zip(ran.cards, predicted.cards, strict=True)):
            if figures != card:
                told.append(f"card {number}: {figures}, predicted {card}")
    return told


@cache
def trace_of(model: str, cache_type: str, chunk: int, by: str, count: int) -> SplitTrace:
    """Recorded once, of the cache in whose place it is recorded."""
    trace = recorder.make_trace(case_of(model, 4.0, cache_type, chunk, by, count), LAYOUTS)
    assert isinstance(trace, SplitTrace)
    return trace


@cache
def tensor_bytes(model: str, bpw: float) -> dict[str, int]:
    """The sizes of the checkpoint's tensors."""
    return tensor_bytes_of(case_of(model, bpw, "FP16", 2048, SplitBy.AUTO), LAYOUTS)


def case_of(model: str, bpw: float, cache_type: str, chunk: int, by: str, count: int = 2) -> Case:
    """A case on so many cards; their sizes come later."""
    layers, longest = {**MODELS, **DIVIDED, **EXPERTS, **ALTERNATING}[model]
    words = [f"model={model}", f"model.name=cut_{model}", f"model.config.num_hidden_layers={layers}", f"bpw={bpw}"]
    words += [f"cache={cache_type}", f"max_input_len={chunk}", f"max_seq_len={longest}", f"device={count}xrtx_4090"]
    words += [f"split=[{','.join(['20'] * count)}]"] if by == SplitBy.GPU_SPLIT else [f"split={by}"]
    return plan_sweep(words).cases[0]


def random_machine(chosen: random.Random, case: Case, needed: int, weights: int) -> Case:
    """`case` on other cards, which have about what is `needed` together; `weights` are bytes of its tensors."""
    shares = [chosen.uniform(0.45, 1.0) for _ in case.devices]
    kinds = [("8.6", 28), ("8.9", 128), ("9.0", 132), ("12.0", 170), ("8.0", 108)]
    devices = []
    for share in shares:
        capability, multiprocessors = chosen.choice(kinds)
        context = chosen.randrange(200, 600) * MIB
        devices.append(
            replace(
                case.device,
                total_memory_bytes=int(needed * share / sum(shares)) + context,
                context_bytes=context,
                compute_capability=capability,
                multi_processor_count=multiprocessors,
                workspace_bytes=None,
            )
        )
    first, *others = devices
    split = Split.parse(str(case.split))
    if split.by is SplitBy.AUTO and chosen.random() < 0.4:
        split = Split(SplitBy.AUTO, None, tuple(chosen.choice((0, 96, 512, 64)) * MIB for _ in devices))
    if split.by is SplitBy.GPU_SPLIT:
        gib = [
            weights * share / sum(shares) * chosen.uniform(0.9, 1.1) / (1 << 30) + chosen.uniform(0.1, 1)
            for share in shares
        ]
        split = Split(SplitBy.GPU_SPLIT, tuple(round(number, 2) for number in gib))
    if split.by is SplitBy.TENSOR_PARALLEL and chosen.random() < 0.3:
        gib = [device.total_memory_bytes * chosen.uniform(0.8, 1.2) / (1 << 30) for device in devices]
        split = Split(split.by, tuple(round(number, 2) for number in gib))
    return replace(case, device=first, more_devices=tuple(others), split=str(split))


def resized(case: Case, scale: float) -> Case:
    """The case on cards on which PyTorch has `scale` times as much, in units of 64 KiB."""
    devices = []
    for device in case.devices:
        context = device.context_bytes or 0
        size = int((device.total_memory_bytes - context) * scale) // (1 << 16) * (1 << 16) + context
        devices.append(replace(device, total_memory_bytes=size, name=f"made_up_{size >> 20}_mib"))
    return replace(case, device=devices[0], more_devices=tuple(devices[1:]))


def limits_of_machine(case: Case) -> MachineLimits:
    """The cards of the case, as the allocators see them."""
    return MachineLimits.of(limits_of(device, None) for device in case.devices)


def just_large_enough(case: Case, replayer: AnyReplayer, max_seq_len: int) -> Case | None:
    """The case on cards in these proportions that are predicted to hold that length, and little more.

    None where it is predicted for no size.
    """

    def holds(scale: float) -> bool:
        try:
            return replayer.replay(max_seq_len, limits_of_machine(resized(case, scale))).fits
        except NoPrediction:
            return False

    scales = [SMALLEST * GROWTH**number for number in range(SIZES)]
    first = next((number for number, scale in enumerate(scales) if holds(scale)), None)
    if first is None:
        return None
    few, enough = scales[first] / GROWTH, scales[first]
    while enough - few > FINEST:
        middle = (few + enough) / 2
        few, enough = (few, middle) if holds(middle) else (middle, enough)
    return resized(case, enough)


def random_cell(
    chosen: random.Random, case: Case, replayer_of: Callable[[Case], AnyReplayer], sizes: Mapping[str, int]
) -> tuple[Case, AnyReplayer]:
    """The case on random cards that just hold a random length, where any of some are predicted to; and its replayer."""
    length = chosen.randrange(1, case.max_seq_len // PAGE) * PAGE
    plenty = MachineLimits((limits_of(case.device, None),) * len(case.devices))
    needed = replayer_of(case).needed_bytes(length, plenty)
    weights = sum(size for name, size in sizes.items() if "embed_tokens" not in name)
    for _ in range(DRAWN):
        drawn = random_machine(chosen, case, needed, weights)
        replayer = replayer_of(drawn)
        if machine := just_large_enough(drawn, replayer, length):
            return machine, replayer
    return resized(drawn, chosen.uniform(1.0, 1.5)), replayer


def to_run(case: Case, max_seq_len: int, replayer: AnyReplayer, limits: MachineLimits) -> Case:
    """The case at that length, with the best split where that is asked for."""
    split = best_split(replayer, limits, max_seq_len)
    told = case.split if split is None else f"{SplitBy.GPU_SPLIT}({split[1:-1]})"
    return replace(case, max_seq_len=max_seq_len, split=told)


def goes_further(replayer: BestReplayer, max_seq_len: int, limits: MachineLimits) -> bool:
    """Whether any division of the model among two cards is predicted to fit at that length."""
    for cut in replayer.divisions.cuts[1:]:
        try:
            if replayer.placed.replay_placed(replayer.divisions.placement([cut]), max_seq_len, limits).fits:
                return True
        except NoPrediction:
            continue
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=100, metavar="N", help="cells to search (default 100)")
    parser.add_argument("--recordings", type=int, default=10, metavar="N", help="to predict them with (default 10)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--split", choices=[by.value for by in SplitBy], default=SplitBy.AUTO.value, help="how the model is split"
    )
    parser.add_argument("--layers", choices=list(OF_LAYERS), default="dense", help="what the models are made of")
    parser.add_argument("--model", choices=list({**MODELS, **DIVIDED, **EXPERTS, **ALTERNATING}), help="one alone")
    arguments = parser.parse_args()
    preload("simulated", ENGINE)
    gc.collect()
    gc.freeze()
    chosen = random.Random(arguments.seed)
    counts: Counter[str] = Counter()
    probes: list[int] = []
    predicting = running = 0.0
    by = SplitBy(arguments.split)
    models = DIVIDED if by is SplitBy.TENSOR_PARALLEL else OF_LAYERS[arguments.layers]
    if arguments.model is not None:
        models = {name: shape for name, shape in models.items() if name == arguments.model}
    if not models:
        parser.error(f"{arguments.model} is none of these models: see --split and --layers")
    recordings = [
        (chosen.choice(list(models)), chosen.choice((512, 2048)), chosen.choice((2, 2, 3)), recorded_as)
        for recorded_as in ("FP16", "Q6") * (arguments.recordings // 2)
    ]
    for number in range(arguments.cells):
        model, chunk, count, recorded_as = recordings[number * len(recordings) // arguments.cells]
        bpw, cache_type = chosen.choice((2.5, 4.0, 6.0)), "FP16"
        if recorded_as != cache_type:
            cache_type = chosen.choice(("Q8", "Q6", "Q4"))
        if by is not SplitBy.TENSOR_PARALLEL:  # its recording is of as many cards
            count = chosen.choice((2, 2, 3))
        case = case_of(model, bpw, cache_type, chunk, by, count)
        spec, rules = engine_of(ENGINE), rules_of(ENGINE).prediction
        assert isinstance(rules, PredictionRules)
        as_many = count if by is SplitBy.TENSOR_PARALLEL else 2
        recorded = trace_of(model, spec.caches[cache_type].recorded_as, chunk, by, as_many)
        trace = recorded.with_cache(rules.with_cache, cache_type)
        sizes = tensor_bytes(model, bpw)
        case, replayer = random_cell(chosen, case, partial(rules.split_replayer, trace, sizes), sizes)
        limits = limits_of_machine(case)
        search_end = case.max_seq_len
        started = time.process_time()
        try:
            boundary = predict_boundary(replayer, limits, search_end)
            guess: int | None = boundary.max_seq_len if boundary.fits else 0
            gaps = boundary.gaps or ()
        except NoPrediction as reason:
            guess, gaps = None, ()
            counts[f"no prediction: {reason}"] += 1
        predicting += time.process_time() - started
        observations: list[Observation] = []
        in_gaps = [last for _, last in gaps[-1:]]
        while (length_ := next(iter(in_gaps), next_probe(search_end, guess, observations))) is not None:
            started = time.process_time()
            ran = run(to_run(case, length_, replayer, limits), LAYOUTS)
            running += time.process_time() - started
            if in_gaps:
                counts["lengths in a gap that fail" if ran.failed_in else "lengths in a gap that fit"] += 1
                in_gaps.clear()
            else:
                observations.append(Observation(length_, ran.failed_in is None))
            try:
                told = differences(ran, replayer.replay(length_, limits))
            except NoPrediction as reason:
                counts[f"case not predicted: {reason}"] += 1
                continue
            counts["cases as predicted" if not told else "cases that differ"] += 1
            counts[f"ended: {ran.failed_in or 'fits'}"] += 1
            if told:
                print(f"differs: cell {number} {case.model.name} {bpw} {cache_type} {chunk} {length_} {case.split}")
                print("  ", *told, sep="\n   ", flush=True)
        fits_at = found(search_end, observations).fits_at
        probes.append(len(observations))
        as_predicted = "as predicted" if (guess or None) == fits_at else "differs"
        counts[f"boundary {'not predicted' if guess is None else as_predicted}"] += 1
        print(
            f"{number} {case.model.name} {bpw} {cache_type} {chunk} {case.split} {len(observations)} probes", flush=True
        )
        if isinstance(replayer, BestReplayer) and len(case.devices) == 2 and guess is not None and guess < search_end:
            further = goes_further(replayer, guess + PAGE, limits)
            counts["another division goes further" if further else "no division goes further"] += 1
        counts["nothing fits" if fits_at is None else "all fits" if fits_at == search_end else "inside"] += 1
    print(f"{arguments.cells} cells, {mean(probes):.2f} probes on average, at most {max(probes)}")
    for what, count in sorted(counts.items()):
        print(f"  {what}: {count}")
    print(f"CPU seconds: {predicting:.1f} to predict the boundaries, {running:.1f} to run {sum(probes)} cases")


if __name__ == "__main__":
    main()
