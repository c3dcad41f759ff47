"""The registry of columns: what follows from it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from operator import attrgetter
from pathlib import Path

import pytest

from bench.core.case import Case, ModelSpec
from bench.core.column import declared
from bench.core.columns import IDENTITY, SETTING, BoundaryRow, CaseRow, MemoryRow
from bench.core.device import DeviceSpec
from bench.store.schema import BOUNDARIES, CASES, MEMORY

SCRIPT = Path(__file__).parents[2] / "scripts" / "renew" / "document_columns.py"


def test_the_docs_tell_every_column() -> None:
    subprocess.run([sys.executable, str(SCRIPT), "--check"], check=True)


@pytest.mark.parametrize(("row", "schema"), [(CaseRow, CASES), (BoundaryRow, BOUNDARIES), (MemoryRow, MEMORY)])
def test_the_schema_has_the_declared_columns(row: type, schema: object) -> None:
    assert schema.names == [column.name for column in declared(row)]
    assert all(column.about.doc for column in declared(row))


def test_what_tells_cases_apart_is_found_in_a_case() -> None:
    model = ModelSpec("tiny", {}, "1234")
    device = DeviceSpec("rtx_4090", "simulated", "NVIDIA GeForce RTX 4090", 24 << 30)
    case = Case(model, device, 4.0, 6, "Q4", False, "auto", 256, 1, 2048)
    for column in declared(CaseRow):
        if column.name in IDENTITY:
            attrgetter(column.about.of)(case)


def test_every_setting_of_a_case_is_a_column() -> None:
    """A new field of `Case` that no column tells would make two cases look like one."""
    told = {column.about.of for column in declared(CaseRow)}
    # Case.machine, Case.limit_bytes and Case.unequal_limits
    told_of_all_cards = {"device", "more_devices", "vram_limit_bytes", "vram_limits_bytes"}
    by_properties = {"model", "draft_model"}
    assert {field.name for field in fields(Case)} - told == {"repeats", *by_properties, *told_of_all_cards}
    assert set(SETTING) <= {column.name for column in declared(BoundaryRow)}
