"""What becomes better or worse, and what a gate makes of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.comparison.compare import Change, Comparison, Finding, Gates, ResultSet, Slack, compare, reach
from tests.comparison.rows_to_compare import GIB, MIB, boundary, case, grown, real_case

FAST, SLOW = [1.0, 1.01, 1.02, 1.03, 1.04], [1.2, 1.21, 1.22, 1.23, 1.24]


def _cases(base: list[dict[str, Any]], head: list[dict[str, Any]], gates: Gates | None = None) -> Comparison:
    return compare(ResultSet(base), ResultSet(head), gates or Gates())


def _boundaries(base: dict[str, Any], head: dict[str, Any], gates: Gates | None = None) -> Comparison:
    return compare(ResultSet(boundaries=[base]), ResultSet(boundaries=[head]), gates or Gates())


def _said(findings: list[Finding]) -> list[tuple[str, Change, bool]]:
    return [(finding.column, finding.change, finding.fails) for finding in findings]


@pytest.mark.parametrize(
    ("base", "head", "change"),
    [
        ("fits", "oom", Change.WORSE),
        ("fits", "degraded", Change.WORSE),
        ("fits", "crash", Change.WORSE),
        ("oom", "timeout", Change.WORSE),
        ("unsupported", "error", Change.WORSE),
        ("oom", "fits", Change.BETTER),
        ("crash", "oom", Change.BETTER),
        ("unsupported", "oom", Change.OTHER),
        ("crash", "timeout", Change.OTHER),
    ],
)
def test_a_changed_verdict(base: str, head: str, change: Change) -> None:
    comparison = _cases([case(outcome=base)], [case(outcome=head)])
    assert _said(comparison.findings) == [("outcome", change, change is Change.WORSE)]
    assert comparison.passed is (change is not Change.WORSE)


def test_no_gate_lets_a_worse_verdict_pass() -> None:
    gates = Gates(Slack(percent=100), Slack(percent=100), 100, allow_missing=True, allow_driver_change=True)
    assert not _cases([case()], [case(outcome="oom")], gates).passed


@pytest.mark.parametrize(
    ("growth_bytes", "slack", "passes"),
    [
        (0, Slack(), True),
        (1, Slack(), False),
        (16 * MIB, Slack(16 * MIB), True),
        (16 * MIB + 1, Slack(16 * MIB), False),
        (GIB // 20, Slack(percent=1), True),
        (GIB // 10, Slack(percent=1), False),
        (-MIB, Slack(), True),
    ],
)
def test_peaks_may_grow_by_what_the_gate_says(growth_bytes: int, slack: Slack, passes: bool) -> None:
    assert _cases([case()], [grown(case(), growth_bytes)], Gates(slack)).passed is passes


def test_what_the_driver_saw_on_a_real_card_is_no_finding() -> None:
    head = real_case(peak_device_bytes=9 * GIB)
    assert _cases([real_case()], [head]).findings == []
    assert not _cases([case()], [case(peak_device_bytes=9 * GIB)]).passed


def test_a_peak_that_only_one_side_knows_is_undecided() -> None:
    comparison = _cases([case()], [case(peak_reserved_bytes=None)])
    assert _said(comparison.findings) == [("peak_reserved_bytes", Change.UNDECIDED, False)]


def test_peaks_of_cases_that_do_not_fit_say_nothing() -> None:
    old, new = case(outcome="oom", peak_allocated_bytes=1), case(outcome="oom", peak_allocated_bytes=2, phase="cache")
    assert _said(_cases([old], [new]).findings) == [("phase", Change.OTHER, False)]


@pytest.mark.parametrize(
    ("base", "head", "pages", "change", "fails"),
    [
        (8192, 7936, 0, Change.WORSE, True),
        (8192, 7936, 1, Change.WORSE, False),
        (8192, 7680, 1, Change.WORSE, True),
        (8192, 8448, 0, Change.BETTER, False),
        (131_072, 130_816, 0, Change.WORSE, True),
    ],
)
def test_a_boundary_that_moves(base: int, head: int, pages: int, change: Change, fails: bool) -> None:
    comparison = _boundaries(boundary(base), boundary(head), Gates(boundary_loss=Slack(pages)))
    assert _said(comparison.findings) == [("fits_at", change, fails)]


def test_a_boundary_below_the_models_own_limit_counts_less_than_a_page_too() -> None:
    old, new = boundary(4095, native_max_seq_len=4095), boundary(3840, native_max_seq_len=4095)
    assert not _boundaries(old, new).passed
    assert _boundaries(old, new, Gates(boundary_loss=Slack(1))).passed


def test_a_boundary_where_nothing_fits_any_more_is_a_verdict() -> None:
    assert _said(_boundaries(boundary(8192), boundary(None)).findings) == [("outcome", Change.WORSE, True)]


@pytest.mark.parametrize(
    ("fits_at", "fails_at", "change"),
    [
        (4096, 7936, Change.WORSE),  # it was seen to fail below where it fitted
        (4096, 12_032, Change.UNDECIDED),
        (8448, None, Change.BETTER),
    ],
)
def test_a_boundary_that_is_not_certified_is_worse_only_where_that_is_certain(
    fits_at: int, fails_at: int | None, change: Change
) -> None:
    head = boundary(fits_at, fails_at=fails_at, certified=False)
    assert [finding.change for finding in _boundaries(boundary(8192), head).findings] == [change]


def test_how_far_a_boundary_may_reach() -> None:
    assert reach(boundary(4096)) == (4096, 4096)
    assert reach(boundary(131_072)) == (131_072, 131_072)
    assert reach(boundary(3840, native_max_seq_len=4095)) == (3840, 3840)
    assert reach(boundary(None)) == (0, 0)
    assert reach(boundary(4096, fails_at=8192, certified=False)) == (4096, 7936)
    assert reach(boundary(4096, fails_at=None, certified=False)) == (4096, 131_072)
    assert reach(boundary(4096, fails_at=None, certified=False, native_max_seq_len=None)) == (4096, None)


def test_the_probes_of_a_boundary_that_moved_are_not_told_again() -> None:
    base = ResultSet([case(8192), case(8448, "oom")], [boundary(8192, case_ids=["case-8192", "case-8448"])])
    head = ResultSet([case(7936), case(8192, "oom")], [boundary(7936, case_ids=["case-7936", "case-8192"])])
    comparison = compare(base, head, Gates())
    assert _said(comparison.findings) == [("fits_at", Change.WORSE, True)]
    assert (comparison.missing, comparison.new) == ([], [])


def test_a_probe_that_changed_though_its_boundary_did_not_is_told() -> None:
    found = boundary(8192, case_ids=["case-8192"])
    comparison = compare(ResultSet([case(8192)], [found]), ResultSet([case(8192, "crash")], [found]), Gates())
    assert _said(comparison.findings) == [("outcome", Change.WORSE, True)]


@pytest.mark.parametrize(
    ("base", "head", "percent", "change"),
    [
        (FAST, SLOW, 5.0, Change.WORSE),
        (SLOW, FAST, 5.0, Change.BETTER),
        (FAST, SLOW, 25.0, None),  # significant, and not large enough
        (FAST, [s * 1.01 for s in FAST], 0.5, None),  # large enough, and not significant
        (FAST[:3], SLOW[:3], 5.0, Change.UNDECIDED),  # three against three are never significant
        (FAST[:3], FAST[:3], 5.0, None),
        (FAST, None, 5.0, Change.UNDECIDED),
        (None, None, 5.0, None),
    ],
)
def test_a_speed_counts_when_it_is_significant_and_large(
    base: list[float] | None, head: list[float] | None, percent: float, change: Change | None
) -> None:
    comparison = _cases([real_case(base)], [real_case(head)], Gates(slowdown_percent=percent))
    assert [finding.change for finding in comparison.findings] == ([] if change is None else [change])
    assert comparison.passed is (change is not Change.WORSE)


def test_samples_are_pooled_within_a_run_and_never_across_runs() -> None:
    rows = [real_case(FAST[:3], minutes=i, run_id=run) for i, run in enumerate(("old", "new", "new"))]
    (finding,) = _cases(rows, [real_case(SLOW)]).findings
    assert finding.speeds is not None
    assert (finding.speeds.base_count, finding.speeds.head_count) == (6, 5)


def test_an_estimate_that_changed_is_told_and_never_gated() -> None:
    base, head = case(estimated_decode_tokens_per_s=100.0), case(estimated_decode_tokens_per_s=50.0)
    comparison = _cases([base], [head])
    assert _said(comparison.findings) == [("estimated_decode_tokens_per_s", Change.OTHER, False)]
    assert comparison.passed


def test_missing_cases_fail_unless_they_may_be_missing() -> None:
    both = [case(4096), case(8192)]
    assert not _cases(both, both[:1]).passed
    assert _cases(both, both[:1], Gates(allow_missing=True)).passed
    assert _cases(both[:1], both).passed


def test_a_case_that_moved_to_another_card_is_as_good_as_missing() -> None:
    base, head = [case(), case(8192)], [case(), case(8192, device_name="l4")]
    assert not _cases(base, head).passed
    assert _cases(base, head, Gates(allow_missing=True)).passed


def test_what_is_no_longer_the_same_fails_though_cases_may_be_missing() -> None:
    base, head = [case(), case(8192)], [case(), case(8192, model_fingerprint="f2")]
    assert not _cases(base, head, Gates(allow_missing=True)).passed


_sizes = st.one_of(st.none(), st.integers(1, 24 * GIB))
_rows = st.builds(
    lambda length, outcome, cache, size, seconds, minutes, run: {
        **real_case(seconds, length, minutes=minutes, run_id=run, cache=cache),
        "outcome": outcome,
        "peak_allocated_bytes": size,
    },
    st.sampled_from([2048, 4096]),
    st.sampled_from(["fits", "fits", "fits", "oom", "crash", "degraded"]),
    st.sampled_from(["FP16", "Q4"]),
    _sizes,
    st.one_of(st.none(), st.lists(st.floats(0.5, 2.0), min_size=1, max_size=6)),
    st.integers(0, 5),
    st.sampled_from(["a", "b"]),
)
_ends = st.builds(
    lambda fits_at, gap, certified, lazy: boundary(
        fits_at, lazy=lazy, **({} if certified else {"certified": False, "fails_at": (fits_at or 0) + gap})
    ),
    st.one_of(st.none(), st.integers(1, 511).map(lambda page: page * 256)),
    st.integers(1, 9).map(lambda page: page * 256),
    st.booleans(),
    st.booleans(),
)
_sets = st.builds(ResultSet, st.lists(_rows, max_size=6), st.lists(_ends, max_size=2))
_MIRROR = {Change.WORSE: Change.BETTER, Change.BETTER: Change.WORSE}


@given(_sets)
def test_nothing_is_worse_than_itself(rows: ResultSet) -> None:
    comparison = compare(rows, rows, Gates())
    assert comparison.passed
    assert (comparison.findings, comparison.missing, comparison.new) == ([], [], [])


@given(_sets, _sets)
def test_from_the_other_side_everything_is_the_other_way_round(base: ResultSet, head: ResultSet) -> None:
    there, back = compare(base, head, Gates()), compare(head, base, Gates())
    assert sorted((f.column, f.change, str(f.base), str(f.head)) for f in there.findings) == sorted(
        (f.column, _MIRROR.get(f.change, f.change), str(f.head), str(f.base)) for f in back.findings
    )
    assert (len(there.missing), len(there.new)) == (len(back.new), len(back.missing))


@given(_sets, _sets, st.integers(0, GIB), st.integers(0, 9))
def test_more_slack_never_fails_what_less_lets_pass(base: ResultSet, head: ResultSet, size: int, pages: int) -> None:
    if compare(base, head, Gates()).passed:
        assert compare(base, head, Gates(Slack(size), Slack(pages))).passed
