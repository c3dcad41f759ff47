"""Differences of two published figures: what both have in common, known or not, is not in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, pairwise

from bench.core.outcome import Phase
from bench.published.asked import Answer, Asked, Of, held_bytes_after, peak
from bench.published.compared import Compared, Section
from bench.published.figures import Size, sizes_of
from bench.published.models import Models
from bench.published.refused import NotComparable
from bench.published.runs import Ran
from bench.published.settings import Setting, setting_of
from bench.published.table import Entry, Kind

# Of two lines that differ in their length alone. Who measured how must be the same; what that was need not be known.
_ALIKE = (
    *("model", "base_arch", "quant_format", "bpw", "head_bits", "cache_type", "batch", "chunk_max_input_len"),
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
    """From one length to the next longer one, of lines that are alike in all else."""
    boards = [entry for entry in entries if entry.kind is Kind.VRAM and entry["max_seq_len"].isdigit()]
    for _, group in groupby(sorted(boards, key=_alike), _alike):
        by_length = sorted(group, key=lambda entry: int(entry["max_seq_len"]))
        for short, long in pairwise(by_length):
            if short["max_seq_len"] != long["max_seq_len"]:
                yield from _delta(short, long, models)


def _alike(entry: Entry) -> tuple[str, ...]:
    return tuple(entry[column] for column in _ALIKE)


def _delta(short: Entry, long: Entry, models: Models) -> Iterator[Asked]:
    name = f"{int(short['max_seq_len']):,} to {int(long['max_seq_len']):,} tokens"
    bare = Compared(long.line, long.id, Section.DELTA, name, "author", None, None)
    try:
        (less,), (more,) = sizes_of(short), sizes_of(long)
        settings = [setting_of(entry, models, any_card=True) for entry in (short, long)]
    except (NotComparable, ValueError):
        return  # the lines themselves say why
    unknown = "; ".join(settings[1].unknown) or None
    off = less.off_bytes + more.off_bytes
    published = more.size_bytes - less.size_bytes
    yield Asked(
        Compared(**{**vars(bare), "published": published, "off": off, "unknown": unknown}),
        (settings[0].case, settings[1].case),
        peak,
    )
