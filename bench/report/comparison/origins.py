"""Where the rows of a comparison come from: the software, and what of a card or a model changed on purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bench.comparison.pairing import AnyPair
from bench.core.columns import ResultRow
from bench.core.identity import is_simulated, key_of
from bench.engines.registry import engines
from bench.report.text.units import exact_size

# What may differ on purpose: it is told, and not refused.
VERSIONS = {
    "host": "host",
    "harness_version": "vram-bench",
    **{engine.version_column: engine.name for engine in engines()},
    "torch_version": "torch",
    "cuda_version": "CUDA",
    "driver_version": "driver",
    "device_uuid": "GPU",
}
_Text = Callable[[Any], str]
# The same, and told only where it changed.
_FACTS: dict[str, tuple[str, _Text]] = {
    "model": ("model", str),
    "bpw": ("bpw", lambda bpw: f"{bpw:g}"),
    "head_bits": ("head_bits", str),
    "device_total_bytes": ("memory", exact_size),
    "compute_capability": ("compute capability", str),
    "device_context_bytes": ("CUDA context", exact_size),
    "device_workspace_bytes": ("cuBLAS workspace", exact_size),
    "device_multi_processor_count": ("multiprocessors", str),
    "device_bandwidth_bytes_per_s": ("bandwidth", lambda value: f"{value / 1e9:g} GB/s"),
}


def values(rows: Iterable[ResultRow], column: str) -> str:
    """What the rows say, each value once."""
    return ", ".join(sorted({str(value) for row in rows for value in key_of(row, [column]) if value is not None}))


def changed_facts(pairs: Sequence[AnyPair]) -> list[tuple[str, str, str]]:
    """The name of each fact that is another in HEAD, and what it was and is, of the pairs for which it changed."""
    told = []
    for column, (name, text) in _FACTS.items():
        both = [(_fact(pair.base.row, column), _fact(pair.head.row, column)) for pair in pairs]
        changed = dict.fromkeys((old, new) for old, new in both if None not in (old, new) and old != new)
        if changed:
            old, new = (", ".join(dict.fromkeys(text(each[side]) for each in changed)) for side in (0, 1))
            told.append((name, old, new))
    return told


def _fact(row: ResultRow, column: str) -> Any:
    """What a row tells; of older programs only the cases of a simulated card have its context."""
    value, context_bytes = key_of(row, (column, "context_bytes"))
    is_told = value is not None or column != "device_context_bytes" or not is_simulated(row)
    return value if is_told else context_bytes
