"""What models, cards and settings are called: never two alike."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from bench.core.case import Case, ModelSpec, Search
from bench.core.device import DeviceSpec
from bench.core.identity_columns import IdentityColumns
from bench.report.naming.axes import Axes, telling
from bench.report.naming.models import Names
from bench.report.naming.work import WorkNames
from bench.report.tables.verdicts import verdict_tables
from bench.report.whole_cards import with_whole_cards
from tests.report.conftest import FrameOf, fits

GIB = 1 << 30

CARD: dict[str, Any] = {
    **dict.fromkeys(IdentityColumns.__annotations__),
    "device_kind": "simulated",
    "device_name": "rtx_3090",
    "device_total_bytes": 24 * GIB,
    "compute_capability": "8.6",
    "device_context_bytes": 400 << 20,
    "model": "tiny",
    "model_fingerprint": "f1f1f1f1",
    "bpw": 4.0,
    "cache": "FP16",
    "lazy": False,
}
CASE = Case(
    model=ModelSpec("tiny", {}, "f1f1f1f1"),
    device=DeviceSpec("rtx_3090", "simulated", "RTX 3090", 24 * GIB),
    bpw=4.0,
    head_bits=6,
    cache="FP16",
    lazy=False,
    attention="auto",
    max_seq_len=4096,
    batch_size=1,
    max_input_len=2048,
)


@pytest.mark.parametrize(
    ("difference", "short", "title", "slug"),
    [
        ({"device_name": "l4"}, "l4", "l4 (simulated), 24.00 GiB", "l4"),
        ({"device_total_bytes": GIB}, "rtx_3090 (1.00 GiB)", "rtx_3090 (simulated), 1.00 GiB", "rtx_3090-1.00GiB"),
        (
            {"device_total_bytes": 24 * GIB - 1},
            "rtx_3090 (25,769,803,775 B)",
            "rtx_3090 (simulated), 25,769,803,775 B",
            "rtx_3090-25_769_803_775B",
        ),
        (
            {"compute_capability": "8.9"},
            "rtx_3090 (compute capability 8.9)",
            "rtx_3090 (simulated), 24.00 GiB, compute capability 8.9",
            "rtx_3090-computecapability8.9",
        ),
        (
            {"device_context_bytes": None},
            "rtx_3090 (context not told)",
            "rtx_3090 (simulated), 24.00 GiB, context not told",
            "rtx_3090-contextnottold",
        ),
        (
            {"device_bandwidth_bytes_per_s": 936e9},
            "rtx_3090 (936 GB/s)",
            "rtx_3090 (simulated), 24.00 GiB, 936 GB/s",
            "rtx_3090-936GB_s",
        ),
        (
            {"device_kind": "cuda", "device_uuid": "GPU-123456"},
            "rtx_3090 (measured)",
            "rtx_3090 (measured), 24.00 GiB",
            "rtx_3090-123456",
        ),
        (
            {"vram_limit_bytes": 8 * GIB, "vram_limit_by": "allocator"},
            "rtx_3090 limited to 8.00 GiB by PyTorch's allocator",
            "rtx_3090 (simulated), 24.00 GiB limited to 8.00 GiB by PyTorch's allocator",
            "rtx_3090-8192mib-capped",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_card_is_called_by_what_tells_it_from_the_others(
    difference: dict[str, Any], short: str, title: str, slug: str
) -> None:
    other = {**CARD, **difference}
    names = Names([CARD, other])
    assert (names.card(other), names.card_title(other), names.card_slug(other)) == (short, title, slug)
    assert names.card(CARD) != short
    assert names.card_title(CARD) != title
    assert names.card_slug(CARD) != slug


def test_a_card_with_much_to_tell_has_a_name_that_a_file_can_have() -> None:
    cards = [{**CARD, "device_name": "long" * 70, "device_total_bytes": size * GIB} for size in (1, 2)]
    slugs = [Names(cards).card_slug(card) for card in cards]
    assert len(set(slugs)) == 2
    assert all(len(slug) < 128 for slug in slugs)


def test_a_card_is_told_by_no_more_than_it_takes() -> None:
    other = {**CARD, "device_total_bytes": GIB, "compute_capability": "8.9", "device_bandwidth_bytes_per_s": 1e12}
    assert Names([CARD, other]).card_title(other) == "rtx_3090 (simulated), 1.00 GiB"
    third = {**other, "compute_capability": "9.0"}
    assert Names([CARD, other, third]).card(third) == "rtx_3090 (1.00 GiB, compute capability 9.0)"


def test_a_card_alone_is_called_by_its_name() -> None:
    names = Names([CARD, {**CARD, "bpw": 8.0}])
    assert (names.card(CARD), names.card_slug(CARD)) == ("rtx_3090", "rtx_3090")
    assert names.card_title(CARD) == "rtx_3090 (simulated), 24.00 GiB"


def test_two_gpus_of_one_name_are_told_apart_by_their_numbers_and_one_is_not() -> None:
    one, two = ({**CARD, "device_kind": "cuda", "device_uuid": f"GPU-{end}-abcdef"} for end in "12")
    assert [Names([one, two]).card(each) for each in (one, two)] == [
        "rtx_3090 [GPU-1-abcdef]",
        "rtx_3090 [GPU-2-abcdef]",
    ]
    other = {**one, "device_uuid": "GPU-987654"}
    assert Names([one, other]).card_title(other) == "rtx_3090 (measured), 24.00 GiB [987654]"
    assert Names([one]).card_title(one) == "rtx_3090 (measured), 24.00 GiB"


def test_models_of_one_name_are_told_apart_by_as_much_of_their_fingerprints_as_it_takes() -> None:
    near, far = {**CARD, "model_fingerprint": "f1f1f1ff"}, {**CARD, "model_fingerprint": "aaaaaaaa"}
    assert Names([CARD]).model(CARD) == "tiny"
    assert [Names([CARD, far]).model(each) for each in (CARD, far)] == ["tiny [f1f1f1]", "tiny [aaaaaa]"]
    assert [Names([CARD, near]).model(each) for each in (CARD, near)] == ["tiny [f1f1f1f1]", "tiny [f1f1f1ff]"]
    assert Names([CARD, near]).shared == {"tiny"}


def test_a_setting_tells_what_varies_and_bits_that_look_the_same_in_full() -> None:
    auto = {**CARD, "attention_requested": "auto"}
    lines = [auto, {**CARD, "bpw": 4.0000001, "attention_requested": "flash"}, {**auto, "lazy": True}]
    axes = Axes(lines)
    assert [axes.words(line) for line in lines] == [
        "4 bpw FP16 load attention auto",
        "4.0000001 bpw FP16 load attention flash",
        "4 bpw FP16 lazy attention auto",
    ]
    assert Axes([CARD]).words(CARD) == "4 bpw FP16 load"


def test_what_is_unknown_is_told_only_where_nothing_else_tells_two_apart() -> None:
    unquantised = {**CARD, "bpw": 16.0}
    lines = [{**CARD, "head_bits": 6}, unquantised]
    assert telling(lines, ["head_bits"]) == []
    assert telling([*lines, CARD], ["head_bits"]) == ["head_bits"]


@pytest.mark.parametrize(
    ("difference", "title"),
    [
        ({"batch_size": 4}, "tiny 4 bpw FP16 load batch_size 4 4096 on rtx_3090"),
        ({"attention": "flash"}, "tiny 4 bpw FP16 load attention flash 4096 on rtx_3090"),
        ({"repeats": 5}, "tiny 4 bpw FP16 load repeats 5 4096 on rtx_3090"),
        ({"head_bits": 8}, "tiny 4 bpw FP16 load head_bits 8 4096 on rtx_3090"),
        ({"max_seq_len": 8192}, "tiny 4 bpw FP16 load 8192 on rtx_3090"),
        ({"vram_limit_bytes": 4 * GIB}, "tiny 4 bpw FP16 load 4096 on rtx_3090 limited to 4.00 GiB"),
        ({"model": ModelSpec("tiny", {}, "f2")}, "tiny [f2] 4 bpw FP16 load 4096 on rtx_3090"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_no_two_cases_have_one_title(difference: dict[str, Any], title: str) -> None:
    other = dataclasses.replace(CASE, **difference)
    names = WorkNames([CASE, other])
    assert names.title(other) == title != names.title(CASE)


def test_a_cell_is_called_by_all_but_its_length() -> None:
    assert WorkNames([CASE]).title(CASE) == "tiny 4 bpw FP16 load 4096 on rtx_3090"
    assert WorkNames([CASE]).title(Search(CASE)) == "tiny 4 bpw FP16 load on rtx_3090"


def test_searches_that_end_elsewhere_are_two_and_else_their_end_is_no_word() -> None:
    near, far = (Search(dataclasses.replace(CASE, max_seq_len=n)) for n in (2048, 4096))
    names = WorkNames([near, far])
    assert names.title(near) == "tiny 4 bpw FP16 load auto_up_to 2048 on rtx_3090"
    assert names.title(far) == "tiny 4 bpw FP16 load auto_up_to 4096 on rtx_3090"
    other = Search(dataclasses.replace(near.longest, model=ModelSpec("other", {}, "f2")))
    assert WorkNames([other, far]).title(far) == "tiny 4 bpw FP16 load on rtx_3090"


TOLD = {"device_context_bytes": 400 << 20, "device_multi_processor_count": 82, "device_bandwidth_bytes_per_s": 1e12}


def test_rows_of_an_older_program_stand_with_newer_ones_of_their_card(
    frame_of: FrameOf, boundaries_of: FrameOf
) -> None:
    cases = frame_of(fits(2048, 5.0, schema_version=2), fits(4096, 6.0, **TOLD))
    whole, none = with_whole_cards(cases, boundaries_of())
    (table,) = verdict_tables(whole)
    assert table.lengths == [2048, 4096]
    assert none.empty
    several = frame_of(
        fits(2048, 5.0, schema_version=2), fits(4096, 6.0, **TOLD), fits(4096, 6.0, compute_capability="9.0")
    )
    assert len(list(verdict_tables(with_whole_cards(several, boundaries_of())[0]))) == 2
    another = {**TOLD, "device_bandwidth_bytes_per_s": 2e12}  # of either of the two it may be
    unclear = frame_of(fits(2048, 5.0, schema_version=2), fits(4096, 6.0, **TOLD), fits(4096, 6.0, **another))
    assert len(list(verdict_tables(with_whole_cards(unclear, boundaries_of())[0]))) == 3


def test_a_case_that_died_before_cuda_was_asked_is_on_the_card_of_its_number(
    frame_of: FrameOf, boundaries_of: FrameOf
) -> None:
    real = {"device_kind": "cuda", "device_uuid": "GPU-1"}
    died = {"outcome": "crash", "phase": "load", "max_seq_len": 8192, "device_total_bytes": None, **real}
    whole, _ = with_whole_cards(frame_of(fits(4096, 6.0, **real), died), boundaries_of())
    (table,) = verdict_tables(whole)
    assert table.lengths == [4096, 8192]
