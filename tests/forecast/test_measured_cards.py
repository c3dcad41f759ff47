"""Cards made of measured rows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from omegaconf import OmegaConf
from pydantic import TypeAdapter

from bench.config.settings import DeviceSettings
from bench.core.columns import CaseRow
from bench.forecast.measured_cards import card_key, measured_cards

MIB, GIB = 1 << 20, 1 << 30


def telemetry(*workspaces_bytes: int) -> str:
    return json.dumps({"properties": {"multi_processor_count": 128, "workspaces_bytes": workspaces_bytes}})


def row(**changed: Any) -> dict[str, Any]:
    return {
        **dict.fromkeys(CaseRow.__annotations__),
        "device_name": "nvidia_some_gpu",
        "device_kind": "cuda",
        "device_total_bytes": 24 * GIB,
        "compute_capability": "8.9",
        "driver_version": "580.1",
        "torch_version": "2.13.0+cu130",
        "outcome": "fits",
        "context_bytes": 300 * MIB,
        "peak_device_bytes": 11 * GIB + 380 * MIB,
        "peak_reserved_bytes": 11 * GIB,
        "telemetry": telemetry(8_519_680),
        **changed,
    }


def test_a_card_is_the_medians_of_its_rows() -> None:
    rows = [
        row(),
        row(context_bytes=310 * MIB, telemetry=telemetry(8_519_680, 8_519_680, 4096)),
        row(outcome="oom", peak_device_bytes=None, telemetry=telemetry(1), context_bytes=320 * MIB),
    ]
    (card,) = measured_cards(rows).values()
    assert (card.initial_context_bytes, card.non_torch_bytes, card.workspace_bytes) == (310 * MIB, 380 * MIB, 8_519_680)
    assert (card.multi_processor_count, card.num_rows) == (128, 3)


@pytest.mark.parametrize("column", ["driver_version", "torch_version", "device_name", "device_total_bytes"])
def test_another_driver_pytorch_or_card_has_a_context_of_its_own(column: str) -> None:
    other = row(context_bytes=900 * MIB, **{column: 1 if column == "device_total_bytes" else "other"})
    cards = measured_cards([row(), other])
    assert {card.initial_context_bytes for card in cards.values()} == {300 * MIB, 900 * MIB}
    assert cards[card_key(other)].initial_context_bytes == 900 * MIB


def test_a_capped_case_has_the_context_that_a_process_begins_with() -> None:
    (card,) = measured_cards([row()]).values()
    assert card.as_simulated(capped=True).context_bytes == 300 * MIB
    whole = card.as_simulated(capped=False)
    assert (whole.kind, whole.name, whole.context_bytes) == ("simulated", "nvidia_some_gpu", 380 * MIB)
    assert (whole.workspace_bytes, whole.workspace_basis) == (8_519_680, whole.context_basis)
    assert whole.context_basis == "measured: driver 580.1, torch 2.13.0+cu130, 1 rows"


def test_what_no_row_says_is_assumed_and_marked() -> None:
    silent = row(context_bytes=None, peak_device_bytes=None, telemetry=None)
    (card,) = measured_cards([silent]).values()
    assert card.workspace_bytes is None
    device = card.as_simulated(capped=False)
    assert (device.context_bytes, device.context_basis, device.multi_processor_count) == (None, "assumed", None)
    assert (device.workspace_bytes, device.workspace_basis) == (None, "assumed")


def test_rows_of_simulated_cards_teach_nothing() -> None:
    assert not measured_cards([row(device_kind="simulated")])


def test_a_card_can_be_one_of_the_catalogue() -> None:
    (card,) = measured_cards([row()]).values()
    read = OmegaConf.to_container(OmegaConf.create(card.as_catalogue_file()))
    settings = TypeAdapter(DeviceSettings).validate_python(read)
    assert (settings.compute_capability, settings.multi_processor_count) == ("8.9", 128)
    assert (settings.context_bytes, settings.context_basis) == (380 * MIB, card.basis)
    assert (settings.workspace_bytes, settings.workspace_basis) == (8_519_680, card.basis)
