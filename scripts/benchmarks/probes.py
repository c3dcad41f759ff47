"""How many probes does a certified boundary take? Prediction-led search, bisection and a doubling grid, side by side.

First a sample of the matrix is really run on simulated cards: is the predicted boundary the certified one, and are the
predicted peaks those of the runs, to the byte? Then the probes of each strategy are counted over the whole matrix,
where replays answer in place of runs.

    .venv/bin/python scripts/benchmarks/probes.py --run 120
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import mean

from bench.allocator.limits import limits_of
from bench.config.cases import plan_sweep
from bench.core.case import PAGE, Search
from bench.forecast.library import TraceLibrary
from bench.forecast.predict import predict_fits_at
from bench.forecast.search import Observation, next_probe
from bench.launch.launchers import Launchers
from bench.run.sweep import SweepOptions, new_run_id, run_sweep
from bench.store.store import read_boundaries, read_cases
from bench.trace.passes import NoPrediction

MATRIX = [
    "model=llama_3_1_8b,llama_3_1_70b,mistral_nemo_12b,mixtral_8x7b,phi_3_medium_128k,qwen2_5_32b,gemma_2_27b,command_r_35b",
    "bpw=2.5,3.5,4.5,6.0",
    "cache=FP16,Q8,Q6,Q4",
    "lazy=false,true",
    "device=rtx_3060_12gb,rtx_4060_ti_16gb,rtx_4090,rtx_5090,a100_40gb,l40s",
    "max_seq_len=auto",
]
# In no catalogue: shapes of their own, on the command line over a catalogue entry.
OUTSIDE = [
    "model=llama_3_1_8b",
    "model.name=made_up",
    "model.config.hidden_size=3072",
    "model.config.intermediate_size=9216",
    "model.config.num_hidden_layers=37",
    "model.config.num_attention_heads=24",
    "model.config.num_key_value_heads=6",
    "model.config.vocab_size=70001",
    *MATRIX[1:],
]

Fits = Callable[[int], bool]


def prediction_led(native: int, fits: Fits, predicted: int) -> int:
    """Probes until the boundary is certified, from a prediction that is not corrected on the way."""
    return _search(native, fits, predicted)


def bisection(native: int, fits: Fits) -> int:
    """Probes until the boundary is certified, from nothing."""
    return _search(native, fits, None)


def doubling_grid(native: int, fits: Fits) -> int:
    """2,048 tokens, then twice as many until one fails, then bisection in pages between the last two."""
    observations = []
    length = min(2 * 1024, native)
    while True:
        observations.append(Observation(length, fits(length)))
        if not observations[-1].fits or length == native:
            break
        length = min(2 * length, native)
    return _search(native, fits, None, observations)


def _search(native: int, fits: Fits, predicted: int | None, observations: list[Observation] | None = None) -> int:
    observations = observations or []
    while (length := next_probe(native, predicted, observations)) is not None:
        observations.append(Observation(length, fits(length)))
    return len(observations)


def really_run(searches: list[Search], results_dir: Path) -> None:
    """Sweeps `searches` and says how the predictions did."""
    started_at = time.monotonic()
    finished = run_sweep([], searches, SweepOptions(results_dir, new_run_id(), 900))
    boundaries = [b for b in read_boundaries(results_dir)[0].to_pylist() if b["boundary_id"] in finished.boundary_ids]
    cases = {row["case_id"]: row for row in read_cases(results_dir)[0].to_pylist()}
    fitting = [row for row in cases.values() if row["outcome"] == "fits"]
    right = sum((b["predicted_fits_at"] or None) == b["fits_at"] and b["certified"] for b in boundaries)
    exact = sum(row["predicted_peak_bytes"] == row["peak_allocated_bytes"] for row in fitting)
    print(f"Really run, on simulated cards: {len(boundaries)} cells in {time.monotonic() - started_at:.0f} s")
    print(f"  certified                                    {sum(b['certified'] for b in boundaries)}")
    print(f"  the predicted boundary is the certified one  {right}")
    print(f"  probes, mean                                 {mean(b['probes'] for b in boundaries):.2f}")
    print(f"  cases that fit                               {len(fitting)}")
    print(f"  predicted peak allocated bytes equal         {exact}")
    for boundary in boundaries:
        if (boundary["predicted_fits_at"] or None) != boundary["fits_at"]:
            keys = ("model", "device_name", "bpw", "cache", "lazy", "predicted_fits_at", "fits_at", "outcome", "error")
            print("  differs:", {key: boundary[key] for key in keys})


def count(searches: list[Search], programs: TraceLibrary) -> None:
    """Counts the probes of every strategy over `searches`, answered by replays."""
    counts: dict[str, list[int]] = {}
    kinds = {"nothing fits": 0, "inside": 0, "all fits": 0, "unpredictable": 0}
    searches = sorted(searches, key=lambda search: programs.search_key(search.longest))
    key, replayer = "", None
    for search in searches:
        case, native = search.longest, search.search_end
        try:
            if programs.search_key(case) != key:
                key, replayer = programs.search_key(case), programs.replayer(case)
            assert replayer is not None
            limits = limits_of(case.device, case.vram_limit_bytes)
            predicted = predict_fits_at(replayer, limits, native)
        except NoPrediction:
            kinds["unpredictable"] += 1
            continue
        kinds["nothing fits" if not predicted else "all fits" if predicted == native else "inside"] += 1

        @cache
        def fits(length: int, replay=replayer.replay, limits=limits) -> bool:  # type: ignore[no-untyped-def]
            return bool(replay(length, limits).fits)

        strategies = {
            "prediction-led": prediction_led(native, fits, predicted),
            "prediction-led, 5 % too long": prediction_led(native, fits, _pages(predicted * 1.05)),
            "prediction-led, 5 % too short": prediction_led(native, fits, _pages(predicted * 0.95)),
            "bisection": bisection(native, fits),
            "doubling grid, then bisection": doubling_grid(native, fits),
        }
        for name, probes in strategies.items():
            counts.setdefault(name, []).append(probes)
            if 0 < predicted < native:
                counts.setdefault(f"{name}*", []).append(probes)
    print(f"\nCounted on replays: {len(searches)} cells ({', '.join(f'{n} {kind}' for kind, n in kinds.items())})")
    print(f"  {'probes for a certified boundary':34}{'mean':>8}{'most':>6}{'x':>7}    mean of those inside")
    least = mean(counts["prediction-led"])
    for name in [name for name in counts if not name.endswith("*")]:
        probes, inside = counts[name], counts[f"{name}*"]
        print(f"  {name:34}{mean(probes):8.2f}{max(probes):6}{mean(probes) / least:7.1f}    {mean(inside):.2f}")


def _pages(length: float) -> int:
    return round(length / PAGE) * PAGE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=int, default=120, metavar="N", help="cells to run really (default 120)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    inside, outside = plan_sweep(MATRIX).searches, plan_sweep(OUTSIDE).searches
    launchers = Launchers()
    with tempfile.TemporaryDirectory() as folder:
        programs = TraceLibrary(launchers.simulated, Path(folder), os.cpu_count())
        try:
            if arguments.run:
                chosen = random.Random(arguments.seed)
                sample = chosen.sample(inside, arguments.run - arguments.run // 4)
                sample += chosen.sample(outside, arguments.run // 4)
                really_run(sample, Path(folder) / "results")
            programs.prepare([search.longest for search in inside])
            count(inside, programs)
        finally:
            launchers.close()


if __name__ == "__main__":
    main()
