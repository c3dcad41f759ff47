"""What more cards gain: the difference of two boundaries, of which either may go further than it says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bench.report.naming.models import Names
from bench.report.tables.more_cards import more_cards_tables
from tests.report.conftest import GIB, FrameOf, ends, nothing, open_end

_CARD = {"name": "rtx_4090", "kind": "simulated", "total_memory_bytes": 24 * GIB, "context_bytes": None}
_TOGETHER = {
    "device_name": "2xrtx_4090",
    "device_total_bytes": 48 * GIB,
    "device_cards": json.dumps([_CARD, _CARD]),
    "split": "auto",
}


@pytest.mark.parametrize(
    ("alone", "together", "gained"),
    [
        (ends(512), ends(1536), "+1,024"),
        (nothing(), ends(1536), "+1,536"),
        (ends(512), ends(512), "–"),
        (ends(512), ends(131072), "+130,560"),
        (ends(512), {"outcome": "fits", "fits_at": 1536, "searched_up_to": 1536}, "≥ +1,024"),
        (ends(512), open_end(512, 2048), "≥ +0"),
        (open_end(512, 2048), ends(1536), "≤ +1,024"),
        (open_end(512, 2048), open_end(1536, 4096), "?"),
    ],
)
def test_a_gain_is_a_bound_where_one_end_is(
    boundaries_of: FrameOf, alone: dict[str, Any], together: dict[str, Any], gained: str
) -> None:
    frame = boundaries_of(alone, {**together, **_TOGETHER})
    (table,) = more_cards_tables(frame, Names.of_frames(frame))
    (line,) = table.lines
    assert line[table.columns.index("gained")] == gained
