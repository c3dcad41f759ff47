"""What the rows of a real card teach the next prediction, and which of them do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench.allocator.limits import MachineLimits, limits_of
from bench.core.case import Case, ModelSpec
from bench.core.columns import DOCUMENTS, CaseRow
from bench.core.device import DeviceSpec
from bench.forecast.calibrate import ASSUMED_CONTEXT_BYTES, Calibration

MIB, GIB = 1 << 20, 1 << 30
LISTED, SEEN = 24 * GIB, 24 * GIB - 300 * MIB  # a card as the driver lists it, and as CUDA sees it
VERSIONS = {"harness_version": "1.0", "torch_version": "2.13.0", "exllamav2_version": "0.3.2"}
CARD = DeviceSpec(
    name="some_gpu",
    kind="cuda",
    full_name="NVIDIA Some GPU",
    total_memory_bytes=LISTED,
    compute_capability="8.9",
    index=0,
    uuid="GPU-1",
    driver_version="580.1",
)
CASE = Case(
    model=ModelSpec("mine", {"architectures": ["LlamaForCausalLM"]}, "f1", "/models/mine", bpw=4.0),
    device=CARD,
    bpw=4.0,
    head_bits=None,
    cache="Q4",
    lazy=False,
    attention="auto",
    max_seq_len=4096,
    batch_size=1,
    max_input_len=2048,
)


def row(case: Case = CASE, context: int = 500 * MIB, missed: int = 0, **changed: Any) -> dict[str, Any]:
    """A case that fitted: 10 GiB in use, 1 GiB more kept; `context` is what is held besides."""
    return {
        **dict.fromkeys(CaseRow.__annotations__),
        "device_kind": case.device.kind,
        "device_uuid": case.device.uuid,
        "driver_version": case.device.driver_version,
        "device_total_bytes": SEEN,
        "vram_limit_bytes": case.vram_limit_bytes,
        "harness_version": "1.0",
        "torch_version": "2.13.0+cu130",
        "engine": case.engine,
        "engine_version": "0.3.2",
        "model_fingerprint": case.model.fingerprint,
        "attention_requested": case.attention,
        "lazy": case.lazy,
        "cache": case.cache,
        "max_input_len": case.max_input_len,
        "batch_size": case.batch_size,
        "bpw": case.bpw,
        "head_bits": case.head_bits,
        "outcome": "fits",
        "peak_allocated_bytes": 10 * GIB,
        "predicted_peak_bytes": 10 * GIB - missed,
        "peak_reserved_bytes": 11 * GIB,
        "peak_device_bytes": 11 * GIB + context,
        "context_bytes": context,
        **changed,
    }


def for_torch(*rows: dict[str, Any], case: Case = CASE, versions: dict[str, Any] = VERSIONS) -> int:
    """What PyTorch may take of the card of `case`, after these rows."""
    return Calibration(versions, rows).limits(case).torch_bytes


UNTAUGHT = for_torch()


# What is assumed until something was measured


def test_a_simulated_card_is_what_the_catalogue_says_whatever_was_measured() -> None:
    simulated = DeviceSpec("rtx_4090", "simulated", "NVIDIA GeForce RTX 4090", LISTED, "8.9", 128, None, 400 * MIB)
    case = replace(CASE, device=simulated, vram_limit_bytes=8 * GIB)
    taught = Calibration(VERSIONS, [row(), row(case), row(case, device_uuid="GPU-1")])
    assert taught.limits(case) == limits_of(simulated, 8 * GIB)
    assert for_torch(row(case, device_uuid="GPU-1")) == UNTAUGHT


def test_a_card_that_no_catalogue_knows_gets_an_assumed_context() -> None:
    assert UNTAUGHT == LISTED - ASSUMED_CONTEXT_BYTES


def test_a_card_of_the_catalogue_gets_its_figures() -> None:
    listed = replace(CARD, full_name="NVIDIA GeForce RTX 4090", total_memory_bytes=25_757_220_864)
    limits = Calibration(VERSIONS).limits(replace(CASE, device=listed))
    assert (limits.total_bytes, limits.context_bytes, limits.num_sms) == (25_250_627_584, 404_750_336, 128)


@pytest.mark.parametrize(
    ("name", "listed_mib", "sms"),
    [
        ("NVIDIA GeForce RTX 3060", 12_288, 28),  # the driver does not name the size
        ("NVIDIA GeForce RTX 3060", 8192, 100),  # and this one is another card
        ("NVIDIA GeForce RTX 4060 Ti", 16_380, 34),
        ("NVIDIA GeForce RTX 4060", 8188, 24),
    ],
)
def test_cards_of_one_name_are_told_apart_by_their_size(name: str, listed_mib: int, sms: int) -> None:
    card = replace(CARD, full_name=name, total_memory_bytes=listed_mib * MIB)
    assert Calibration(VERSIONS).limits(replace(CASE, device=card)).num_sms == sms


# What a row teaches


def test_the_first_row_tells_the_context_and_the_size_that_cuda_sees() -> None:
    limits = Calibration(VERSIONS, [row(context=700 * MIB)]).limits(CASE)
    assert (limits.total_bytes, limits.context_bytes) == (SEEN, 700 * MIB)


def test_what_was_missed_is_taken_off_too() -> None:
    assert for_torch(row(missed=80 * MIB)) == SEEN - 580 * MIB
    assert for_torch(row(missed=-80 * MIB)) == SEEN - 420 * MIB


def test_a_row_that_comes_in_later_counts_at_once() -> None:
    calibration = Calibration(VERSIONS)
    assert calibration.limits(CASE).torch_bytes == UNTAUGHT
    calibration.learn(row(context=700 * MIB))
    assert calibration.limits(CASE).torch_bytes == SEEN - 700 * MIB


def test_one_odd_row_changes_little_and_the_latest_count() -> None:
    odd = [row(), row(), row(context=3000 * MIB)]
    assert for_torch(*odd) == SEEN - 500 * MIB
    others_came = [*(row() for _ in range(20)), *(row(context=900 * MIB) for _ in range(3))]
    assert for_torch(*others_came) == SEEN - 900 * MIB


def test_a_case_that_ran_out_tells_the_context_until_one_fits() -> None:
    """It came to no peak of its own, and had not loaded all kernels: what it missed is not known."""
    ran_out = row(context=650 * MIB, missed=5 * GIB, outcome="oom")
    assert for_torch(ran_out) == SEEN - 650 * MIB
    assert for_torch(ran_out, row(context=700 * MIB), ran_out) == SEEN - 700 * MIB


# Which rows do


@pytest.mark.parametrize(
    "changed",
    [
        {"device_uuid": "GPU-2"},
        {"device_uuid": None},
        {"device_kind": "simulated"},
        {"device_kind": None},
        {"driver_version": "590.1"},  # another driver or torch has another context
        {"torch_version": "2.14.0+cu130"},
        {"torch_version": None},
        {"engine_version": "0.3.3"},  # another version engine allocates something else
        {"harness_version": "1.1"},  # another harness predicts something else
        {"outcome": "degraded"},
        {"outcome": "crash"},
        {"outcome": None},
    ],
)
def test_other_rows_teach_nothing(changed: dict[str, Any]) -> None:
    assert for_torch(row(context=5 * GIB, **changed)) == UNTAUGHT


def test_each_engine_is_calibrated_by_its_own_rows_whatever_else_is_installed() -> None:
    versions = {**VERSIONS, "another_version": "1.0"}
    other = replace(CASE, engine="another")
    rows = [row(context=700 * MIB), row(other, context=900 * MIB, engine_version="1.0")]
    assert for_torch(*rows, versions=versions) == SEEN - 700 * MIB
    assert for_torch(*rows, case=other, versions=versions) == SEEN - 900 * MIB
    assert for_torch(rows[0], case=other, versions=versions) == UNTAUGHT


@pytest.mark.parametrize(
    ("installed", "ran", "same"),
    [
        ("2.13.0", "2.13.0+cu130", True),  # the package of PyPI does not name its build
        ("2.13.0", "2.13.0", True),
        ("2.13.0+cu126", "2.13.0+cu130", False),
        ("2.13.0+cu130", "2.13.0+cu130", True),
        ("2.13.0", "2.13.1+cu130", False),
    ],
)
def test_another_build_of_torch_is_another_context(installed: str, ran: str, same: bool) -> None:
    taught = for_torch(row(torch_version=ran), versions={**VERSIONS, "torch_version": installed})
    assert (taught != UNTAUGHT) == same


def test_nulls_teach_what_the_rest_says() -> None:
    assert for_torch(row(peak_device_bytes=None, missed=80 * MIB)) == SEEN - ASSUMED_CONTEXT_BYTES - 80 * MIB
    assert for_torch(row(predicted_peak_bytes=None, missed=80 * MIB)) == SEEN - 500 * MIB
    assert for_torch(row(device_total_bytes=None)) == LISTED - 500 * MIB
    nothing = dict.fromkeys(row(), None) | {name: row()[name] for name in ("device_kind", "device_uuid", "outcome")}
    assert for_torch(nothing) == UNTAUGHT


def test_a_row_that_is_stored_without_its_documents_teaches_all_the_same() -> None:
    stored = {name: value for name, value in row().items() if name not in DOCUMENTS}  # as a resumed sweep reads it
    assert for_torch(stored) == for_torch(row()) != UNTAUGHT


def test_the_context_is_the_card_s_and_what_was_missed_is_rather_the_model_s() -> None:
    other = replace(CASE, model=replace(CASE.model, fingerprint="f2"), cache="FP16")
    rows = [row(missed=80 * MIB), row(other, missed=-40 * MIB)]
    assert for_torch(*rows) == SEEN - 580 * MIB
    assert for_torch(*rows, case=other) == SEEN - 460 * MIB
    third = replace(CASE, model=replace(CASE.model, fingerprint="f3"))
    assert for_torch(*rows, case=third) == SEEN - 580 * MIB  # of the same cache
    assert for_torch(row(other, missed=80 * MIB)) == SEEN - 580 * MIB  # better than none


# A smaller card inside a real one


def test_a_limit_on_a_real_card_is_pytorch_s_and_its_own_context_s() -> None:
    """The worker caps PyTorch at the limit less the context that it began with; others may hold what they like."""
    limited = replace(CASE, vram_limit_bytes=12 * GIB, vram_limit_by="allocator")
    taught = row(context=900 * MIB, context_bytes=400 * MIB)  # 500 MiB are somebody else's, or came later
    assert for_torch(taught, case=limited) == 12 * GIB - 400 * MIB
    assert for_torch(taught) == SEEN - 900 * MIB
    limits = Calibration(VERSIONS, [taught]).limits(limited)
    assert limits.context_bytes == 900 * MIB  # as NVML will show it


def test_a_card_that_another_process_keeps_small_holds_all_of_the_context() -> None:
    held = replace(CASE, vram_limit_bytes=12 * GIB, vram_limit_by="process")
    taught = row(context=900 * MIB, context_bytes=400 * MIB)
    assert for_torch(taught, case=held) == 12 * GIB - 900 * MIB
    assert for_torch(case=held) == 12 * GIB - ASSUMED_CONTEXT_BYTES


def test_a_limited_row_teaches_the_whole_card_and_the_other_way_round() -> None:
    limited = replace(CASE, vram_limit_bytes=12 * GIB, vram_limit_by="allocator")
    taught = row(limited, context=900 * MIB, missed=50 * MIB, context_bytes=400 * MIB)
    assert for_torch(taught) == SEEN - 950 * MIB
    assert for_torch(taught, case=limited) == 12 * GIB - 450 * MIB


def test_where_the_driver_does_not_tell_the_context_the_limit_is_pytorch_s_alone() -> None:
    limited = replace(CASE, vram_limit_bytes=12 * GIB, vram_limit_by="allocator")
    assert for_torch(row(context_bytes=None), case=limited) == 12 * GIB


def test_a_limit_near_the_whole_card_is_bounded_by_what_is_free() -> None:
    limited = replace(CASE, vram_limit_bytes=SEEN, vram_limit_by="allocator")
    assert for_torch(row(context=900 * MIB, context_bytes=400 * MIB), case=limited) == SEEN - 900 * MIB


def test_nothing_known_a_limit_holds_the_assumed_context() -> None:
    assert (
        for_torch(case=replace(CASE, vram_limit_bytes=12 * GIB, vram_limit_by="allocator"))
        == 12 * GIB - ASSUMED_CONTEXT_BYTES
    )


def test_the_multiprocessors_are_those_that_cuda_counted() -> None:
    calibration = Calibration(VERSIONS, [row(telemetry='{"properties": {"multi_processor_count": 77}}'), row()])
    assert calibration.limits(CASE).num_sms == 77


def test_the_cublas_workspace_is_the_one_that_was_seen() -> None:
    seen = row(telemetry='{"properties": {"workspaces_bytes": [123, 123]}}')
    assert Calibration(VERSIONS, [seen, row()]).limits(CASE).workspace_bytes == 123
    assert Calibration(VERSIONS, [row()]).limits(CASE).workspace_bytes == limits_of(CASE.device, None).workspace_bytes


def test_the_first_of_several_cards_decides_how_large_the_workspaces_of_all_are() -> None:
    ada, blackwell = (replace(CASE.device, kind="simulated", compute_capability=each) for each in ("8.9", "12.0"))
    for first, second in ((ada, blackwell), (blackwell, ada)):
        limits = Calibration(VERSIONS).limits(replace(CASE, device=first, more_devices=(second,)))
        assert isinstance(limits, MachineLimits)
        assert {card.workspace_bytes for card in limits.cards} == {limits_of(first, None).workspace_bytes}
