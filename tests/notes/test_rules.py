"""All notes on a case: which are there, and which not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench.core.case import Case, ModelSpec
from bench.core.device import DeviceSpec
from bench.engines.exllamav2.notes import GAPS_NOTE, SDPA_NOTE
from bench.engines.exllamav2.spec import SPEC
from bench.engines.reading import Reading
from bench.notes.rules import (
    BALANCED_NOTE,
    SYNTHETIC_NOTE,
    notes_of_case,
)

READING = Reading(attention="flash", head_dim=128, experts=1, windows=(0, 0), rope=None)
CASE = Case(
    model=ModelSpec("mine", {"dtype": "float16"}, "f", "/mine", 4.0),
    device=DeviceSpec("rtx_4090", "simulated", "NVIDIA GeForce RTX 4090", 24 << 30),
    bpw=4.0,
    head_bits=None,
    cache="FP16",
    lazy=False,
    attention="auto",
    max_seq_len=4096,
    batch_size=1,
    max_input_len=2048,
)
BARE = replace(CASE, model=replace(CASE.model, bpw=None), head_bits=6)
REAL = replace(CASE, device=replace(CASE.device, kind="cuda"))


def of(case: Case = CASE, **read: Any) -> list[str]:
    return notes_of_case(case, replace(READING, **read))


def test_a_case_of_which_nothing_is_to_be_said() -> None:
    assert of() == []
    assert of(REAL, experts=8) == []  # a real card routes as it routes


@pytest.mark.parametrize("cache", ["Q8", "Q6", "Q4"])
@pytest.mark.parametrize(("head_dim", "wrong"), [(64, False), (80, True), (96, False), (100, True), (120, True)])
def test_heads_that_quantised_caches_cut_short(cache: str, head_dim: int, wrong: bool) -> None:
    notes = of(replace(CASE, cache=cache), head_dim=head_dim)
    assert any(f"head_dim ({head_dim}) is no multiple of 32" in note for note in notes) == wrong
    assert of(head_dim=head_dim) == []


@pytest.mark.parametrize(("length", "whole"), [(5000, "4,864"), (100, "256"), (257, "256"), (256, None), (4864, None)])
def test_lengths_that_no_generator_takes(length: int, whole: str | None) -> None:
    notes = of(replace(CASE, max_seq_len=length))
    assert len(notes) == (whole is not None)
    assert all(f"multiples of 256 tokens: {whole} for {length:,}" in note for note in notes)


def test_what_a_layout_of_ones_own_is_certified_for() -> None:
    assert of(BARE) == [SPEC.layout_note]
    assert of(replace(BARE, bpw=16.0, head_bits=None)) == []  # nothing to lay out: one type for all


def test_traps_and_assumptions_are_told_together() -> None:
    made_up = replace(CASE, model=replace(CASE.model, config={"weights_made_up_by": "vram-bench 0.1.0"}))
    assert of(made_up, attention="sdpa", experts=8) == [BALANCED_NOTE, SYNTHETIC_NOTE, SDPA_NOTE]


def test_keys_of_the_text_that_are_looked_for_elsewhere() -> None:
    nested = {"text_config": {"final_logit_softcapping": 30.0, "attn_logit_softcapping": None}}
    (note,) = of(replace(CASE, model=replace(CASE.model, config=nested)))
    assert "reads final_logit_softcapping at the top level of config.json alone" in note
    both = {**nested, "final_logit_softcapping": 30.0}
    assert of(replace(CASE, model=replace(CASE.model, config=both))) == []


@pytest.mark.parametrize(("split", "told"), [("gpu_split(20,24)", True), ("auto", False), ("tensor_parallel", False)])
def test_a_split_by_hand_may_have_gaps(split: str, told: bool) -> None:
    assert (GAPS_NOTE in of(replace(CASE, split=split))) is told
