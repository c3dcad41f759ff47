"""exllamav3's own Generator on the null GPU: jobs of every kind, for the simulated card to be held against."""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from bench.config.cases import plan_sweep
from bench.core.case import ALLOCATORS, EXPANDABLE, PAGE, Case, ModelSpec
from bench.core.device import DeviceSpec
from bench.worker.engines.exllamav3.shallow import with_layers
from tests.oracle.cases import CARDS, ENDLESS_BYTES
from tests.oracle.engine import on_full_cards, outcomes, record
from tests.oracle.recorded import Recorded

# Of each how many layers are enough to show all kinds that it has.
CATALOGUE = {
    "llama_3_1_8b": 2, "phi_3_medium_128k": 2, "qwen3_8b": 2, "gemma_2_9b": 3, "gemma_3_12b": 7, "mistral_nemo_12b": 2,
    "command_r_35b": 2, "qwen2_5_7b": 3, "tinyllama_1_1b": 3, "glm_4_9b_0414": 2, "qwen3_30b_a3b": 2, "mixtral_8x7b": 2,
    "glm_4_5_air": 3, "gpt_oss_20b": 3, "qwen3_5_27b": 5, "kimi_k2_thinking": 2,
}  # fmt: skip
_CACHES = ("FP16", "FP16", "Q8", "Q6", "Q4", "k8v5", "k3v2")
_CHUNKS = (256, 512, 1000, 1024, 2048, 2048, 4096)
# From Ampere on: Triton's first tile always fits there, which the simulated card takes for granted.
_CARDS = [(capability, num_sms) for capability, num_sms in CARDS if float(capability) >= 8.0]


def random_cases(count: int, seed: int, only: Sequence[str] = ()) -> list[Case]:
    """Cases of the catalogue's models, cut to a few layers, with random axes and jobs, on cards of endless size."""
    random_ = random.Random(seed)
    models = [_model(name, layers) for name, layers in CATALOGUE.items() if not only or name in only]
    return [_case(models[index % len(models)], random_) for index in range(count)]


def _model(name: str, num_layers: int) -> ModelSpec:
    (search,) = plan_sweep([f"model={name}", "engine=exllamav3", "device=rtx_4090", "max_seq_len=auto"]).searches
    config = search.longest.model.config
    depth = config.get("num_hidden_layers") or config["text_config"]["num_hidden_layers"]
    fewer: dict[str, Any] = with_layers(config, num_layers, depth)
    return ModelSpec(name, fewer, sha256(json.dumps(fewer, sort_keys=True).encode()).hexdigest()[:16])


def _case(model: ModelSpec, random_: random.Random) -> Case:
    capability, num_sms = random_.choice(_CARDS)
    jobs = random_.choice((1, 1, 1, 2, 3, 4, 8, 20))
    pages = random_.choice((random_.randrange(1, 12), random_.randrange(12, 48), 80)) // min(jobs, 4) + 1
    shared = random_.choice((None, None, pages * jobs, pages, pages + random_.randrange(20)))
    draft = random_.choice((None, None, "ngram"))
    cache_tokens = (jobs * pages if shared is None else max(shared, jobs)) * PAGE
    lazy = random_.random() < 0.25
    # Autosplit measures a whole chunk, in whole pages of the cache.
    chunks = [chunk for chunk in _CHUNKS if not lazy or (chunk <= cache_tokens and chunk % PAGE == 0)]
    bpw = random_.choice((2.0, 3.0, 3.5, 4.0, 4.65, 5.0, 6.0, 8.0, 16.0))
    return Case(
        model=model,
        device=DeviceSpec("null", "simulated", "Null GPU", ENDLESS_BYTES, capability, num_sms, 1e12, 0, "measured"),
        bpw=bpw,
        head_bits=None if bpw == 16.0 else random_.choice((6, 6, 8, 4)),
        cache=random_.choice(_CACHES),
        lazy=lazy,
        attention="auto",
        max_seq_len=pages * PAGE,
        batch_size=jobs,
        max_input_len=random_.choice(chunks),
        repeats=1,
        engine="exllamav3",
        scenario="generator",
        allocator=random_.choice((*ALLOCATORS, EXPANDABLE)),
        cache_size=None if shared is None else max(shared, jobs) * PAGE,
        max_batch_size=random_.choice((None, jobs, jobs + 3)) if jobs <= 16 else jobs,
        draft=draft,
        num_draft_tokens=None if draft is None else random_.randrange(1, 6),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=80, help="random cases on cards without a limit")
    parser.add_argument("--full", type=int, default=40, help="of them once more on cards that are full")
    parser.add_argument("--every", type=int, default=1, help="which of them are written: 4 for every fourth")
    parser.add_argument("--seed", type=int, default=31)
    parser.add_argument("--only", nargs="*", default=(), help="names of models of the catalogue")
    parser.add_argument("--record", type=Path, required=True, metavar="FILE.json.gz")
    arguments = parser.parse_args()
    started_at = time.monotonic()
    jobs = os.cpu_count() or 1
    cases = random_cases(arguments.cases, arguments.seed, arguments.only)
    found = outcomes(cases, jobs)
    full = on_full_cards(cases, found)[: arguments.full]
    cases, found = cases + full, found + outcomes(full, jobs)
    recorded = [Recorded(*each) for each in zip(cases, found, strict=True)]
    record(arguments.record, recorded[:: arguments.every], started_at)
    return 0


if __name__ == "__main__":
    sys.exit(main())
