"""Which rows are compared with which."""

from __future__ import annotations

from typing import Any

import pytest

from bench.comparison.pairing import Joined, join
from bench.core.columns import CaseRow
from tests.comparison.rows_to_compare import GIB, case, real_case


def _join(base: list[CaseRow], head: list[CaseRow], **options: Any) -> Joined[CaseRow]:
    return join(base, head, **options)


@pytest.mark.parametrize(
    "changed",
    [
        {"run_id": "other"},
        {"host": "other"},
        {"case_id": "other"},
        {"harness_version": "9"},
        {"torch_version": "9"},
        {"exllamav2_version": "9"},
        {"attention": "matmul"},
        {"device_total_bytes": 24 * GIB - (300 << 20)},
        {"driver_version": "560"},  # the other side does not say
        {"model_fingerprint": None},
        {"model": "its folder was renamed"},
        {"device_context_bytes": 500 << 20},
        {"compute_capability": "8.9"},  # the other side does not say
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_may_differ_is_compared(changed: dict[str, Any]) -> None:
    joined = _join([case()], [case(**changed)])
    assert len(joined.pairs) == 1
    assert (joined.missing, joined.new, joined.refused) == ([], [], [])


@pytest.mark.parametrize(
    "changed",
    [
        {"model": "other", "model_fingerprint": "f2"},
        {"bpw": 4.25},
        {"head_bits": None},
        {"cache": "Q4"},
        {"lazy": True},
        {"attention_requested": "matmul"},
        {"max_seq_len": 8192},
        {"batch_size": 2},
        {"max_input_len": 1024},
        {"vram_limit_bytes": 8 * GIB},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_another_question_is_another_row(changed: dict[str, Any]) -> None:
    joined = _join([case()], [{**case(), **changed}])
    assert not joined.pairs
    assert (len(joined.missing), len(joined.new), len(joined.refused)) == (1, 1, 0)


@pytest.mark.parametrize(
    ("changed", "column"),
    [
        ({"device_name": "nvidia_a10"}, "device_name"),
        ({"device_kind": "simulated"}, "device_kind"),
        ({"driver_version": "560.1"}, "driver_version"),
        ({"model_fingerprint": "f2"}, "model_fingerprint"),
        ({"device_total_bytes": 48 * GIB}, "device_total_bytes"),
    ],
)
def test_what_cannot_be_compared_is_refused_from_either_side(changed: dict[str, Any], column: str) -> None:
    old, new = real_case(), {**real_case(), **changed}
    for base, head in ((old, new), (new, old)):
        joined = _join([base], [head])
        assert [refusal.column for refusal in joined.refused] == [column]
        assert (joined.pairs, joined.missing, joined.new) == ([], [], [])


def test_another_driver_can_be_allowed() -> None:
    joined = _join([real_case()], [real_case(driver_version="560.1")], allow_driver_change=True)
    assert len(joined.pairs) == 1


def test_a_second_card_on_one_side_alone_is_missing_and_not_another_card() -> None:
    both = [case(), case(device_name="l4")]
    joined = _join(both, both[:1])
    assert ([row["device_name"] for row in joined.missing], joined.refused) == (["l4"], [])


def test_a_single_gpu_may_be_replaced_but_several_of_one_name_are_told_apart() -> None:
    replaced = _join([real_case()], [real_case(device_uuid="GPU-b")])
    assert len(replaced.pairs) == 1
    two = [real_case(device_uuid="GPU-a"), real_case(device_uuid="GPU-b")]
    joined = _join(two, two)
    assert [(pair.base.row["device_uuid"], pair.head.row["device_uuid"]) for pair in joined.pairs] == [
        ("GPU-a", "GPU-a"),
        ("GPU-b", "GPU-b"),
    ]


def test_the_newest_row_answers_and_only_its_run_goes_with_it() -> None:
    rows = [
        case(minutes=0, run_id="first", outcome="oom"),
        case(minutes=2, run_id="second", wall_s=2.0),
        case(minutes=1, run_id="second", wall_s=1.0),
    ]
    (pair,) = _join(rows, [case()]).pairs
    assert pair.base.row["wall_s"] == 2.0
    assert [row["wall_s"] for row in pair.base.same_run] == [1.0, 2.0]


def test_probes_without_a_partner_are_neither_missing_nor_new() -> None:
    base, head = [case(8192), case(8448)], [case(8192), case(8704)]
    joined = _join(base, head, probes=frozenset({"case-8192", "case-8448", "case-8704"}))
    assert (len(joined.pairs), joined.missing, joined.new) == (1, [], [])


def test_rows_that_know_nothing_are_joined_by_what_they_do_not_know() -> None:
    bare = {
        name: value if name in ("run_id", "started_at", "outcome", "model") else None for name, value in case().items()
    }
    bare |= {"device_kind": "simulated", "device_name": "rtx_4090", "bpw": float("nan")}
    assert len(_join([bare], [{**bare, "bpw": float("nan")}]).pairs) == 1


ALPHA, BETA = {"model": "4.0bpw", "model_fingerprint": "fa"}, {"model": "4.0bpw", "model_fingerprint": "fb"}


def _prints(joined: Joined) -> list[tuple[str, str]]:
    return [(pair.base.row["model_fingerprint"], pair.head.row["model_fingerprint"]) for pair in joined.pairs]


@pytest.mark.parametrize("order", [1, -1])
def test_models_of_one_name_are_paired_by_what_they_are_in_any_order(order: int) -> None:
    both = [case(minutes=0, **ALPHA), case(minutes=1, **BETA)][::order]
    joined = _join(both, both[::-1])
    assert sorted(_prints(joined)) == [("fa", "fa"), ("fb", "fb")]
    assert (joined.missing, joined.new, joined.refused) == ([], [], [])


def test_of_models_of_one_name_the_one_that_changed_is_refused() -> None:
    joined = _join([case(**ALPHA), case(**BETA)], [case(**ALPHA), case(**{**BETA, "model_fingerprint": "fc"})])
    assert _prints(joined) == [("fa", "fa")]
    (refusal,) = joined.refused
    assert (refusal.column, refusal.base["model_fingerprint"], refusal.head["model_fingerprint"]) == (
        "model_fingerprint",
        "fb",
        "fc",
    )
    assert (joined.missing, joined.new) == ([], [])


def test_a_model_of_a_name_that_is_in_one_side_alone_is_missing_or_new() -> None:
    both = [case(**ALPHA), case(**BETA)]
    assert [row["model_fingerprint"] for row in _join(both, both[:1]).missing] == ["fb"]
    assert [row["model_fingerprint"] for row in _join(both[1:], both).new] == ["fa"]


def test_two_names_of_one_model_are_two_questions() -> None:
    both = [case(model="llama_3_1"), case(model="llama_3_3")]
    joined = _join(both, both)
    assert [(pair.base.row["model"], pair.head.row["model"]) for pair in joined.pairs] == [
        ("llama_3_1", "llama_3_1"),
        ("llama_3_3", "llama_3_3"),
    ]


@pytest.mark.parametrize(
    "difference",
    [
        {"device_total_bytes": GIB},
        {"device_total_bytes": 24 * GIB - (100 << 20)},
        {"compute_capability": "8.9"},
        {"device_context_bytes": 500 << 20},
        {"device_workspace_bytes": 1 << 20},
        {"device_multi_processor_count": 10},
        {"device_bandwidth_bytes_per_s": 1e12},
    ],
    ids=lambda difference: next(iter(difference)),
)
def test_cards_of_one_name_are_paired_by_what_they_are(difference: dict[str, Any]) -> None:
    both = [case(), case(**difference)]
    joined = _join(both, both[::-1])
    assert len(joined.pairs) == 2
    assert all(pair.base.row == pair.head.row for pair in joined.pairs)


def test_of_cards_of_one_name_each_may_tell_its_memory_a_little_differently() -> None:
    sizes = [24 * GIB, 8 * GIB]
    changed = [size - (100 << 20) for size in sizes]
    base, head = ([case(device_total_bytes=size) for size in each] for each in (sizes, changed))
    pairs = _join(base, head).pairs
    assert [(pair.base.row["device_total_bytes"], pair.head.row["device_total_bytes"]) for pair in pairs] == list(
        zip(sizes, changed, strict=True)
    )


def test_rows_of_older_programs_are_on_the_card_that_newer_ones_tell_in_full() -> None:
    told = {"device_context_bytes": 400 << 20, "device_bandwidth_bytes_per_s": 1e12}
    old, newer, other = case(schema_version=2), case(**told), case(**told, device_total_bytes=GIB)
    assert len(_join([old], [newer, other]).pairs) == 1
    assert len(_join([old, newer], [newer]).pairs) == 1


@pytest.mark.parametrize(
    ("base", "head"),
    [
        ({"model": "mine-4.0bpw", "bpw": 3.98}, {"model": "mine-4.5bpw", "bpw": 4.48}),
        ({"model": "mine/4.0bpw"}, {"model": "mine/6_0-h8", "bpw": 6.0, "head_bits": 8}),
        ({"model": "mine@4.0bpw"}, {"model": "mine@4.25bpw", "bpw": 4.25}),
        ({"model": "mine"}, {"model": "mine", "bpw": 4.1}),
        ({"model": "mine"}, {"model": "mine"}),
    ],
    ids=lambda side: str(side["model"]),
)
def test_two_quantisations_of_one_model_are_compared_where_that_is_asked_for(
    base: dict[str, Any], head: dict[str, Any]
) -> None:
    old, new = case(**base, model_fingerprint="old"), case(**head, model_fingerprint="new")
    assert _join([old], [new]).pairs == []
    assert _prints(_join([old], [new], allow_model_change=True)) == [("old", "new")]


def test_of_several_quantisations_those_of_the_same_bits_are_compared() -> None:
    base = [case(bpw=bpw, model_fingerprint=f"old {bpw}") for bpw in (3.0, 4.0, 5.0)]
    head = [case(bpw=bpw, model_fingerprint=f"new {bpw}") for bpw in (3.0, 4.0, 6.0)]
    joined = _join(base, head, allow_model_change=True)
    assert _prints(joined) == [(f"old {old}", f"new {new}") for old, new in ((3.0, 3.0), (4.0, 4.0), (5.0, 6.0))]
    unclear = _join(base, [*head, case(bpw=7.0, model_fingerprint="new 7")], allow_model_change=True)
    assert _prints(unclear) == [("old 3.0", "new 3.0"), ("old 4.0", "new 4.0")]
    assert (len(unclear.missing), len(unclear.new)) == (1, 2)
