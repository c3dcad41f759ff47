"""How long a sweep would take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from bench.core.columns import CARD, MODEL, CaseRow
from bench.core.identity import is_simulated, key_of
from bench.core.identity_columns import NamedColumns
from bench.core.outcome import ANSWERS
from bench.report.forecasts import Expectation, ForecastRow

ASSUMED_PROBE_S = 1.0  # of a model whose config.json does not tell how many layers it has


def expect(
    rows: Sequence[ForecastRow],
    measured: Iterable[CaseRow],
    jobs: int,
    slow: float | None = None,
    timeout_s: float | None = None,
    cards: Mapping[str | None, int] | None = None,
) -> Expectation:
    """How long the probes of `rows` would take.

    On a simulated card that is estimated from the work, times `slow`: by how much stored cases took longer than that
    (None: there are none). Elsewhere a probe takes the median of the rows `measured` on the same card with the same
    model, else of those on the same kind of card. Simulated cards run `jobs` cases at a time, a real GPU one, and the
    probes of a search come one after the other. `cards` are how many equal GPUs share the work of one.
    """
    times: dict[tuple[Any, ...], list[float]] = {}
    for seen in measured:
        if seen["outcome"] in ANSWERS and seen["wall_s"] is not None:
            times.setdefault((seen["device_kind"],), []).append(seen["wall_s"])
            times.setdefault(_card_and_model(seen), []).append(seen["wall_s"])
    probe_s = {key: median(values) for key, values in times.items()}
    probes, assumed, longest = sum(row.probes for row in rows), False, 0.0
    lanes: dict[str | None, list[float]] = {}
    for row in rows:
        if not row.probes:
            continue
        seconds = probe_s.get(_card_and_model(row.identity), probe_s.get((row.identity["device_kind"],)))
        if row.estimated_probe_s is not None:
            seconds, assumed = row.estimated_probe_s * (slow or 1.0), assumed or slow is None
        elif seconds is None:
            if not is_simulated(row.identity):
                return Expectation(probes, None, timeout_s=timeout_s)
            seconds, assumed = ASSUMED_PROBE_S, True
        longest = max(longest, seconds)
        lanes.setdefault(row.identity["device_uuid"], []).append(row.probes * seconds)
    at_once = {uuid: (cards or {}).get(uuid, 1) if uuid else jobs for uuid in lanes}
    total = max((max(sum(lane) / at_once[uuid], max(lane)) for uuid, lane in lanes.items()), default=0.0)
    return Expectation(probes, total, assumed, longest or None, timeout_s)


def _card_and_model(row: NamedColumns) -> tuple[Any, ...]:
    """A real card is known by its number: CUDA and the driver do not agree on how much memory it has."""
    return key_of(row, (*(CARD if row["device_uuid"] is None else ("device_uuid",)), *MODEL))
