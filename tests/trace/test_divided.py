"""Which part of a layer an allocation follows, from small recordings made by hand; and what is refused, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from bench.allocator.flash import Call
from bench.trace import template as columns
from bench.trace.divided import PartsOfCards, divided, following_parts
from bench.trace.parametric import ParametricTrace
from bench.trace.passes import NoPrediction
from bench.trace.recording import Event, Op, Recording, Size
from bench.trace.solve import solve
from bench.trace.template import DENOMINATOR
from tests.trace import synthetic_recordings as made_up
from tests.trace.synthetic_recordings import PLAIN

# Two parts of a layer on two cards: that of the recordings at several lengths, and two others.
DIVISIONS = (((2, 6), (4, 4)), ((3, 5), (6, 2)), ((4, 4), (1, 7)))


def recordings(decode: Sequence[Event]) -> list[Recording]:
    """A model that is asked for this in each decoded token, and else for nothing."""
    made = made_up.recordings(PLAIN, lambda each, max_seq_len: [])
    for recording in made:
        if recording.is_whole:
            passes = PLAIN.whole_passes(recording.max_seq_len)
            for each, section in zip(passes, recording.sections, strict=True):
                section.events = list(decode) if each.kind == "decode" else []
    return made


def followed(by_division: Sequence[Sequence[Event]], divisions: Sequence[PartsOfCards] = DIVISIONS) -> ParametricTrace:
    """The trace of a card that takes so much for a token in each division."""
    first, *others = (recordings(events) for events in by_division)
    return following_parts(solve(first, PLAIN, depth=1), [other[0] for other in others], divisions)


def taken(*sizes: int, stream: int = 0) -> list[Event]:
    """Allocations of these sizes in bytes."""
    return [Event(Op.MALLOC, block, size, stream) for block, size in enumerate(sizes)]


def called(num_heads: int, num_kv_heads: int, k_len: int = 64) -> list[Event]:
    """A temporary of a flash-attn call."""
    call = Call(1, 1, num_heads, 128, k_len, num_kv_heads, -1)
    return [Event(Op.MALLOC, 0, size=Size.FLASH_0, call=call)]


def loaded(share: tuple[int, int]) -> list[Event]:
    """A share of a tensor."""
    return [Event(Op.MALLOC, 0, size=Size.TENSOR, tensor="model.layers.0.q_weight", layer=0, share=share)]


@pytest.mark.parametrize(
    ("by_division", "part"),
    [
        ([taken(700)] * 3, 0),
        ([taken(200), taken(300), taken(400)], 1),
        ([taken(60), taken(50), taken(40)], 2),
        ([taken(4), taken(6), taken(1)], 3),
        ([taken(4), taken(2), taken(7)], 4),
        ([called(8, 2), called(12, 3), called(16, 4)], 1),
        ([loaded((6, 8)), loaded((5, 8)), loaded((4, 8))], 2),
    ],
)
def test_an_allocation_follows_the_part_in_whose_proportion_it_changes(
    by_division: list[list[Event]], part: int
) -> None:
    trace = followed(by_division)
    assert trace.templates["decode"][:, columns.DIVIDED].tolist() == [part]
    assert trace.refused == {}


def test_other_parts_take_in_proportion_what_was_recorded() -> None:
    events = followed([taken(200, 700, 4), taken(300, 700, 6), taken(400, 700, 1)]).templates["decode"]
    changed = divided(events, DIVISIONS[0], ((7, 1), (3, 5)))
    assert (changed[:, columns.SIZE_TERMS] / DENOMINATOR).tolist() == [700, 700, 3]


# What is refused


def refused(by_division: Sequence[Sequence[Event]], divisions: Sequence[PartsOfCards] = DIVISIONS) -> str:
    """Why nothing is predicted of a decoded token; other kinds of sections are known."""
    trace = followed(by_division, divisions)
    assert set(trace.refused) == {"decode"}
    assert "decode" not in trace.templates
    assert "prefill" in trace.templates
    return trace.refused["decode"]


OTHER_THAN_SIZES = "decode sections differ in more than their sizes where layers are divided otherwise"
UNKNOWN_SIZES = "sizes in decode do not follow the parts of the cards"


@pytest.mark.parametrize(
    "last",
    [
        pytest.param(taken(400, 1), id="one more"),
        pytest.param([], id="none"),
        pytest.param(taken(400, stream=1), id="on another stream"),
        pytest.param([Event(Op.EMPTY_CACHE)], id="something else"),
    ],
)
def test_a_division_with_other_events_is_refused(last: list[Event]) -> None:
    assert refused([taken(200), taken(300), last]) == OTHER_THAN_SIZES


@pytest.mark.parametrize("last", [399, 401, 200])
def test_a_size_that_follows_no_part_is_refused(last: int) -> None:
    assert refused([taken(200), taken(300), taken(last)]) == UNKNOWN_SIZES


def test_heads_that_follow_no_part_are_refused() -> None:
    assert refused([called(8, 2), called(12, 3), called(8, 4)]) == UNKNOWN_SIZES


def test_a_share_of_a_tensor_that_follows_no_part_is_refused() -> None:
    assert refused([loaded((6, 8)), loaded((5, 8)), loaded((4, 9))]) == UNKNOWN_SIZES


def test_a_size_that_follows_two_parts_which_change_alike_is_refused() -> None:
    alike = [((a, b), (a, b)) for (a, b), _ in DIVISIONS]
    assert refused([taken(200), taken(300), taken(400)], alike) == UNKNOWN_SIZES


def test_attention_over_another_number_of_keys_is_refused() -> None:
    reason = "attention in decode follows more than a part of its heads"
    assert refused([called(8, 2), called(12, 3), called(16, 4, k_len=65)]) == reason


def test_a_division_that_does_not_show_a_kind_is_refused() -> None:
    by_division = [recordings(taken(size)) for size in (200, 300, 400)]
    first, shown, other = by_division
    only_loading = other[-1]
    assert not only_loading.is_whole
    trace = following_parts(solve(first, PLAIN, depth=1), [shown[0], only_loading], DIVISIONS)
    assert trace.refused["decode"] == "not every division among cards shows decode"
    assert set(trace.templates) == {"load", "cache"}


def test_where_every_kind_is_refused_there_is_no_trace() -> None:
    first, shown, other = (recordings(taken(size)) for size in (200, 300, 401))
    trace = solve(first, PLAIN, depth=1)
    trace = replace(trace, templates={"decode": trace.templates["decode"]})
    with pytest.raises(NoPrediction, match=UNKNOWN_SIZES):
        following_parts(trace, [shown[0], other[0]], DIVISIONS)


def test_a_kind_that_was_refused_before_keeps_its_reason() -> None:
    first, shown, other = (recordings(taken(size)) for size in (200, 300, 400))
    trace = replace(solve(first, PLAIN, depth=1), refused={"prompt": "sizes in prompt do not follow the lengths"})
    followed = following_parts(trace, [shown[0], other[0]], DIVISIONS)
    assert followed.refused == trace.refused


def test_a_part_that_makes_no_whole_number_of_bytes_is_refused() -> None:
    three = [((3, 5), (4, 4)), *DIVISIONS[1:]]
    by_division = [taken(100), taken(100), taken(100)]
    events = followed(by_division, three).templates["decode"].copy()
    events[:, columns.DIVIDED] = 1  # 100 bytes that three heads are said to take
    with pytest.raises(NoPrediction, match="an allocation is no whole share of what was recorded"):
        divided(events, three[0], ((4, 4), (4, 4)))
