"""What cases and searches are called before they have rows: one line each, and no two alike."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import cast

from bench.core.case import Axis, Case, Search
from bench.core.columns import CARD, LIMIT, MODEL
from bench.core.identity import identity_of
from bench.core.identity_columns import IdentityColumns
from bench.report.naming.axes import OPTIONAL, Axes
from bench.report.naming.models import Names


class WorkNames:
    """The names of `works`: the model, how it is run, the length of a case, and the card."""

    def __init__(self, works: Iterable[Case | Search]) -> None:
        works = list(works)
        things = [_told(work) for work in works]
        self._tells_caches = any(work.axis is Axis.CACHE_SIZE for work in works)
        self._names = Names(things, real="cuda")
        self._axes = Axes(things, (*OPTIONAL, "repeats", "auto_up_to"), beside=(*CARD, *LIMIT, *MODEL, "max_seq_len"))

    def title(self, work: Case | Search) -> str:
        """`tinyllama_1_1b 4 bpw FP16 load 2048 on rtx_3090 limited to 8.00 GiB`."""
        thing = _told(work)
        length = [str(thing["max_seq_len"])] if "max_seq_len" in thing else []
        if self._tells_caches and isinstance(work, Case) and work.cache_size is not None:
            length.append(f"cache_size {work.cache_size}")
        setting = " ".join([self._axes.words(thing), *length])
        return f"{self._names.model(thing)} {setting} on {self._names.card(thing)}"


class _Thing(IdentityColumns, total=False):
    """What tells works apart: of a search its end, of a case, or of a search for the largest cache, its length."""

    repeats: int
    auto_up_to: int
    max_seq_len: int


def _told(work: Case | Search) -> _Thing:
    if isinstance(work, Search):
        case, own = work.longest, {"repeats": work.longest.repeats, "auto_up_to": work.search_end}
        if work.axis is Axis.CACHE_SIZE:
            own |= {"max_seq_len": case.max_seq_len}
            case = replace(case, cache_size=None)
        return cast(_Thing, {**identity_of(case), **own})
    return cast(_Thing, {**identity_of(work), "repeats": work.repeats, "max_seq_len": work.max_seq_len})
