"""One search after another with made-up cards: how many probes, and what the boundary's row says of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from bench.core.case import Case, ModelSpec, Search
from bench.core.columns import CaseRow
from bench.core.device import DeviceSpec
from bench.core.place_columns import PlaceColumns
from bench.forecast.forecaster import Forecaster
from bench.forecast.search import grid
from bench.run.boundary import find_boundary, settled
from bench.store.schema import BOUNDARIES

NATIVE = 8192
CELL = Search(
    Case(
        model=ModelSpec("tiny", {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": NATIVE}, "f1"),
        device=DeviceSpec("rtx_4090", "simulated", "NVIDIA GeForce RTX 4090", 24 << 30),
        bpw=4.0,
        head_bits=6,
        cache="Q4",
        lazy=False,
        attention="auto",
        max_seq_len=NATIVE,
        batch_size=1,
        max_input_len=2048,
    )
)

Row = dict[str, Any]


class Oracle:
    """Stands for the forecaster: says what it is told to, and after `corrected_by` rows what is right."""

    def __init__(self, says: int | None, corrected_by: int = 1 << 30, right: int | None = None) -> None:
        self.says, self.right = says, right
        self.left = corrected_by
        self.advised = 0

    def fits_at(self, search: Search) -> int | None:
        return self.right if self.left <= 0 else self.says

    def gaps(self, search: Search) -> None:
        """Lengths that fit have none."""

    def why_unpredicted(self, search: Search) -> str | None:
        """Of what it says nothing."""
        return None if self.says is not None else "nobody knows"

    def auto_fits_at(self, search: Search) -> None:
        """The split is none that could be compared."""

    def advise(self, search: Search) -> str:
        self.advised += 1
        return "bpw=2 would fit"


class Card:
    """Measures by a rule; `answers` are outcomes that come first, `asked` is what was asked for, and whether again."""

    def __init__(self, boundary: int, oracle: Oracle, answers: tuple[str, ...] = (), over: str = "oom") -> None:
        self.boundary, self.oracle, self.answers, self.over = boundary, oracle, list(answers), over
        self.asked: list[tuple[int, bool]] = []

    @property
    def lengths(self) -> list[int]:
        return [length for length, _ in self.asked]

    def __call__(self, case: Case, again: bool) -> Row | None:
        self.asked.append((case.max_seq_len, again))
        self.oracle.left -= 1
        usual = "fits" if case.max_seq_len <= self.boundary else self.over
        outcome = self.answers.pop(0) if self.answers else usual
        return None if outcome == "stopped" else row_of(case, outcome, number=len(self.asked))


def row_of(case: Case, outcome: str, number: int) -> Row:
    fits = outcome == "fits"
    died = outcome == "crash"
    return {
        **dict.fromkeys(CaseRow.__annotations__),
        "run_id": "run",
        "case_id": f"case-{case.max_seq_len}",
        "host": "here",
        "device_name": case.device.name,
        "device_kind": "simulated",
        "device_uuid": None,
        "device_total_bytes": 24 << 30,
        "vram_limit_bytes": None,
        "model": case.model.name,
        "bpw": case.bpw,
        "cache": case.cache,
        "lazy": case.lazy,
        "attention": None if died else "flash",
        "max_seq_len": case.max_seq_len,
        "outcome": outcome,
        "error": None if fits else f"error {number}",
        "peak_reserved_bytes": 9 << 30,
        "peak_device_bytes": (10 << 30) + case.max_seq_len,
        "predicted_peak_bytes": 8 << 30,
        "context_bytes": 1 << 30,
        "decode_tokens_per_s_full": None,
        "estimated_decode_tokens_per_s": 100.0 + number,
        "notes": [f"note {number}", "assumed"] if fits else None,
    }


def search(oracle: Oracle, measure: Callable[[Case, bool], Row | None], stored: Sequence[Row] = ()) -> Row | None:
    return find_boundary(CELL, "boundary", measure, cast(Forecaster, oracle), stored)


def found(oracle: Oracle, card: Card, stored: Sequence[Row] = ()) -> Row:
    row = search(oracle, card, stored)
    assert row is not None
    return row


def span(row: Row) -> tuple[Any, ...]:
    return row["outcome"], row["fits_at"], row["fails_at"], row["certified"], row["contradictory"], row["probes"]


# What it takes


def test_a_right_prediction_takes_two_probes() -> None:
    oracle = Oracle(4096)
    card = Card(4200, oracle)
    row = found(oracle, card)
    assert card.asked == [(4096, False), (4352, False)]
    assert span(row) == ("fits", 4096, 4352, True, False, 2)
    assert row["predicted_fits_at"] == 4096


@pytest.mark.parametrize(("boundary", "predicted"), [(NATIVE, NATIVE), (0, 0)])
def test_a_right_prediction_at_either_end_takes_one(boundary: int, predicted: int) -> None:
    oracle = Oracle(predicted)
    assert found(oracle, Card(boundary, oracle))["probes"] == 1


def test_a_wrong_prediction_is_corrected_by_what_is_measured() -> None:
    oracle = Oracle(7168, corrected_by=1, right=2048)
    card = Card(2048, oracle)
    row = found(oracle, card)
    assert card.lengths == [7168, 2048, 2304]
    assert span(row) == ("fits", 2048, 2304, True, False, 3)
    assert row["predicted_fits_at"] == 7168  # as it was thought at first


def test_without_a_prediction_the_lengths_are_halved() -> None:
    oracle = Oracle(None)
    card = Card(4096, oracle)
    row = found(oracle, card)
    assert span(row)[:5] == ("fits", 4096, 4352, True, False)
    assert row["probes"] == len(card.asked) <= len(grid(NATIVE)).bit_length()
    assert row["predicted_fits_at"] is None


# What is known already


def known(**outcomes: str) -> list[Row]:
    """Rows of earlier runs, `at_4096="fits"` for each."""
    lengths = {int(name.removeprefix("at_")): outcome for name, outcome in outcomes.items()}
    return [row_of(CELL.at(length), outcome, number=0) for length, outcome in lengths.items()]


def test_a_search_goes_on_from_what_is_stored() -> None:
    oracle = Oracle(7168)
    card = Card(4096, oracle)
    row = found(oracle, card, known(at_4096="fits", at_4608="oom", at_512="fits", at_8192="oom"))
    assert card.asked == [(4352, False)]
    assert span(row) == ("fits", 4096, 4352, True, False, 2)
    assert row["case_ids"] == ["case-4096", "case-4352"]  # not the others, which have nothing to say
    assert row["headroom_bytes"] == (14 << 30) - 4096


def test_what_is_all_known_is_not_measured() -> None:
    oracle = Oracle(7168)
    card = Card(4096, oracle)
    row = found(oracle, card, known(at_4096="fits", at_4352="oom"))
    assert card.asked == []
    assert span(row) == ("fits", 4096, 4352, True, False, 2)


def test_a_length_between_two_pages_certifies_nothing() -> None:
    oracle = Oracle(4096)
    card = Card(4200, oracle)
    row = found(oracle, card, known(at_4150="fits", at_4300="oom"))
    assert sorted(card.lengths) == [4096, 4352]
    assert span(row)[:5] == ("fits", 4096, 4352, True, False)


@pytest.mark.parametrize("outcome", ["crash", "timeout", "error", "unsupported"])
def test_what_answered_nothing_is_no_knowledge(outcome: str) -> None:
    oracle = Oracle(4096)
    card = Card(4200, oracle)
    row = found(oracle, card, known(at_4096=outcome))
    assert card.lengths == [4096, 4352]
    assert row["outcome"] == "fits"


# What contradicts itself


def test_a_failure_below_a_fit_is_measured_again_and_outvoted() -> None:
    oracle = Oracle(4096)
    card = Card(4200, oracle)
    row = found(oracle, card, known(at_2048="oom", at_4096="fits"))
    assert card.asked == [(2048, True), (2048, True), (4352, False)]
    assert span(row) == ("fits", 4096, 4352, True, True, 5)
    assert row["case_ids"] == ["case-2048", "case-4096", "case-4352"]


def test_a_failure_that_fails_again_stands() -> None:
    oracle = Oracle(4096)
    card = Card(1792, oracle)
    row = found(oracle, card, known(at_2048="oom", at_4096="fits"))
    assert card.asked[0] == (2048, True)
    assert span(row)[:5] == ("fits", 1792, 2048, True, True)
    assert "case-4096" in row["case_ids"]  # a reader should find what contradicts


def test_what_flips_from_one_time_to_the_next_is_a_failure_and_flagged() -> None:
    oracle = Oracle(1792)
    card = Card(1792, oracle, answers=("fits", "oom"))
    row = found(oracle, card, known(at_2048="oom", at_4096="fits"))
    assert [again for length, again in card.asked if length == 2048] == [True, True]
    assert span(row)[:5] == ("fits", 1792, 2048, True, True)


def test_the_fit_speaks_where_its_length_also_failed() -> None:
    oracle = Oracle(4096)
    card = Card(4200, oracle)
    row = found(oracle, card, [*known(at_4096="fits"), *known(at_4096="oom")])
    assert card.asked == [(4096, True), (4352, False)]
    assert span(row) == ("fits", 4096, 4352, True, True, 4)
    assert row["estimated_decode_tokens_per_s"] == 101.0


# What ends a search


@pytest.mark.parametrize("outcome", ["crash", "timeout", "error", "unsupported"])
def test_a_verdict_that_is_no_answer_ends_the_search(outcome: str) -> None:
    oracle = Oracle(4096)
    card = Card(4200, oracle, answers=("fits", outcome))
    row = found(oracle, card)
    assert card.lengths == [4096, 4352]
    assert span(row) == (outcome, 4096, None, False, False, 2)
    assert row["error"] == "error 2"
    assert row["case_ids"] == ["case-4096", "case-4352"]
    assert row["attention"] == "flash"  # as the case before it said
    assert row["advice"] is None
    assert not oracle.advised
    assert settled(row) == (outcome == "unsupported")


class Ending:
    """Measures by a rule: fits up to `fits_up_to`, is too long up to `oom_up_to`, and above that the engine ends."""

    def __init__(self, fits_up_to: int, oom_up_to: int) -> None:
        self.fits_up_to, self.oom_up_to = fits_up_to, oom_up_to
        self.lengths: list[int] = []

    def __call__(self, case: Case, again: bool) -> Row:
        length = case.max_seq_len
        self.lengths.append(length)
        outcome = "fits" if length <= self.fits_up_to else "oom" if length <= self.oom_up_to else "error"
        return row_of(case, outcome, number=len(self.lengths))


@pytest.mark.parametrize("predicted", [3072, None])
def test_a_length_at_which_the_engine_ends_by_itself_is_not_taken_and_certifies_nothing(predicted: int | None) -> None:
    measure = Ending(4608, 4608)
    row = search(Oracle(predicted), measure)
    assert row is not None
    assert sum(length > 4608 for length in measure.lengths) > 1  # the search went on
    assert measure.lengths.count(4864) == 1
    assert span(row)[:5] == ("error", 4608, None, False, False)
    assert row["error"] == f"error {measure.lengths.index(4864) + 1}"
    assert not settled(row)


@pytest.mark.parametrize("predicted", [3072, None])
def test_a_length_above_one_that_is_too_long_may_end_in_any_way(predicted: int | None) -> None:
    measure = Ending(4608, 5120)
    row = search(Oracle(predicted), measure)
    assert row is not None
    assert max(measure.lengths) > 5120
    assert span(row)[:5] == ("fits", 4608, 4864, True, False)
    assert row["error"] is None


@pytest.mark.parametrize("predicted", [4096, None])
def test_an_error_where_a_fit_was_expected_or_nothing_known_ends_the_search(predicted: int | None) -> None:
    measure = Ending(0, 0)
    row = search(Oracle(predicted), measure)
    assert row is not None
    assert len(measure.lengths) == 1
    assert span(row) == ("error", None, None, False, False, 1)


def test_an_error_at_the_first_page_is_no_boundary_below_it() -> None:
    row = search(Oracle(0), Ending(0, 0))
    assert row is not None
    assert span(row) == ("error", None, None, False, False, 1)
    assert (row["error"], row["advice"]) == ("error 1", None)


def test_a_stop_in_the_middle_leaves_no_boundary() -> None:
    oracle = Oracle(4096)
    card = Card(4200, oracle, answers=("fits", "stopped"))
    assert search(oracle, card) is None
    assert len(card.asked) == 2


def test_spilling_to_the_host_is_not_fitting() -> None:
    oracle = Oracle(4096)
    row = found(oracle, Card(4200, oracle, over="degraded"))
    assert span(row) == ("fits", 4096, 4352, True, False, 2)
    nothing = Oracle(0)
    assert span(found(nothing, Card(0, nothing, over="degraded"))) == ("oom", None, 256, True, False, 1)


# What the row says


def test_the_row_has_the_columns_of_the_schema() -> None:
    oracle = Oracle(4096)
    row = found(oracle, Card(4200, oracle))
    assert set(row) == set(BOUNDARIES.names) - set(PlaceColumns.__annotations__)  # those are of the sweep
    assert (row["run_id"], row["boundary_id"], row["model"], row["cache"]) == ("run", "boundary", "tiny", "Q4")
    assert row["notes"] == ["assumed", "note 1"]
    assert row["error"] is None
    assert row["wall_s"] >= 0
    assert settled(row)


def test_the_row_has_the_figures_of_the_fit() -> None:
    oracle = Oracle(3840)
    card = Card(4200, oracle)
    row = found(oracle, card)
    assert card.lengths == [3840, 4096, 4608, 4352]
    assert row["peak_device_bytes"] == (10 << 30) + 4096
    assert row["headroom_bytes"] == (14 << 30) - 4096
    assert row["predicted_peak_bytes"] == 8 << 30
    assert row["estimated_decode_tokens_per_s"] == 102.0
    assert row["decode_tokens_per_s_full"] is None


def test_where_nothing_fits_there_are_no_figures_but_advice() -> None:
    oracle = Oracle(4096, corrected_by=1, right=0)
    row = found(oracle, Card(0, oracle))
    assert span(row) == ("oom", None, 256, True, False, 2)
    assert (row["peak_device_bytes"], row["headroom_bytes"], row["estimated_decode_tokens_per_s"]) == (None,) * 3
    assert row["advice"] == "bpw=2 would fit"
    assert settled(row)


@pytest.mark.parametrize(
    ("changed", "headroom"),
    [
        ({"vram_limit_bytes": 12 << 30}, 2 << 30),
        # There the limit is PyTorch's and the context's; what others hold does not count.
        ({"vram_limit_bytes": 12 << 30, "vram_limit_by": "allocator", "peak_device_bytes": 20 << 30}, 2 << 30),
        ({"device_kind": "cuda", "peak_device_bytes": 20 << 30}, 4 << 30),
        ({"peak_device_bytes": None}, None),
    ],
)
def test_headroom_is_what_was_left_of_the_card_or_of_the_limit(changed: Row, headroom: int | None) -> None:
    oracle = Oracle(NATIVE)

    def measure(case: Case, again: bool) -> Row:
        return {**row_of(case, "fits", number=1), "peak_device_bytes": 10 << 30, **changed}

    row = search(oracle, measure)
    assert row is not None
    assert row["headroom_bytes"] == headroom


# An end of the search that is not the model's own limit


def up_to(search_end: int, oracle: Oracle, card: Card, **config: Any) -> Row:
    """The boundary of a search that ends there; `config` is more of config.json, which says 8,192."""
    model = replace(CELL.longest.model, config={"max_position_embeddings": NATIVE, **config})
    search = Search(replace(CELL.longest, model=model, max_seq_len=search_end))
    row = find_boundary(search, "b", card, cast(Forecaster, oracle))
    assert row is not None
    return row


def test_where_all_fits_up_to_an_end_that_was_given_nothing_is_certified_and_nothing_left_to_find() -> None:
    oracle = Oracle(4096)
    row = up_to(4096, oracle, Card(1 << 20, oracle))
    assert span(row)[:5] == ("fits", 4096, None, False, False)
    assert (row["searched_up_to"], settled(row)) == (4096, True)


def test_an_end_beyond_the_models_own_limit_is_noted_where_it_goes_beyond() -> None:
    note = "beyond the model's own limit of 8,192: memory is right, outputs may not be"
    oracle = Oracle(16384)
    beyond = up_to(32768, oracle, Card(16384, oracle))
    assert span(beyond)[:5] == ("fits", 16384, 16640, True, False)
    assert note in beyond["notes"]
    within = up_to(32768, oracle, Card(NATIVE, oracle))
    assert span(within)[:5] == ("fits", NATIVE, NATIVE + 256, True, False)
    assert note not in within["notes"]


def test_the_engines_default_is_no_limit_of_the_model() -> None:
    oracle = Oracle(2048)
    row = up_to(2048, oracle, Card(1 << 20, oracle), max_position_embeddings=None)
    assert (*span(row)[:5], settled(row)) == ("fits", 2048, None, False, False, True)
    assert "config.json names no limit; ExLlamaV2 takes 2,048 by default" in row["notes"]


def test_searches_with_other_ends_are_other_boundaries() -> None:
    ends = [Search(CELL.at(length)).boundary_id({}) for length in (NATIVE, 4096, 4096)]
    assert ends[0] != ends[1] == ends[2]


@pytest.mark.parametrize(("says", "told"), [(None, True), (3072, False)])
def test_why_a_boundary_took_many_runs_is_noted(says: int | None, told: bool) -> None:
    oracle = Oracle(says)
    row = found(oracle, Card(3072, oracle))
    assert ("found by runs alone, as it is not predicted: nobody knows" in (row["notes"] or [])) is told
