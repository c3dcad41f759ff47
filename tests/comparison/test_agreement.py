"""Measured rows beside simulated ones: what is held together, what is equal, and how it is told."""

from __future__ import annotations

from typing import Any

from bench.comparison.agreement import compare_kinds, compare_limits
from bench.report.tables.agreement import as_markdown
from bench.store.schema import Kind
from tests.comparison.rows_to_compare import MIB, boundary, case, real_case

SIMULATED = {"device_name": "nvidia_l4"}


def test_equal_peaks_are_counted_and_others_measured() -> None:
    real = [real_case(), real_case(max_seq_len=8192)]
    made_up = [case(**SIMULATED), case(8192, **SIMULATED, peak_reserved_bytes=real[1]["peak_reserved_bytes"] - 2 * MIB)]
    compared = compare_kinds(real, made_up, Kind.CASES)
    assert compared.same_verdicts == 2
    tallies = {tally.figure: tally for tally in compared.tallies()}
    assert (tallies["peak_allocated_bytes"].equal, tallies["peak_allocated_bytes"].known) == (2, 2)
    assert (tallies["peak_reserved_bytes"].equal, tallies["peak_reserved_bytes"].largest) == (1, -2 * MIB)
    assert tallies["peak_requested_bytes"].known == 0  # neither says
    assert not compared.alone


def test_another_verdict_or_phase_is_no_agreement() -> None:
    oom = {"outcome": "oom", "phase": "load"}
    real = [real_case(), real_case(max_seq_len=8192, **oom)]
    made_up = [case(**SIMULATED, **oom), case(8192, **SIMULATED, **{**oom, "phase": "prefill"})]
    assert compare_kinds(real, made_up, Kind.CASES).same_verdicts == 0


def test_what_only_one_of_them_knows_is_unknown_and_not_different() -> None:
    (agreement,) = compare_kinds([real_case(peak_device_bytes=None)], [case(**SIMULATED)], Kind.CASES).agreements
    assert agreement.differences["peak_device_bytes"] is None
    assert agreement.differences["peak_allocated_bytes"] == 0


def test_another_card_other_weights_or_another_question_is_no_answer() -> None:
    others: list[dict[str, Any]] = [
        case(),  # of another card
        case(**SIMULATED, model_fingerprint="f2"),
        case(**SIMULATED, cache="Q4"),
        case(**SIMULATED, vram_limit_bytes=8 << 30),
        real_case(),  # never a measured one
    ]
    compared = compare_kinds([real_case()], others, Kind.CASES)
    assert not compared.agreements
    assert len(compared.alone) == 1


def test_auto_stands_for_what_ran() -> None:
    real = [real_case(attention="sdpa", attention_requested="auto")]
    flash, sdpa = case(**SIMULATED), case(**SIMULATED, attention="sdpa", attention_requested="sdpa")
    assert not compare_kinds(real, [flash], Kind.CASES).agreements
    assert compare_kinds(real, [flash, sdpa], Kind.CASES).agreements[0].other is sdpa


def test_simulated_rows_among_the_measured_are_left_out() -> None:
    assert not compare_kinds([case(**SIMULATED)], [case(**SIMULATED)], Kind.CASES).agreements


def test_the_newest_row_counts() -> None:
    real = [real_case(minutes=1), real_case(minutes=0, peak_allocated_bytes=1)]
    (agreement,) = compare_kinds(real, [case(**SIMULATED)], Kind.CASES).agreements
    assert agreement.differences["peak_allocated_bytes"] == 0


def test_boundaries_agree_in_tokens() -> None:
    real = [boundary(device_name="nvidia_l4", device_kind="cuda")]
    compared = compare_kinds(real, [boundary(7936, **SIMULATED)], Kind.BOUNDARIES)
    assert compared.same_verdicts == 1
    assert compared.agreements[0].differences == {"fits_at": -256, "fails_at": -256}
    assert "-256 tokens" in as_markdown([compared], [], [])


def test_the_document_says_which_is_which() -> None:
    made_up = [case(**SIMULATED, peak_allocated_bytes=real_case()["peak_allocated_bytes"] + 512)]
    compared = compare_kinds([real_case(), real_case(max_seq_len=1024)], made_up, Kind.CASES)
    text = as_markdown([compared], [], ["nvidia_l4"])
    assert "1 of 2 measured rows have a simulated one" in text
    assert "| peak allocated | 0 | 1 | +512 B |" in text
    assert "peak allocated (measured), B | simulated less measured" in text
    assert "Measured, without a simulated row beside it:" in text
    assert "- tiny 4 bpw FP16 load flash 1,024 on nvidia_l4" in text


def test_no_two_rows_have_one_title() -> None:
    varied: list[dict[str, Any]] = [{}, {"batch_size": 2}, {"head_bits": 8}, {"max_input_len": 512}]
    measured = [real_case(**one) for one in varied]
    text = as_markdown([compare_kinds(measured, [], Kind.CASES)], [], [])
    assert len({line for line in text.splitlines() if line.startswith("- tiny")}) == len(varied)


def limited(by: str, **changed: Any) -> dict[str, Any]:
    return real_case(vram_limit_bytes=8 << 30, vram_limit_by=by, **changed)


def test_a_card_kept_small_in_two_ways_is_one_question() -> None:
    rows = [
        limited("process", outcome="oom", phase="prefill", peak_reserved_bytes=6 * MIB),
        limited("allocator", peak_reserved_bytes=8 * MIB),
        limited("process", max_seq_len=8192),
        real_case(),  # of the whole card
    ]
    compared = compare_limits(rows, Kind.CASES)
    (agreement,) = compared.agreements
    assert (agreement.measured["vram_limit_by"], agreement.other["vram_limit_by"]) == ("process", "allocator")
    assert not agreement.same_verdict
    assert agreement.differences["peak_reserved_bytes"] == 2 * MIB
    assert [row["max_seq_len"] for row in compared.alone] == [8192]
    text = as_markdown([], [compared], [])
    assert "| process | allocator |" in text
    assert "| oom in prefill | fits |" in text


def test_the_two_ways_are_two_questions_to_a_simulated_card() -> None:
    real = [limited("process"), limited("allocator", peak_allocated_bytes=1)]
    made_up = [case(**SIMULATED, vram_limit_bytes=8 << 30, vram_limit_by=by) for by in ("process", "allocator")]
    compared = compare_kinds(real, made_up, Kind.CASES)
    assert [each.other["vram_limit_by"] for each in compared.agreements] == ["process", "allocator"]
