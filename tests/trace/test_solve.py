"""The solver: exact on whatever follows its rules, and silent on all else."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.allocator.limits import Limits
from bench.core.outcome import Phase
from bench.engines.exllamav2.samples import extra_passes, load_lengths, whole_lengths
from bench.engines.exllamav2.schedule import schedule
from bench.engines.exllamav2.setup import Setup
from bench.scenarios.forward import DECODE_TOKENS
from bench.trace.parametric import ParametricTrace
from bench.trace.passes import NoPrediction, Pass
from bench.trace.recording import Event, Op, Section
from bench.trace.solve import _null_space, solve
from bench.trace.template import NUM_TERMS, terms
from tests.trace import requests
from tests.trace import synthetic_recordings as made_up
from tests.trace.synthetic_recordings import PLAIN, SETUPS

LIMITS = Limits(24 << 30, 0, 108, 8 << 20, 3072)
_polynomials = st.lists(st.tuples(*[st.integers(0, 3000)] * NUM_TERMS), min_size=1, max_size=5)


def value(coefficients: Sequence[int | Fraction], each: Pass, max_seq_len: int) -> int:
    shown = terms(each.q_len, each.k_len, max_seq_len, max_seq_len)
    size = sum(c * int(t) for c, t in zip(coefficients, shown, strict=True))
    assert size == int(size)
    return int(size)


def solved_sizes(trace: ParametricTrace, max_seq_len: int) -> list[list[int]]:
    """The sizes of each section."""
    sections = requests.of_program(trace, {}, LIMITS, max_seq_len)
    return [[int(request[2]) for request in found if request[0] == "malloc"] for _, _, found in sections]


@pytest.mark.parametrize("name", SETUPS)
@given(polynomials=_polynomials, length=st.integers(40, 5000))
@settings(max_examples=15, deadline=None)
def test_sizes_are_recovered_at_any_length(name: str, polynomials: list[tuple[int, ...]], length: int) -> None:
    """Whole polynomials in the length, the tokens of the pass and those in the cache; also products of the last two."""
    setup = SETUPS[name]

    def sizes(each: Pass, max_seq_len: int) -> list[int]:
        return [1 + value(p, each, max_seq_len) for p in polynomials]

    trace = solve(made_up.recordings(setup, sizes), setup, depth=1)
    length -= length % setup.even_tokens
    assert solved_sizes(trace, length) == [sizes(each, length) for each in trace.passes(length)]


def test_every_length_of_a_dense_model_is_known() -> None:
    for name, setup in SETUPS.items():
        trace = solve(made_up.recordings(setup, lambda each, n: [each.k_len + n]), setup, depth=1)
        step = 256 if name == "routed" else 1
        lengths = range(256 if name == "routed" else 40, 1500, step)
        for length in (*lengths, 4095 // step * step, 4096):
            trace.passes(length)


def test_parts_of_tokens_are_exact_where_they_are_whole() -> None:
    """Experts' shares: a quarter of the tokens, and a whole number of bytes for each."""
    setup = PLAIN._replace(num_experts=16, experts_per_token=1)

    def sizes(each: Pass, max_seq_len: int) -> list[int]:
        return [100 * ((each.q_len + 15 - expert) // 16) for expert in range(16)]

    trace = solve(made_up.recordings(setup, sizes), setup, depth=1)
    for length in (256, 1024, 4096):  # whole pages: the last chunk is four short of even shares
        assert any("uneven" in each.kind for each in trace.passes(length))
        assert solved_sizes(trace, length) == [
            [size for size in sizes(each, length) if size] for each in trace.passes(length)
        ]
    with pytest.raises(NoPrediction, match="a chunk of 35 tokens, of which the experts get unequal shares"):
        trace.passes(64 + 35 + DECODE_TOKENS)


def test_the_smallest_fraction_is_a_64th() -> None:
    def sizes(fraction: Fraction) -> made_up.Sizes:
        return lambda each, n: [int(fraction * 64 * 7 * 3 * each.k_len) + n]

    for denominator in (64, 7):
        fraction = Fraction(1, denominator)
        trace = solve(made_up.recordings(PLAIN, sizes(fraction)), PLAIN, depth=1)
        assert solved_sizes(trace, 1000) == [list(sizes(fraction)(each, 1000)) for each in schedule(1000, PLAIN)]
    thirds = made_up.recordings(PLAIN, lambda each, n: [n + each.q_len // 3])
    with pytest.raises(NoPrediction, match="sizes in prefill do not follow the lengths"):
        solve(thirds, PLAIN, depth=1).passes(1000)


@pytest.mark.parametrize("kind", ["load", "cache", "prefill", "decode"])
@given(data=st.data(), difference=st.integers(-900, 900).filter(bool))
@settings(max_examples=15, deadline=None)
def test_a_size_that_is_off_is_never_smoothed_over(kind: str, data: st.DataObject, difference: int) -> None:
    """One byte in one of the recorded sections is enough."""
    made = made_up.recordings(PLAIN, lambda each, n: [1000 + 3 * n + 5 * each.k_len * each.q_len, 999])
    of_kind = [
        section
        for recording in made
        for each, section in zip(
            [*schedule(recording.max_seq_len, PLAIN), *extra_passes(recording.max_seq_len, PLAIN)],
            recording.sections,
            strict=False,
        )
        if each.kind == kind
    ]
    section = data.draw(st.sampled_from(of_kind))
    event = section.events[0]
    section.events[0] = event._replace(size_bytes=event.size_bytes + difference)
    trace = solve(made, PLAIN, depth=1)
    assert kind in trace.refused
    with pytest.raises(NoPrediction, match=f"{kind} do not follow the lengths|differ"):
        trace.passes(1000)


def _changed(kind: str, change: made_up.Callable[[Section], None], number: int = 0) -> ParametricTrace:
    """The program of recordings of which one section is another."""
    made = made_up.recordings(PLAIN, lambda each, n: [n, 512, 512])
    places = [each.kind for each in schedule(made[0].max_seq_len, PLAIN)]
    change(made[number].sections[places.index(kind)])
    return solve(made, PLAIN, depth=1)


def test_sections_of_a_kind_hold_the_same_events() -> None:
    trace = _changed("prefill", lambda section: section.events.append(Event(Op.EMPTY_CACHE)))
    assert trace.refused == {"prefill": "prefill sections differ in more than their sizes"}


def test_streams_and_parts_are_not_to_change() -> None:
    def on_other_stream(section: Section) -> None:
        section.events[0] = section.events[0]._replace(stream=1)

    assert _changed("decode", on_other_stream).refused == {"decode": "decode sections differ in more than their sizes"}


def test_a_section_frees_only_its_own() -> None:
    trace = _changed("prompt", lambda section: section.events.append(Event(Op.FREE, 77)))
    assert trace.refused == {"prompt": "prompt frees what an earlier section allocated"}


def test_layers_come_in_order() -> None:
    def backwards(section: Section) -> None:
        section.events[:2] = [section.events[0]._replace(layer=1), section.events[1]._replace(layer=0)]

    assert _changed("load", backwards).refused == {"load": "load does not go through the layers in order"}


def test_other_passes_than_the_scenarios_are_refused_at_once() -> None:
    with pytest.raises(NoPrediction, match="passes at 172 tokens are not the expected ones"):
        _changed("prompt", lambda section: setattr(section, "q_len", 15))


def test_layers_that_differ_are_refused() -> None:
    def sizes(each: Pass, max_seq_len: int) -> list[int]:
        return [512] * 5

    made = made_up.recordings(PLAIN, sizes, num_layers=5)
    for recording in made:
        for number, section in enumerate(recording.sections):
            allocations = [event for event in section.events if event.op is Op.MALLOC]
            section.events = [event._replace(layer=layer) for layer, event in enumerate(allocations)]
            if number == 3:
                section.events[3] = section.events[3]._replace(size_bytes=1024)
    trace = solve(made, PLAIN, depth=9)
    assert trace.refused == {"warm_up_0": "the layers of a model differ in warm_up_0"}
    assert len(trace.deepened().templates["prefill"]) == 9


def test_a_cache_is_made_layer_by_layer() -> None:
    made = made_up.recordings(PLAIN, lambda each, n: [10, 20, 30], num_layers=2)
    assert "cache" not in solve(made, PLAIN, depth=2).refused  # one for each layer would be alike; so all are for all
    with_rest = made_up.recordings(PLAIN, lambda each, n: [n, n, n, n, 7], num_layers=2)
    assert solve(with_rest, PLAIN, depth=2).templates["cache"][:, 4].tolist() == [0, 0, 1, 1, 2]


def test_lengths_that_recordings_leave_open_are_refused() -> None:
    """All whole recordings below a chunk: what becomes of a chunk and of more cannot be told apart there."""
    lazy = PLAIN._replace(lazy=True, native_max_seq_len=40)
    trace = solve(made_up.recordings(lazy, lambda each, n: [n * each.q_len]), lazy, depth=1)
    with pytest.raises(NoPrediction, match="leave open what is taken by a load of 64 tokens"):
        trace.passes(1000)


_samples = st.lists(st.lists(st.integers(-50, 50), min_size=NUM_TERMS, max_size=NUM_TERMS), min_size=1, max_size=8)


@given(samples=_samples, weights=st.lists(st.integers(-9, 9), min_size=8, max_size=8))
@settings(deadline=None)
def test_relations_hold_for_all_sums_of_samples_and_for_nothing_else(
    samples: list[list[int]], weights: list[int]
) -> None:
    null_space = _null_space([np.array(sample) for sample in samples])
    combined = [sum(w * s[i] for w, s in zip(weights, samples, strict=False)) for i in range(NUM_TERMS)]
    for row in (*samples, combined):
        assert all(sum(r * v for r, v in zip(relation, row, strict=True)) == 0 for relation in null_space)
    assert len(null_space) == NUM_TERMS - np.linalg.matrix_rank(np.array(samples, dtype=float))
    if null_space:
        assert np.linalg.matrix_rank(np.array(null_space, dtype=float)) == len(null_space)


@pytest.mark.parametrize("name", SETUPS)
def test_every_kind_of_prefill_is_recorded_often_enough_to_tell_all_terms_apart(name: str) -> None:
    setup = SETUPS[name]
    samples: dict[str, list[np.ndarray]] = {}
    for length in whole_lengths(setup):
        for each in (*schedule(length, setup), *extra_passes(length, setup)):
            samples.setdefault(each.kind, []).append(terms(each.q_len, each.k_len, length))
    for kind, found in samples.items():
        if kind.startswith(Phase.PREFILL) and "of_" not in kind and "uneven" not in kind and "at_window" not in kind:
            assert np.linalg.matrix_rank(np.stack(found).astype(float)) == 6, kind


def test_loading_is_recorded_on_both_sides_of_every_edge() -> None:
    setup = Setup(True, 2048, 1, "sdpa", 131072, window=1000, rope_limit=32768)
    lengths = [*whole_lengths(setup), *load_lengths(setup)]
    for low, high, needed in ((32, 1000, 3), (1000, 2048, 3), (2048, 32768, 2), (32768, 131072, 2)):
        assert len({length for length in lengths if low < length < high}) >= needed
    assert 1000 in lengths
    assert {each.kind for length in lengths for each in schedule(length, setup) if each.phase == Phase.LOAD} == {
        "load",
        "load_at_window",
        "load_beyond_window",
        "load_beyond_window_extended",
    }
