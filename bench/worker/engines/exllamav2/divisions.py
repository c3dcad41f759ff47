"""How ExLlamaV2's tensor parallelism is recorded: with chosen parts of the layers, whatever cards have free."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from itertools import count, pairwise
from typing import Any
from unittest import mock

from bench.core.case import Case
from bench.core.split import Split, SplitBy
from bench.engines.exllamav2.tensor_split import DividedSizes
from bench.trace.passes import NoPrediction
from bench.worker.engines.base import Division, Listener
from bench.worker.engines.exllamav2.map_sizes import footprint

_NUM_DIVISIONS = 3
_TRIED = 200  # of few units there are few ways to divide them


def on_cards_alike(case: Case) -> tuple[Case, tuple[Division, ...]]:
    """A shallow `case` on as many cards, all like the first, and the divisions that are recorded of it."""
    alike = dataclasses.replace(
        case,
        more_devices=(case.device,) * len(case.more_devices),
        split=str(Split(SplitBy.TENSOR_PARALLEL)),
        vram_limit_bytes=None,
        vram_limits_bytes=None,
    )
    return alike, tuple(Division(number) for number in range(_NUM_DIVISIONS))


@contextmanager
def chosen(division: Division, listener: Listener) -> Iterator[None]:
    """While it lasts, layers are divided in that way; `listener` is told how, and what the engine counts."""
    from exllamav2 import tensor_p

    asked = count()
    define_split = tensor_p.TPContext.define_split

    def chosen_split(units: int, split: list[float], minimum: int = 0) -> list[int]:
        least, cards = max(1, minimum), len(split)
        if units < least * cards:
            raise NoPrediction(f"a matrix of {units} parts is too small for {cards} cards to have one of each")
        return list(_divisions(units, least, cards, next(asked))[division.number])

    def told(self: Any, *args: Any, **kwargs: Any) -> None:
        listener.split_sizes(lambda: sizes_of(self.model).to_plain())  # before the modules remember their footprints
        with mock.patch.object(tensor_p, "integer_split", chosen_split):
            define_split(self, *args, **kwargs)
        splits = (self.kv_split, self.id_split, self.rs_split, self.vc_split)
        listener.divided(tuple(tuple(last - first for _, first, last in split) for split in splits))

    with mock.patch.object(tensor_p.TPContext, "define_split", told):
        yield


@cache
def _divisions(units: int, least: int, cards: int, seed: int) -> list[list[int]]:
    """So many units divided in some ways, so that cards differ, as far as may be, in how their parts change."""
    chosen = random.Random(seed)

    def divided() -> list[int]:
        cuts = sorted(chosen.randint(0, units - least * cards) for _ in range(cards - 1))
        return [least + last - first for first, last in pairwise([0, *cuts, units - least * cards])]

    def told_apart(divisions: list[list[int]]) -> int:
        changes = {tuple(Fraction(part, parts[0]) for part in parts) for parts in zip(*divisions, strict=True)}
        return len(changes - {(1,) * len(divisions)})

    return max(([divided() for _ in range(_NUM_DIVISIONS)] for _ in range(_TRIED)), key=told_apart)


def sizes_of(model: Any) -> DividedSizes:
    """What the engine counts of a model that is not loaded. Raises `NoPrediction` where its layers differ."""
    from exllamav2.attn import ExLlamaV2Attention

    config, headers = model.config, dict[str, dict[int, str]]()
    counted = [
        footprint(module, module.layer_idx, headers)
        for module in model.modules
        if isinstance(module, ExLlamaV2Attention)
    ]
    if any(each != counted[0] for each in counted):
        raise NoPrediction("its layers count unlike sizes when they are divided among cards")
    tensors, other_bytes = counted[0]
    return DividedSizes(
        kv_heads=config.num_key_value_heads,
        heads_per_kv_head=config.num_key_value_groups,
        head_dim=config.head_dim,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        vocab_size=config.vocab_size,
        max_dq_size=config.max_dq_size,
        rows=config.max_batch_size * config.max_input_len,
        tensors=tensors,
        other_bytes=other_bytes,
    )
