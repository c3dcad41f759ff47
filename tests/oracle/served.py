"""The engine's own generator on the null GPU: jobs of every kind, for the simulated card to be held against."""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.core.case import PAGE, Case, DraftModel
from bench.engines.exllamav2.spec import SPEC
from bench.engines.reading import find_number
from bench.worker.engines.exllamav2.shallow import with_num_hidden_layers
from tests.oracle.cases import model_of, random_cases
from tests.oracle.engine import on_full_cards, outcomes, record
from tests.oracle.machines import on_full_machines, on_machines
from tests.oracle.recorded import Recorded

_QUERIES = 8  # of each job in a chunk, which the generator wants room for


# Positions that were learned end before a model does that is longer.
_NO_DRAFTS = ("GPT2LMHeadModel", "GPTBigCodeForCausalLM")
_DRAFTS = (None, None, "ngram", "model")


def served(cases: Sequence[Case], seed: int, drafts: Sequence[str | None] = _DRAFTS) -> list[Case]:
    """The same models, cards, bits and caches with a generator, whose lengths, jobs, chunks and drafts are random."""
    random_ = random.Random(seed)
    models = [case for case in cases if case.model.architecture not in _NO_DRAFTS]
    return [_served(case, random_, random_.choice(drafts), models) for case in cases]


def _draft_model(case: Case, random_: random.Random, models: Sequence[Case]) -> DraftModel:
    """The model of another case, with the vocabulary of this one, and bits and a cache of its own."""
    other = random_.choice(models)
    size = int(find_number(case.model.config, "vocab_size") or 0)
    config = {**with_num_hidden_layers(other.model.config, random_.choice((2, 3))), "vocab_size": size}
    if isinstance(text_config := config.get("text_config"), dict):
        config["text_config"] = {**text_config, "vocab_size": size}
    model = model_of(other.model.name, config)
    return DraftModel(model, other.bpw, other.head_bits, random_.choice(("FP16", "Q8", "Q6", "Q4")))


def _served(case: Case, random_: random.Random, draft: str | None, models: Sequence[Case]) -> Case:
    is_paged = case.attention in ("auto", "flash")
    jobs = random_.choice((1, 1, 1, 2, 3, 4, 8, 32)) if is_paged else 1
    chunk = max(case.max_input_len, -(-jobs * _QUERIES // PAGE) * PAGE)
    pages = random_.randrange(1, (32 if is_paged else 12) // min(jobs, 8) + 1)
    cache_pages = random_.choice((None, None, pages * jobs, pages, pages + random_.randrange(20)))
    if cache_pages is not None:
        cache_pages = max(cache_pages, jobs)
    return replace(
        case,
        scenario="generator",
        max_seq_len=pages * PAGE,
        batch_size=jobs,
        max_input_len=chunk,
        cache_size=None if cache_pages is None else cache_pages * PAGE,
        max_batch_size=random_.choice((None, jobs)),
        draft=draft,
        num_draft_tokens=None if draft is None else random_.randrange(1, SPEC.most_draft_tokens + 1),
        draft_model=_draft_model(case, random_, models) if draft == "model" else None,
    )


def as_tabbyapi(cases: Sequence[Case]) -> list[Case]:
    """The same, set and loaded as TabbyAPI does it."""
    return [replace(case, load_as="tabbyapi", max_attention_size=case.max_input_len**2) for case in cases]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=220, help="random cases on cards without a limit")
    parser.add_argument("--full", type=int, default=100, help="of them once more on cards that are full")
    parser.add_argument("--every", type=int, default=1, help="which of them are written: 4 for every fourth")
    parser.add_argument("--tabbyapi", type=float, default=0.0, help="the share of them that are loaded as it does it")
    parser.add_argument("--machines", action="store_true", help="those that fit on one card, on two and three")
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--draft-models", action="store_true", help="a draft model in each of them")
    parser.add_argument("--record", type=Path, required=True, metavar="FILE.json.gz")
    arguments = parser.parse_args()
    started_at = time.monotonic()
    jobs = os.cpu_count() or 1
    drafts = ("model",) if arguments.draft_models else _DRAFTS
    cases = served(random_cases(arguments.cases, arguments.seed), arguments.seed, drafts)
    count = round(arguments.tabbyapi * len(cases))
    cases = as_tabbyapi(cases[:count]) + cases[count:]
    if arguments.machines:
        cases = [replace(case, lazy=False) for case in cases]
        cases = on_machines(cases, outcomes(cases, jobs), arguments.seed)
    found = outcomes(cases, jobs)
    full = (on_full_machines(cases, found, arguments.seed) if arguments.machines else on_full_cards(cases, found))[
        : arguments.full
    ]
    cases, found = cases + full, found + outcomes(full, jobs)
    recorded = [Recorded(*each) for each in zip(cases, found, strict=True)]
    record(arguments.record, recorded[:: arguments.every], started_at)
    return 0


if __name__ == "__main__":
    sys.exit(main())
