"""Which rows are evidence, and what each policy makes of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.analysis.evidence import evidence, headroom_at, reach, speed_at, untried
from bench.analysis.recommend import ESTIMATE_ERROR, MEASURED_ERROR, Policy, Recommendation, recommend
from tests.analysis.rows_as_read import GIB, MIB, boundaries_of, boundary, cases_of, fits, oom

NO_CASES, NO_BOUNDARIES = cases_of(), boundaries_of()


def advise(
    *cases: dict[str, Any],
    boundaries: tuple[dict[str, Any], ...] = (),
    contexts: tuple[int, ...] = (4096,),
    headroom_bytes: int = 0,
) -> list[Recommendation]:
    stored, found = cases_of(*cases), boundaries_of(*boundaries)
    return recommend(evidence(stored, found), pd.concat([stored, found]), contexts, headroom_bytes)


def by_policy(answers: list[Recommendation]) -> dict[Policy, Recommendation]:
    assert len({answer.policy for answer in answers}) == len(answers)
    return {answer.policy: answer for answer in answers}


def setting(answer: Recommendation) -> tuple[object, object, int | None]:
    own = answer.as_row()
    return own["bpw"], own["cache"], answer.max_seq_len


ROWS = (
    fits(4096, bpw=6.0, cache="Q4"),
    fits(4096, bpw=6.0, cache="Q8"),
    fits(8192, bpw=4.0, cache="FP16"),
    fits(16384, bpw=2.5, cache="Q4"),
)


def test_each_policy_picks_its_own() -> None:
    found = by_policy(advise(*ROWS))
    assert setting(found[Policy.QUALITY]) == (6.0, "Q8", 4096)
    assert setting(found[Policy.LONGEST]) == (2.5, "Q4", 16384)
    assert setting(found[Policy.FASTEST]) == (4.0, "FP16", 4096)


def test_quality_is_bits_first_and_then_the_cache() -> None:
    rows = (fits(4096, bpw=6.0, cache="Q4"), fits(4096, bpw=5.0, cache="FP16"))
    assert setting(by_policy(advise(*rows))[Policy.QUALITY]) == (6.0, "Q4", 4096)


def test_a_longer_context_takes_what_still_gives_it() -> None:
    found = advise(*ROWS, contexts=(4096, 8192, 16384))
    picked = [setting(answer) for answer in found if answer.policy is Policy.QUALITY]
    assert picked == [(6.0, "Q8", 4096), (4.0, "FP16", 8192), (2.5, "Q4", 16384)]


def test_what_nothing_reaches_has_no_answer_but_a_reason() -> None:
    found = by_policy(advise(*ROWS, contexts=(32768,)))
    assert found[Policy.QUALITY].max_seq_len is None
    assert found[Policy.QUALITY].reason is not None
    assert "the longest is 16,384" in found[Policy.QUALITY].reason
    assert found[Policy.LONGEST].max_seq_len == 16384


def test_where_nothing_fits_it_says_so() -> None:
    for answer in advise(oom(4096), boundaries=(boundary(None, cache="Q4"),)):
        assert (answer.max_seq_len, answer.reason) == (None, "no row shows that anything fits")


def test_wanted_contexts_end_at_the_models_own_limit() -> None:
    rows = [fits(2048, native_max_seq_len=2048)]
    found = advise(*rows, contexts=(1024, 4096, 32768))
    assert [answer.wanted_context for answer in found if answer.policy is Policy.QUALITY] == [1024, 2048]
    assert all(answer.max_seq_len for answer in found)


def test_demanded_headroom_shortens_by_the_cache_that_is_not_made() -> None:
    # 4 GiB of weights and 19 GiB of cache leave 1 GiB of 24; 2 GiB less cache are 2,048 tokens less.
    row = fits(19 * 1024)
    (longest,) = [a for a in advise(row, headroom_bytes=3 * GIB) if a.policy is Policy.LONGEST]
    assert longest.max_seq_len == 17 * 1024
    assert (longest.headroom_bytes, longest.headroom_basis) == (3 * GIB, "estimated")
    assert longest.row_max_seq_len == 19 * 1024


def test_shortened_lengths_are_whole_pages_and_leave_what_is_demanded() -> None:
    rows = evidence(cases_of(fits(19 * 1024)), NO_BOUNDARIES)
    demanded = GIB + 100 * MIB
    length = reach(rows, demanded)
    assert length.tolist() == [19 * 1024 - 256]
    assert headroom_at(rows, length).iloc[0] >= demanded


@pytest.mark.parametrize("hidden", ["cache_bytes", "peak_device_bytes"])
def test_a_row_that_does_not_tell_its_memory_shows_no_headroom(hidden: str) -> None:
    row = fits(20 * 1024, **{hidden: None})
    for answer in advise(row, headroom_bytes=GIB):
        assert answer.max_seq_len is None
        assert answer.reason in (
            "nothing that was run leaves that headroom",
            "the rows do not tell what was left of the card",
        )
    enough = by_policy(advise(row, headroom_bytes=0))
    assert enough[Policy.QUALITY].max_seq_len == 4096
    assert enough[Policy.LONGEST].max_seq_len == 20 * 1024


def test_the_nearest_row_tells_most_about_a_length() -> None:
    rows = (fits(4096, case_id="near"), fits(8192, case_id="far"))
    quality = by_policy(advise(*rows))[Policy.QUALITY]
    assert (quality.case_id, quality.headroom_basis, quality.tokens_per_s_basis) == ("near", "simulated", "estimated")


def test_equal_settings_are_told_apart_by_headroom_and_then_load_comes_first() -> None:
    roomy = fits(4096, lazy=True, peak_device_bytes=5 * GIB)
    tight = fits(4096, lazy=False, peak_device_bytes=6 * GIB)
    assert by_policy(advise(roomy, tight))[Policy.QUALITY].as_row()["lazy"] is True
    equal = {**tight, "peak_device_bytes": 5 * GIB}
    for rows in ((roomy, equal), (equal, roomy)):
        assert by_policy(advise(*rows))[Policy.QUALITY].as_row()["lazy"] is False


def test_settings_that_are_as_good_are_told_without_drafts() -> None:
    plain = fits(4096, scenario="generator")
    drafts = fits(4096, scenario="generator", draft="ngram", num_draft_tokens=4)
    for rows in ((plain, drafts), (drafts, plain)):
        assert {answer.as_row()["draft"] for answer in advise(*rows)} == {None}


def test_a_boundary_alone_is_evidence_when_it_is_certified() -> None:
    found = boundary(8192, peak_device_bytes=23 * GIB, headroom_bytes=GIB)
    quality = by_policy(advise(boundaries=(found,)))[Policy.QUALITY]
    assert (quality.max_seq_len, quality.row_max_seq_len, quality.certified) == (4096, 8192, True)
    assert (quality.boundary_id, quality.case_id, quality.fails_at) == ("b0", None, 8448)
    assert quality.basis.startswith("simulated, certified at 8,192")
    for doubtful in ({"certified": False}, {"contradictory": True}):
        assert not any(a.max_seq_len for a in advise(boundaries=({**found, **doubtful},)))


def test_a_prediction_is_never_evidence() -> None:
    predicted = boundary(None, predicted_fits_at=65536, certified=False, outcome="timeout", fails_at=None)
    assert not any(a.max_seq_len for a in advise(oom(4096, predicted_peak_bytes=GIB), boundaries=(predicted,)))


def test_the_case_at_a_boundary_and_the_boundary_are_one_row() -> None:
    shown = evidence(cases_of(fits(8192), oom(8448)), boundaries_of(boundary(8192)))
    assert shown[["case_id", "boundary_id", "certified", "fails_at"]].to_numpy().tolist() == [["c0", "b0", True, 8448]]


def test_a_length_at_or_above_one_that_failed_is_contradicted() -> None:
    shown = evidence(cases_of(fits(4096), oom(8192), fits(16384), fits(16384, cache="Q4")), NO_BOUNDARIES)
    assert shown[["cache", "max_seq_len"]].to_numpy().tolist() == [["FP16", 4096], ["Q4", 16384]]
    assert evidence(cases_of(fits(16384)), boundaries_of(boundary(8192)))["max_seq_len"].tolist() == [8192]


def test_a_failure_in_a_gap_of_a_split_says_nothing_of_longer_lengths() -> None:
    for split, seen in (("gpu_split(20,24)", [8192, 16384]), ("auto", [8192])):
        rows = (fits(8192, split=split), oom(12288, split=split), fits(16384, split=split), oom(16640, split=split))
        found = boundaries_of(boundary(16384, split=split, fails_at=16640))
        assert evidence(cases_of(*rows), found)["max_seq_len"].tolist() == seen
        open_to = untried(cases_of(*rows[:3]), NO_BOUNDARIES)["untried_up_to"].tolist()
        assert open_to == ([131072] if split != "auto" else [])


def test_of_several_runs_of_one_setting_the_last_counts() -> None:
    early, late = (datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2))
    assert evidence(cases_of(oom(4096, started_at=late), fits(4096, started_at=early)), NO_BOUNDARIES).empty
    assert len(evidence(cases_of(fits(4096, started_at=late), oom(4096, started_at=early)), NO_BOUNDARIES)) == 1


def test_simulated_and_real_cards_are_never_pooled() -> None:
    real = fits(4096, bpw=6.0, device_kind="cuda", device_uuid="GPU-1", decode_tokens_per_s_full=50.0)
    found = advise(real, fits(4096, bpw=2.5))
    picked = {(a.identity["device_kind"], a.as_row()["bpw"], a.basis.split(",")[0]) for a in found}
    assert picked == {("cuda", 6.0, "measured"), ("simulated", 2.5, "simulated")}


@pytest.mark.parametrize(
    "difference",
    [
        {"device_name": "other"},
        {"vram_limit_bytes": 8 * GIB},
        {"model": "other"},
        {"model_fingerprint": "f2"},
        {"batch_size": 2},
    ],
)
def test_each_card_model_and_batch_is_a_question_of_its_own(difference: dict[str, Any]) -> None:
    assert len(advise(fits(1024), fits(1024, **difference), contexts=(1024,))) == 6


def test_measured_speeds_come_before_estimates_and_are_interpolated() -> None:
    real = {"device_kind": "cuda", "device_uuid": "GPU-1"}
    timed = fits(8192, decode_tokens_per_s=100.0, decode_tokens_per_s_full=50.0, **real)
    fastest = by_policy(advise(timed, fits(8192, bpw=2.0, **real)))[Policy.FASTEST]
    assert (fastest.as_row()["bpw"], fastest.tokens_per_s_basis) == (4.0, "interpolated")
    assert fastest.tokens_per_s == pytest.approx(1 / 0.015)
    full = by_policy(advise(timed, contexts=(8192,)))[Policy.FASTEST]
    assert (full.tokens_per_s, full.tokens_per_s_basis) == (50.0, "measured")


def test_an_estimate_is_scaled_by_the_bytes_that_decoding_moves() -> None:
    rows = evidence(cases_of(fits(8192), fits(8192, cache="Q4")), NO_BOUNDARIES)
    speed, basis = speed_at(rows, pd.Series(4096.0, index=rows.index))
    own = rows["estimated_decode_tokens_per_s"]
    # FP16: 4 + 8 GiB become 4 + 4. Q4 moves 4.5625 bytes an element: 4 + 18.25 GiB become 4 + 9.125.
    assert speed.tolist() == pytest.approx([own.iloc[0] * 12 / 8, own.iloc[1] * 22.25 / 13.125])
    assert basis.tolist() == ["estimated", "estimated"]


@settings(max_examples=12)
@given(
    others=st.lists(
        st.tuples(
            st.floats(1 / (1 + ESTIMATE_ERROR), 1 + ESTIMATE_ERROR, exclude_min=True, exclude_max=True),
            st.sampled_from(["flash", "xformers", "matmul", "sdpa"]),
            st.booleans(),
            st.integers(0, 2 * GIB),
        ),
        max_size=6,
    )
)
def test_an_estimate_never_decides_within_its_error(others: list[tuple[float, str, bool, int]]) -> None:
    plain = fits(4096, estimated_decode_tokens_per_s=100.0, peak_device_bytes=9 * GIB)
    rows = [plain]
    for i, (ratio, attention, lazy, more) in enumerate(others):
        row = {**plain, "attention": attention, "lazy": lazy, "max_input_len": i}
        rows.append(row | {"peak_device_bytes": 9 * GIB + more, "estimated_decode_tokens_per_s": 100 * ratio})
    fastest = max(row["estimated_decode_tokens_per_s"] for row in rows)
    picked = by_policy(advise(*rows))[Policy.FASTEST]
    if fastest <= 100 * (1 + ESTIMATE_ERROR):
        assert (picked.attention, picked.as_row()["lazy"]) == ("flash", False)
        assert picked.headroom_bytes == 15 * GIB
    assert picked.tokens_per_s is not None
    assert picked.tokens_per_s * (1 + ESTIMATE_ERROR) >= fastest


def test_estimates_that_differ_by_more_do_decide() -> None:
    slow = fits(4096, bpw=2.5, estimated_decode_tokens_per_s=100.0)
    quick = fits(4096, bpw=4.0, lazy=True, attention="matmul", estimated_decode_tokens_per_s=130.0)
    assert by_policy(advise(slow, quick))[Policy.FASTEST].as_row()["bpw"] == 4.0
    assert (
        by_policy(advise(slow, {**quick, "estimated_decode_tokens_per_s": 128.0}))[Policy.FASTEST].as_row()["bpw"]
        == 2.5
    )


def test_measured_speeds_decide_beyond_their_noise() -> None:
    real = {"device_kind": "cuda", "device_uuid": "GPU-1", "decode_tokens_per_s": None}
    slow = fits(4096, decode_tokens_per_s_full=100.0, **real)
    for factor, lazy in ((1 + MEASURED_ERROR - 0.001, False), (1 + MEASURED_ERROR + 0.001, True)):
        quick = fits(4096, lazy=True, decode_tokens_per_s_full=100.0 * factor, **real)
        assert by_policy(advise(slow, quick))[Policy.FASTEST].as_row()["lazy"] is lazy


def test_weights_that_were_not_all_alive_at_the_peak_still_count_as_a_whole() -> None:
    """Loading lazily with matmul attention, the peak may be before the last layers are there."""
    whole = fits(131072, attention="flash", cache="Q4")
    part = {**whole, "attention": "matmul", "lazy": True, "weights_bytes": whole["weights_bytes"] - 11 * MIB}
    for row in (whole, part):
        row["estimated_decode_tokens_per_s"] = 50.0
    rows = evidence(cases_of(whole, part), NO_BOUNDARIES)
    speed, _ = speed_at(rows, pd.Series(8192.0, index=rows.index))
    assert speed.iloc[0] == speed.iloc[1]
    picked = by_policy(advise(whole, part, contexts=(8192,)))[Policy.FASTEST]
    assert (picked.attention, picked.as_row()["lazy"]) == ("flash", False)


def test_what_a_row_says_that_decoding_moves_is_what_counts() -> None:
    row = fits(8192, decode_weights_bytes=2 * GIB, decode_cache_bytes=6 * GIB, estimated_decode_tokens_per_s=10.0)
    rows = evidence(cases_of(row), NO_BOUNDARIES)
    speed, _ = speed_at(rows, pd.Series(4096.0, index=rows.index))
    assert speed.tolist() == pytest.approx([10 * 8 / 5])


def test_sdpa_without_its_causal_mask_is_the_last_choice() -> None:
    rows = [fits(4096, attention=name) for name in ("sdpa", "matmul", "xformers", "flash")]
    for count, expected in ((4, "flash"), (3, "xformers"), (2, "matmul"), (1, "sdpa")):
        for policy, answer in by_policy(advise(*rows[:count])).items():
            assert answer.attention == expected, policy


def test_without_any_speed_fastest_has_a_reason() -> None:
    found = by_policy(advise(fits(4096, estimated_decode_tokens_per_s=None)))
    assert found[Policy.FASTEST].reason == "the rows tell no tokens/s"
    assert found[Policy.QUALITY].tokens_per_s is None


def test_a_real_card_under_an_allocator_s_limit_has_the_headroom_that_results_define() -> None:
    row = fits(
        4096,
        device_kind="cuda",
        vram_limit_bytes=12 * GIB,
        vram_limit_by="allocator",
        context_bytes=GIB,
        peak_reserved_bytes=9 * GIB,
        peak_device_bytes=20 * GIB,
    )
    assert evidence(cases_of(row), NO_BOUNDARIES)["headroom_bytes"].tolist() == [2 * GIB]


def test_assumptions_of_the_row_are_in_the_basis() -> None:
    assert by_policy(advise(fits(4096, notes=["context_bytes assumed"])))[Policy.QUALITY].basis == (
        "simulated, fits at 4,096, tokens/s estimated, context_bytes assumed"
    )


def test_no_rows_make_no_answers() -> None:
    assert evidence(NO_CASES, NO_BOUNDARIES).empty
    assert recommend(evidence(NO_CASES, NO_BOUNDARIES), pd.concat([NO_CASES, NO_BOUNDARIES])) == []


def test_a_forward_pass_is_no_answer_for_who_serves_jobs() -> None:
    rows = (fits(4096, bpw=4.0), fits(8192, bpw=4.0, scenario="generator"), oom(12288, bpw=4.0, scenario="generator"))
    longest = {a.scenario or "forward": a.max_seq_len for a in advise(*rows) if a.policy is Policy.LONGEST}
    assert longest == {"forward": 4096, "generator": 8192}


def served(max_seq_len: int, **more: Any) -> dict[str, Any]:
    return fits(max_seq_len, **{"scenario": "generator", "cache_size": 16384, "batch_size": 4, **more})


def test_a_shorter_job_leaves_no_more_of_a_cache_that_has_a_size_of_its_own() -> None:
    rows = evidence(cases_of(served(16384)), NO_BOUNDARIES)
    shorter = pd.Series([8192.0], index=rows.index)
    assert headroom_at(rows, shorter).tolist() == rows["headroom_bytes"].tolist()
    too_much = int(rows["headroom_bytes"].iloc[0]) + 1
    assert reach(rows, too_much).tolist() == [0.0]


def test_jobs_that_share_a_cache_decode_with_what_it_has_for_each() -> None:
    speeds = {"decode_tokens_per_s": None, "decode_tokens_per_s_full": None, "estimated_decode_tokens_per_s": 50.0}
    rows = evidence(cases_of(served(16384, **speeds)), NO_BOUNDARIES)
    at = {length: speed_at(rows, pd.Series([float(length)], index=rows.index))[0].iloc[0] for length in (8192, 2048)}
    assert at[8192] == 50.0
    assert at[2048] > 50.0
