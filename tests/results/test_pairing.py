"""Which rows are compared with which."""

from __future__ import annotations

from typing import Any

import pytest

from bench.results.pairing import Joined, Row, join
from bench.results.schema import Kind
from tests.results.compared import GIB, case, real_case


def _join(base: list[Row], head: list[Row], **options: Any) -> Joined:
    return join(base, head, Kind.CASES, **options)


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
        {"model": "other"},
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
