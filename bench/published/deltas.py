"""Differences of two published figures: what both have in common, known or not, is not in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby, pairwise

from bench.core.outcome import Phase
from bench.published.asked import Answer, Asked, Of, held_after, held_bytes_after, peak
from bench.published.compared import Compared, Section
from bench.published.figures import Size, sizes_of
from bench.published.models import Models
from bench.published.refused import NotComparable
from bench.published.runs import Ran
from bench.published.settings import Setting, setting_of
from bench.published.table import Entry, Kind

# Of two lines that differ in their length, or their cache, alone. Who measured how must be the same; what that was need
# not be known.
_ALIKE = (
    *("model", "base_arch", "quant_format", "bpw", "head_bits", "batch", "chunk_max_input_len"),
    *("attention", "frontend", "gpu", "n_gpu", "os", "engine_version", "date", "figure", "unit", "source_url"),
)
_MORE_OF_A_RUN = (("load", "cache"),)


def steps_within(
    entry: Entry, sizes: Sequence[Size], setting: Setting, sized: Callable[[Size, str], Compared]
) -> Iterator[Asked]:
    """From one phase to the next of a run, where a scenario has both."""
    for before, after in pairwise(sizes):
        if (before.of, after.of) in _MORE_OF_A_RUN:
            step = Size(after.size_bytes - before.size_bytes, before.off_bytes + after.off_bytes, "")
            name = f"from {before.of} to {after.of}"
            compared = sized(step, name)
            yield Asked(compared, (setting.case,), _step(Phase(before.of), Phase(after.of)))


def _step(before: Phase, after: Phase) -> Of:
    def read(ran: Ran) -> Answer:
        first, last = held_bytes_after(ran, before), held_bytes_after(ran, after)
        if first is None or last is None:
            return Answer(None, none_because=f"ours ended before: {ran.outcome} in {ran.phase}")
        return Answer(float(last - first))

    return read


def deltas_between(entries: Sequence[Entry], models: Models) -> Iterator[Asked]:
    """From one length to the next longer one, and from one cache to the next larger one, of lines alike in all else."""
    boards = [entry for entry in entries if entry.kind is Kind.VRAM and entry["max_seq_len"].isdigit()]
    for column, alike in (("max_seq_len", "cache_type"), ("cache_type", "max_seq_len")):
        key = partial(_alike, alike)
        for _, group in groupby(sorted(boards, key=key), key):
            # By what was published, where nothing else puts caches in an order.
            ordered = sorted(group, key=lambda entry: int(entry["max_seq_len"]))
            if column == "cache_type":
                ordered.sort(key=_published)
            for less, more in pairwise(ordered):
                if less[column] != more[column]:
                    yield from _delta(less, more, column, models)


def _alike(also: str, entry: Entry) -> tuple[str, ...]:
    return tuple(entry[column] for column in (*_ALIKE, also))


def _published(entry: Entry) -> float:
    try:
        return sizes_of(entry)[0].size_bytes
    except NotComparable:
        return 0.0


def _delta(less: Entry, more: Entry, column: str, models: Models) -> Iterator[Asked]:
    """Nothing where one of the two cannot be compared: the lines themselves say why."""
    try:
        (smaller,), (larger,) = sizes_of(less), sizes_of(more)
        settings = [setting_of(entry, models, any_card=True) for entry in (less, more)]
    except (NotComparable, ValueError):
        return
    of_length = column == "max_seq_len"
    names = [f"{int(each[column]):,}" if of_length else f"cache {each[column]}" for each in (less, more)]
    compared = Compared(
        line=more.line,
        id=more.id,
        section=Section.DELTA,
        figure=f"{names[0]} to {names[1]}{' tokens' * of_length}",
        by="author",
        published=larger.size_bytes - smaller.size_bytes,
        off=smaller.off_bytes + larger.off_bytes,
        unknown="; ".join(settings[1].unknown) or None,
    )
    loaded = re.search("after loading", more["figure"], re.IGNORECASE)
    yield Asked(compared, (settings[0].case, settings[1].case), held_after(Phase.CACHE) if loaded else peak)
