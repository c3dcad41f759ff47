"""How ExLlamaV2 puts a model on several cards."""

from __future__ import annotations

from collections.abc import Mapping

from bench.core.case import Case
from bench.core.split import Split
from bench.trace.split import SplitTrace
from bench.trace.split_replay import SplitReplayer

_MIB = 1 << 20
# ExLlamaV2.load_autosplit_gen
_RESERVE_FIRST, _RESERVE_OTHERS = 192 * _MIB, 64 * _MIB


def split_replayer(trace: SplitTrace, tensor_bytes: Mapping[str, int], case: Case) -> SplitReplayer:
    """Of a search on several cards that are filled one after the other. Raises `NoPrediction`."""
    count = len(case.devices)
    reserve = Split.parse(str(case.split)).reserve_bytes or (_RESERVE_FIRST, *[_RESERVE_OTHERS] * (count - 1))
    return SplitReplayer(trace, tensor_bytes, reserve)
