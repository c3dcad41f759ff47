"""What is given up, and that what is said of it can be typed."""

from __future__ import annotations

import itertools
from dataclasses import replace

from bench.config.cases import plan_sweep
from bench.core.case import Case
from bench.forecast.advice import next_smaller, smaller, smallest

BASE = ("model=tinyllama_1_1b", "device=rtx_4090")


def case_of(*overrides: str) -> Case:
    (search,) = plan_sweep([*BASE, *overrides]).searches
    return search.longest


def said(case: Case) -> list[str]:
    return [text for text, _ in smaller(case)]


def test_what_is_said_can_be_typed_after_the_same_command() -> None:
    overrides = ("lazy=true", "cache=Q6", "bpw=2.5")
    case = case_of(*overrides)
    for text, less in [*next_smaller(case), *itertools.islice(smaller(case), 0, None, 4), smallest(case)]:
        assert case_of(*overrides, *text.split()) == less != case


def test_an_unquantised_model_gets_the_head_that_a_quantised_one_has() -> None:
    case = case_of("bpw=16")
    text, less = next(option for option in smaller(case) if option[0] == "bpw=8")
    assert case.head_bits is None
    assert case_of("bpw=16", text) == less


def test_the_nearest_comes_first() -> None:
    assert said(case_of("bpw=2.5", "cache=Q6", "max_input_len=512")) == [
        "cache=Q4",
        "bpw=2.25",
        "bpw=2",
        "bpw=2.25 cache=Q4",
        "bpw=2 cache=Q4",
        "bpw=2 cache=Q4 max_input_len=256",
    ]


def test_lazy_loading_is_given_up_before_anything_else_and_then_for_good() -> None:
    options = said(case_of("bpw=2.25", "cache=Q4", "max_input_len=256", "lazy=true"))
    assert options == ["lazy=false", "lazy=false bpw=2"]


def test_one_step_of_each_kind() -> None:
    steps = dict(next_smaller(case_of("bpw=4.0", "cache=FP16", "lazy=true")))
    assert list(steps) == ["lazy=false", "cache=Q8", "bpw=3.5", "max_input_len=1024"]


def test_weights_that_are_there_keep_their_bits() -> None:
    case = case_of("bpw=4.0")
    mine = replace(case, head_bits=None, model=replace(case.model, bpw=4.0))
    assert not any("bpw" in text for text, _ in [*smaller(mine), *next_smaller(mine), smallest(mine)])


def test_the_smallest_has_every_setting_and_is_below_all_others() -> None:
    text, least = smallest(case_of("lazy=true"))
    assert text == "lazy=false bpw=2 cache=Q4 max_input_len=256"
    assert smallest(least) == (text, least)
    assert said(least) == []
