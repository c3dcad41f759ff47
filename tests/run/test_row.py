"""The row of a case from what its child told: the last word counts, and what nobody told is null."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import pytest

from bench.core.case import Case, ModelSpec
from bench.core.column import declared
from bench.core.columns import CaseRow
from bench.core.device import DeviceSpec
from bench.core.messages import (
    CardFacts,
    Entered,
    Failure,
    Memory,
    Message,
    PhaseDone,
    Result,
    Started,
    Timings,
    Versions,
)
from bench.core.outcome import Outcome, Phase
from bench.forecast.forecaster import Forecast
from bench.launch.supervise import Ending
from bench.nvml import Process, Reading
from bench.run.row import Measurement, make_row
from bench.run.telemetry import Telemetry
from bench.run.verdict import Verdict

GIB = 1 << 30
CARD = DeviceSpec("rtx_4090", "cuda", "NVIDIA GeForce RTX 4090", 24 * GIB, uuid="GPU-1", driver_version="570.1")
CASE = Case(
    model=ModelSpec("tiny", {"max_position_embeddings": 4096}, "f1"),
    device=CARD,
    bpw=4.0,
    head_bits=6,
    cache="Q4",
    lazy=False,
    attention="auto",
    max_seq_len=1024,
    batch_size=1,
    max_input_len=2048,
)
VERSIONS = {"torch_version": "2.13.0", "exllamav2_version": "0.3.2", "harness_version": "1.0"}


def _memory(peak_bytes: int) -> Memory:
    return Memory(1, 2, 3, peak_bytes, peak_bytes, peak_bytes, peak_bytes)


def _reading(used_bytes: int, energy_mj: int) -> Reading:
    return Reading(24 * GIB, used_bytes, 0, [Process(1, None)], energy_mj, 2000, 1000, 50, 0)


FACTS = CardFacts(context_bytes=300, cuda_version="12.8", device_total_bytes=23 * GIB, held_bytes=5 * GIB)
MESSAGES: list[Message] = [
    Versions("2.13.0+cu128", "0.3.2"),
    Entered(Phase.LOAD),
    Started("flash", ["before"], FACTS),
    PhaseDone(Phase.LOAD, 1.5, _memory(4 * GIB), Timings(load_s=1.25)),
    Entered(Phase.PREFILL),
    PhaseDone(Phase.PREFILL, 2.0, _memory(5 * GIB), Timings(prefill_s=[0.5, 0.25, 1.0], prefill_tokens=1000)),
    Entered(Phase.DECODE),
    PhaseDone(Phase.DECODE, 3.0, _memory(6 * GIB), Timings(decode_full_s=[2.0], decode_s=[1.0], decode_tokens=32)),
    Result({"weights_bytes": 7, "logits_bytes": None}, ["after"], CardFacts(properties={"workspaces_bytes": [1]})),
]
FITS = Verdict(Outcome.FITS, Phase.DONE, None)


def _row(messages: list[Message], verdict: Verdict = FITS, **changes: Any) -> dict[str, Any]:
    telemetry = [Telemetry([_reading(GIB, 1000), _reading(8 * GIB, 3500)])]
    measured = {
        "case": CASE,
        "case_id": "c1",
        "started_at": datetime(2026, 1, 2, tzinfo=UTC),
        "ending": Ending(messages, exit_code=0, wall_s=9.0),
        "verdict": verdict,
        "telemetry": telemetry,
        "environment": {"LANG": "C"},
    }
    return make_row(
        "run", Measurement(**{**measured, **changes}), VERSIONS, Forecast(CASE, CASE, None, None, "none", 0, None)
    )


def test_the_telemetry_keeps_every_reading_of_before_and_after() -> None:
    told = json.loads(str(_row(MESSAGES)["telemetry"]))
    for when in ("before", "after"):
        assert set(told[when]) == {field.name for field in fields(Reading)}
    assert (told["before"]["sm_clock_mhz"], told["before"]["memory_clock_mhz"]) == (2000, 1000)


def test_a_row_has_declared_columns_and_no_others() -> None:
    names = {column.name for column in declared(CaseRow)}
    assert set(_row(MESSAGES)) <= names
    assert set(_row([])) <= names


def test_the_last_word_on_a_card_counts_and_no_word_undoes_none() -> None:
    row = _row(MESSAGES)
    assert (row["torch_version"], row["exllamav2_version"]) == ("2.13.0+cu128", "0.3.2")
    assert (row["attention"], row["notes"]) == ("flash", ["after"])
    assert (row["context_bytes"], row["cuda_version"], row["device_total_bytes"]) == (300, "12.8", 23 * GIB)
    assert json.loads(row["telemetry"])["properties"] == {"workspaces_bytes": [1]}
    assert (row["weights_bytes"], row["logits_bytes"]) == (7, None)


def test_speeds_are_medians_and_samples_are_kept() -> None:
    row = _row(MESSAGES)
    assert row["load_s"] == 1.25
    assert (row["prefill_tokens_per_s"], row["prefill_samples_s"]) == (2000.0, [0.5, 0.25, 1.0])
    assert (row["decode_tokens_per_s"], row["decode_tokens_per_s_full"]) == (32.0, 16.0)
    assert row["energy_j"] == 2.5


def test_the_phases_are_kept_with_the_timings_that_they_have() -> None:
    phases = json.loads(_row(MESSAGES)["phases"])
    assert [list(phase) for phase in phases] == [
        ["phase", "seconds", "memory", "load_s"],
        ["phase", "seconds", "memory", "prefill_s", "prefill_tokens"],
        ["phase", "seconds", "memory", "decode_full_s", "decode_s", "decode_tokens"],
    ]
    assert phases[0]["memory"] == vars(_memory(4 * GIB))


def test_the_peak_of_a_card_is_the_highest_that_anybody_saw() -> None:
    assert _row(MESSAGES)["peak_device_bytes"] == 8 * GIB
    assert _row(MESSAGES, telemetry=[])["peak_device_bytes"] == 6 * GIB


@pytest.mark.parametrize(("facts", "peak_bytes"), [(FACTS, 3 * GIB), (CardFacts(), None)])
def test_what_others_hold_of_a_card_is_no_part_of_its_peak(facts: CardFacts, peak_bytes: int | None) -> None:
    case = Case(**{**vars(CASE), "vram_limit_bytes": 10 * GIB, "vram_limit_by": "process"})
    assert _row([Started("flash", [], facts)], case=case)["peak_device_bytes"] == peak_bytes


def test_a_failure_tells_what_the_card_held_last() -> None:
    failed: list[Message] = [*MESSAGES[:5], Failure("OutOfMemoryError", "CUDA out of memory", _memory(9 * GIB))]
    row = _row(failed, Verdict(Outcome.OOM, Phase.PREFILL, "CUDA out of memory"))
    assert (row["outcome"], row["phase"], row["peak_allocated_bytes"]) == ("oom", "prefill", 9 * GIB)
    assert (row["prefill_tokens_per_s"], row["prefill_samples_s"], row["notes"]) == (None, None, ["before"])
    silent: list[Message] = [*MESSAGES[:5], Failure("RuntimeError", "a card in this state answers nothing")]
    assert _row(silent, Verdict(Outcome.ERROR, Phase.PREFILL, ""))["peak_allocated_bytes"] == 4 * GIB


def test_of_a_child_that_told_nothing_nothing_is_known() -> None:
    row = _row([], Verdict(Outcome.CRASH, Phase.LOAD, "died"), telemetry=[])
    unknown = ("device_total_bytes", "cuda_version", "attention", "peak_allocated_bytes", "peak_device_bytes", "notes")
    assert [row[name] for name in (*unknown, "context_bytes", "load_s", "energy_j", "telemetry")] == [None] * 10
    assert (row["torch_version"], json.loads(row["phases"])) == ("2.13.0", [])


def test_a_simulated_card_is_as_large_as_it_was_told_to_be_and_has_no_times() -> None:
    device = DeviceSpec("t4", "simulated", "T4", 16 * GIB)
    told: list[Message] = [
        Started("flash", [], CardFacts(context_bytes=5)),
        PhaseDone(Phase.LOAD, 1.0, _memory(GIB), Timings(load_s=1.0)),
        PhaseDone(Phase.PREFILL, 1.0, _memory(GIB), Timings(prefill_s=[], prefill_tokens=1000)),
    ]
    row = _row(told, case=Case(**{**vars(CASE), "device": device}), telemetry=[])
    assert (row["device_total_bytes"], row["load_s"], row["prefill_tokens_per_s"]) == (16 * GIB, None, None)
    assert "load_s" in json.loads(row["phases"])[0]
    assert json.loads(row["phases"])[1]["prefill_s"] == []
