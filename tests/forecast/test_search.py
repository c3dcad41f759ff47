"""Searches against boundaries, predictions and cards of every kind: where they end, and how many probes they take."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import cycle, pairwise
from statistics import mean

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from bench.core.case import PAGE
from bench.forecast.search import Bracket, Observation, found, grid, next_probe

NATIVE = 131_072
# Log-uniform from 1,024 to 131,072 tokens, and never on a page.
BOUNDARIES = [round(1024 * 128 ** ((i + 0.5) / 200)) for i in range(200)]

Predict = Callable[[Sequence[Observation]], int | None]


def _search(
    native: int, card: Callable[[int], bool], predict: Predict, prior: Sequence[Observation] = ()
) -> tuple[list[int], Bracket, list[Observation]]:
    """The lengths probed, what came of it, and all observations; every step is held against the rules."""
    observations, probes = list(prior), list[int]()
    while (length := next_probe(native, predict(observations), observations)) is not None:
        _check_probe(native, length, observations)
        assert not found(native, observations).certified
        probes.append(length)
        observations.append(Observation(length, card(length)))
        assert len(probes) <= _most_probes(native, prior), "it does not end"
    bracket = found(native, observations)
    _check_certificate(native, bracket, observations)
    return probes, bracket, observations


def _most_probes(native: int, prior: Sequence[Observation]) -> int:
    """Of a page, or of all that predictions and contradictions can cost."""
    halvings = math.ceil(math.log2(len(grid(native)) + 1))
    return 9 * (halvings + 1) + 3 * len(prior)


def _check_probe(native: int, length: int, observations: Sequence[Observation]) -> None:
    assert length in grid(native)
    before = [o for o in observations if o.length == length]
    if before:
        fitted = [o.length for o in observations if o.fits and o.length >= length]
        assert not all(o.fits for o in before), "probed again, and it fitted"
        assert fitted, "probed again, without a contradiction"
        assert len(before) < 3, "probed a fourth time"
    elif not found(native, observations).contradictory:
        bracket = found(native, observations)
        assert (bracket.fits_at or 0) <= length <= (bracket.fails_at or native), "already known"
        if (bracket.fails_at or native + PAGE) - (bracket.fits_at or 0) > PAGE:
            assert length not in (bracket.fits_at, bracket.fails_at), "already known, and too early to certify"


def _check_certificate(native: int, bracket: Bracket, observations: Sequence[Observation]) -> None:
    assert bracket.certified
    lengths = grid(native)
    for length, fits in ((bracket.fits_at, True), (bracket.fails_at, False)):
        answers = [o.fits for o in observations if o.length == length]
        if length is not None:
            assert answers.count(fits) * 2 >= len(answers) > 0
            assert fits in answers
    if bracket.fits_at is None:
        assert bracket.fails_at == lengths[0]
    elif bracket.fails_at is None:
        assert bracket.fits_at == native
    else:
        assert (bracket.fits_at, bracket.fails_at) in pairwise(lengths)


def _up_to(boundary: int) -> Callable[[int], bool]:
    return lambda length: length <= boundary


def _always(prediction: int | None) -> Predict:
    return lambda _: prediction


def _boundary_of(native: int, boundary: int) -> tuple[int | None, int | None]:
    lengths = grid(native)
    return (
        max((n for n in lengths if n <= boundary), default=None),
        min((n for n in lengths if n > boundary), default=None),
    )


natives = st.one_of(
    st.integers(1, 2 * PAGE), st.integers(1, NATIVE), st.sampled_from([PAGE, 2048, 4095, 4096, 4097, NATIVE])
)
guesses = st.one_of(st.none(), st.integers(-NATIVE, 3 * NATIVE), st.integers(0, 16).map(lambda n: n * PAGE))


@st.composite
def searches(draw: st.DrawFn) -> tuple[int, int, list[Observation]]:
    """A model's limit, the longest length that fits, and some rows that agree with it."""
    native = draw(natives)
    boundary = draw(st.one_of(st.integers(0, native + PAGE), st.just(native)))
    near = st.integers(-2 * PAGE, 2 * PAGE).map(lambda n: max(1, boundary + n))
    lengths = draw(st.lists(st.one_of(st.integers(1, native), st.sampled_from(grid(native)), near), max_size=7))
    return native, boundary, [Observation(length, length <= boundary) for length in lengths]


@st.composite
def noisy_rows(draw: st.DrawFn) -> tuple[int, list[Observation]]:
    """A model's limit, and rows that need not agree with each other."""
    native = draw(natives)
    lengths = st.one_of(st.integers(1, native + 2 * PAGE), st.sampled_from(grid(native)), st.integers(1, 6 * PAGE))
    return native, draw(st.lists(st.builds(Observation, lengths, st.booleans()), max_size=14))


# The grid


@pytest.mark.parametrize(
    ("native", "lengths"),
    [
        (1024, [256, 512, 768, 1024]),
        (1000, [256, 512, 768, 1000]),
        (1025, [256, 512, 768, 1024, 1025]),
        (256, [256]),
        (255, [255]),
        (1, [1]),
    ],
)
def test_the_grid_is_whole_pages_and_the_models_own_limit(native: int, lengths: list[int]) -> None:
    assert grid(native) == lengths


@given(shortest=st.integers(1, 64), pages=st.integers(0, 400), known=st.data())
def test_it_may_begin_at_any_page(shortest: int, pages: int, known: st.DataObject) -> None:
    """As by the length of a cache, which has room for a job at least."""
    begin, end = shortest * PAGE, (shortest + pages) * PAGE
    lengths = grid(end, begin)
    assert lengths == [begin + n * PAGE for n in range(pages + 1)]
    fits = known.draw(st.integers(0, len(lengths)), label="how many fit")
    prediction = known.draw(st.one_of(st.none(), st.integers(0, end + PAGE), st.sampled_from(lengths)))
    seen = [Observation(n, n in lengths[:fits]) for n in known.draw(st.sets(st.sampled_from(lengths), max_size=4))]
    before = len(seen)
    while (length := next_probe(end, prediction, seen, begin)) is not None:
        assert length in lengths
        seen.append(Observation(length, length in lengths[:fits]))
        assert len(seen) - before <= _most_probes(end, [])
    bracket = found(end, seen, begin)
    assert bracket.certified
    assert bracket.fits_at == (lengths[fits - 1] if fits else None)
    assert bracket.fails_at == (lengths[fits] if fits < len(lengths) else None)
    if prediction is not None and not before and fits and prediction == lengths[fits - 1]:
        assert len(seen) <= 2


def test_a_model_without_a_length_is_refused() -> None:
    with pytest.raises(ValueError, match="0 tokens"):
        next_probe(0, None, [])


# Where a search ends


@given(searches(), st.lists(guesses, min_size=1, max_size=6))
@example((131_072, 131_072, []), [None])
@example((300, 256, []), [0])
def test_it_finds_the_boundary_whatever_is_predicted(
    search: tuple[int, int, list[Observation]], predictions: list[int | None]
) -> None:
    native, boundary, prior = search
    turns = cycle(predictions)
    _, bracket, _ = _search(native, _up_to(boundary), lambda _: next(turns), prior)
    assert (bracket.fits_at, bracket.fails_at) == _boundary_of(native, boundary)
    assert not bracket.contradictory


@given(noisy_rows(), st.lists(guesses, min_size=1, max_size=6), st.lists(st.booleans(), min_size=1, max_size=50))
def test_it_ends_with_an_honest_certificate_whatever_the_card_says(
    rows: tuple[int, list[Observation]], predictions: list[int | None], answers: list[bool]
) -> None:
    native, prior = rows
    turns, says = cycle(predictions), cycle(answers)
    _, bracket, seen = _search(native, lambda _: next(says), lambda _: next(turns), prior)
    fitted, failed = ([o.length for o in seen if o.fits is fits] for fits in (True, False))
    assert bracket.contradictory == any(longer >= shorter for longer in fitted for shorter in failed)


@given(noisy_rows(), guesses)
def test_it_is_over_exactly_when_the_boundary_is_certified(
    rows: tuple[int, list[Observation]], prediction: int | None
) -> None:
    native, observations = rows
    assert (next_probe(native, prediction, observations) is None) == found(native, observations).certified


@given(noisy_rows(), guesses, st.data())
def test_the_order_of_the_rows_does_not_matter(
    rows: tuple[int, list[Observation]], prediction: int | None, data: st.DataObject
) -> None:
    native, observations = rows
    shuffled = data.draw(st.permutations(observations))
    assert next_probe(native, prediction, shuffled) == next_probe(native, prediction, observations)
    assert found(native, shuffled) == found(native, observations)


@given(st.sets(st.sampled_from(grid(16_384))), guesses)
def test_a_hole_is_no_obstacle(fitting: set[int], prediction: int | None) -> None:
    """What fits at one length and not at a shorter one: either edge is a boundary."""
    probes, bracket, _ = _search(16_384, lambda length: length in fitting, _always(prediction))
    assert bracket.fits_at is None or bracket.fits_at in fitting
    assert bracket.fails_at not in fitting
    assert len(probes) <= 14


# What is known on the way


def test_nothing_is_known_at_first() -> None:
    assert found(NATIVE, []) == Bracket(None, None, certified=False, contradictory=False)


def test_lengths_off_the_grid_are_bounds_and_certify_nothing() -> None:
    rows = [Observation(5000, True), Observation(5121, False)]
    assert found(NATIVE, rows) == Bracket(4864, 5376, certified=False, contradictory=False)
    probes, bracket, _ = _search(NATIVE, _up_to(5000), _always(None), rows)
    assert sorted(probes) == [4864, 5120]
    assert bracket == Bracket(4864, 5120, certified=True, contradictory=False)


def test_longer_than_the_model_goes_is_a_bound_too() -> None:
    assert found(1000, [Observation(2000, True)]) == Bracket(1000, None, certified=False, contradictory=False)
    assert found(1000, [Observation(1001, False)]) == Bracket(None, None, certified=False, contradictory=False)


@given(searches(), st.lists(guesses, min_size=1, max_size=20), st.integers(0, 20))
def test_an_interrupted_search_goes_on(
    search: tuple[int, int, list[Observation]], predictions: list[int | None], cut: int
) -> None:
    native, boundary, prior = search

    def predict(observations: Sequence[Observation]) -> int | None:
        return predictions[len(observations) % len(predictions)]

    probes, bracket, observations = _search(native, _up_to(boundary), predict, prior)
    rows = observations[: len(prior) + cut]
    rest, again, _ = _search(native, _up_to(boundary), predict, rows)
    assert (probes[cut:], bracket) == (rest, again)


# What it costs


def _probe_counts(predicted: Iterable[int | None]) -> list[int]:
    """One for each of BOUNDARIES."""
    return [
        len(_search(NATIVE, _up_to(boundary), _always(prediction))[0])
        for boundary, prediction in zip(BOUNDARIES, predicted, strict=True)
    ]


def _pages(tokens: float) -> int:
    return min(NATIVE, round(tokens / PAGE) * PAGE)


def _fits_at(boundary: int) -> int:
    return boundary // PAGE * PAGE


@given(searches())
@example((4097, 4096, []))
@example((4097, 4095, [Observation(4095, True)]))
@example((131_072, 4000, [Observation(n * PAGE, True) for n in range(1, 8)]))
@example((131_072, 66_000, [Observation(1024 << n, n < 7) for n in range(8)]))
def test_an_exact_prediction_costs_two_probes_at_most(search: tuple[int, int, list[Observation]]) -> None:
    native, boundary, prior = search
    fits_at, fails_at = _boundary_of(native, boundary)
    probes, _, _ = _search(native, _up_to(boundary), _always(fits_at or 0), prior)
    known = {o.length for o in prior}
    assert sorted(probes) == [n for n in (fits_at, fails_at) if n is not None and n not in known]


def test_an_exact_prediction_is_probed_first_and_then_the_next_page() -> None:
    assert _search(NATIVE, _up_to(40_000), _always(39_936))[0] == [39_936, 40_192]


@pytest.mark.parametrize(("boundary", "predicted"), [(NATIVE, NATIVE), (NATIVE, 10 * NATIVE), (0, 0), (255, -1)])
def test_an_exact_prediction_at_either_end_costs_one_probe(boundary: int, predicted: int) -> None:
    assert len(_search(NATIVE, _up_to(boundary), _always(predicted))[0]) == 1


@pytest.mark.parametrize(("pages", "probes"), [(-2, 4), (-1, 4), (0, 2), (1, 2), (2, 4)])
def test_a_prediction_off_by_a_page_or_two_costs_four_probes_at_most(pages: int, probes: int) -> None:
    counts = _probe_counts(_fits_at(boundary) + pages * PAGE for boundary in BOUNDARIES)
    assert max(counts) <= probes


@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_a_prediction_off_by_five_per_cent_costs_six_probes_in_the_mean(factor: float) -> None:
    assert mean(_probe_counts(_pages(boundary * factor) for boundary in BOUNDARIES)) <= 6


@pytest.mark.parametrize("factor", [0.25, 4])
def test_a_prediction_off_by_a_factor_of_four_costs_a_few_more_than_bisection(factor: float) -> None:
    counts = _probe_counts(_pages(boundary * factor) for boundary in BOUNDARIES)
    assert mean(counts) <= 12
    assert max(counts) <= 17


def test_without_a_prediction_the_pages_are_bisected() -> None:
    counts = _probe_counts(None for _ in BOUNDARIES)
    assert mean(counts) <= 9.5
    assert max(counts) <= 10


def test_the_models_own_limit_is_tried_when_a_prediction_was_too_low() -> None:
    probes, bracket, _ = _search(NATIVE, _up_to(NATIVE), _always(_pages(NATIVE * 0.95)))
    assert len(probes) <= 5
    assert bracket.fits_at == NATIVE


@given(searches(), st.integers(0, NATIVE))
def test_a_prediction_that_is_corrected_after_a_miss_costs_three_probes(
    search: tuple[int, int, list[Observation]], first: int
) -> None:
    native, boundary, _ = search
    right = _boundary_of(native, boundary)[0] or 0
    probes, _, _ = _search(native, _up_to(boundary), lambda seen: right if seen else first)
    assert len(probes) <= 3


@pytest.mark.parametrize("pages", [-3, -1, 0, 1, 3])
@pytest.mark.parametrize("edge", ["fits_at", "fails_at"])
def test_corrections_that_never_leave_the_edge_do_not_make_it_crawl(edge: str, pages: int) -> None:
    def predict(observations: Sequence[Observation]) -> int:
        at = getattr(found(NATIVE, observations), edge)
        return (_pages(NATIVE / 3) if at is None else int(at)) + pages * PAGE

    counts = [len(_search(NATIVE, _up_to(boundary), predict)[0]) for boundary in BOUNDARIES[::5]]
    assert max(counts) <= 60  # of 512 pages


# Contradictions


def _answers(*answers: bool) -> Callable[[int], bool]:
    """A card that answers these, and after them that everything up to 12,000 tokens fits."""
    rest = list(answers)
    return lambda length: rest.pop(0) if rest else length <= 12_000


FAILED_BELOW_A_FIT = [Observation(4096, False), Observation(8192, True)]


def test_a_failure_below_a_fit_is_outvoted_by_two_fits() -> None:
    probes, bracket, _ = _search(16_384, _answers(True, True), _always(11_776), FAILED_BELOW_A_FIT)
    assert probes == [4096, 4096, 11_776, 12_032]
    assert bracket == Bracket(11_776, 12_032, certified=True, contradictory=True)


@pytest.mark.parametrize("answers", [[False], [True, False]])
def test_a_failure_below_a_fit_stands_when_it_fails_again(answers: list[bool]) -> None:
    repeats = len(answers)
    probes, bracket, _ = _search(16_384, _answers(*answers, True), _always(3840), FAILED_BELOW_A_FIT)
    assert probes == [4096] * repeats + [3840]
    assert bracket == Bracket(3840, 4096, certified=True, contradictory=True)


def test_above_a_failure_that_stands_nothing_is_repeated() -> None:
    """The bisection below it fails too, and each of those failures is believed at once."""
    rows = [*FAILED_BELOW_A_FIT, Observation(4096, False)]
    probes, bracket, _ = _search(16_384, _up_to(0), _always(None), rows)
    assert probes == sorted(set(probes), reverse=True)
    assert bracket.fails_at == PAGE


def test_the_lowest_failure_is_settled_first() -> None:
    rows = [Observation(2048, False), *FAILED_BELOW_A_FIT]
    probes, _, _ = _search(16_384, _answers(True, True, True, True), _always(11_776), rows)
    assert probes[:4] == [2048, 2048, 4096, 4096]


def test_a_length_with_two_answers_is_asked_again() -> None:
    rows = [Observation(4096, True), Observation(4096, False)]
    assert next_probe(16_384, 11_776, rows) == 4096
    assert found(16_384, rows) == Bracket(None, 4096, certified=False, contradictory=True)
    assert found(16_384, [*rows, Observation(4096, True)]).fits_at == 4096


def test_a_failure_off_the_grid_is_settled_on_it() -> None:
    rows = [Observation(5000, False), Observation(8192, True)]
    probes, bracket, _ = _search(16_384, _answers(True), _always(11_776), rows)
    assert probes == [5120, 11_776, 12_032]
    assert bracket == Bracket(11_776, 12_032, certified=True, contradictory=True)


@given(st.integers(0, NATIVE), st.integers(1, NATIVE), guesses)
def test_one_accidental_failure_costs_two_probes(boundary: int, accident: int, prediction: int | None) -> None:
    assume(accident <= boundary - PAGE)
    rows = [Observation(accident, False), Observation(max(accident + 1, boundary), True)]
    probes, bracket, _ = _search(NATIVE, _up_to(boundary), _always(prediction), rows)
    undisturbed, expected, _ = _search(NATIVE, _up_to(boundary), _always(prediction), rows[1:])
    assert (bracket.fits_at, bracket.fails_at) == (expected.fits_at, expected.fails_at)
    assert len(probes) <= len(undisturbed) + 2
