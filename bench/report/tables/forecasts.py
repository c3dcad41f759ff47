"""What a sweep is expected to find, for people: a table for each card and model, its memory as bars."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from bench.core.caches import coarseness
from bench.core.case import DEFAULT_ENGINE
from bench.core.columns import SETTING, label
from bench.core.extras import missing
from bench.core.identity import key_of
from bench.core.outcome import Outcome
from bench.engines.registry import titles
from bench.report.forecasts import CACHES, CASES, LENGTHS, Expectation, ForecastRow, Gain
from bench.report.naming.axes import OPTIONAL, Axes, how, in_common
from bench.report.naming.models import CARD_AND_MODEL, Names
from bench.report.tables.assumptions import in_words
from bench.report.tables.best_rule import rule
from bench.report.tables.crossed import Setting, crossed
from bench.report.text.columns import Column, Columns
from bench.report.text.ends import OWN_LIMIT, USERS, at_least, lower_bound, users_of
from bench.report.text.parts_bar import PartsBar, legend, scale_for, segments
from bench.report.text.plain_table import PlainTable
from bench.report.text.render import Told, left_aligned
from bench.report.text.render import as_rich as table_as_rich
from bench.report.text.splits import best_split_words
from bench.report.text.units import duration, gib, is_near_timeout, rate, size, tokens

# What a person reads on a screen; whoever redirects the output gets every row.
_MOST_ROWS = 40
_FITS, _OOM, _FAINT = "#009E73", "#D55E00", "bright_black"  # Okabe and Ito's green and vermilion


def show(rows: Sequence[ForecastRow], expectation: Expectation, console: Console) -> None:
    """A summary, where there are several cards what each takes, a table for each card and model, and how to read them;
    in a terminal long tables are cut.
    """
    console.print(Text(summary(rows, expectation)))
    tables, has_best, told = tables_of(rows), False, Told()
    for shown in cards_of(tables):
        console.print()
        console.print(table_as_rich(shown, told))
    for table in tables:
        console.print()
        console.print(as_rich(table, _MOST_ROWS if console.is_terminal else None, told))
        for line in [] if table.rows[0].kind == CACHES else _best(table):
            console.print(Text(line, "bold"))
            has_best = True
    console.print()
    console.print(_key(rows, expectation, has_best))


def _best(table: ForecastTable) -> list[str]:
    """The best setting of the table, where there is a choice."""
    if len({key_of(row.identity, SETTING) for row in table.rows}) < 2:
        return []
    try:
        from bench.report.tables.best import best_forecasts  # with pandas, which takes as long as a thousand searches
    except ModuleNotFoundError as error:
        if (why := missing(error, "best")) is None:
            raise
        return [str(why)]
    return best_forecasts(table.rows, table.axes)


def summary(rows: Sequence[ForecastRow], expectation: Expectation) -> str:
    """How much there is to do, how long that would take, and what would come out."""
    cells = sum(row.is_search for row in rows)
    counted = [_count(cells, "cell")] if cells else []
    counted += [_count(len(rows) - cells, "case")] if len(rows) > cells else []
    stored = sum(row.stored for row in rows)
    told = ", ".join(counted) + (f" ({stored} stored already)" if stored else "")
    verdicts = Counter(row.fits for row in rows)
    unsupported = sum(row.unsupported is not None for row in rows)
    fit, fail, unknown = verdicts[True], verdicts[False], verdicts[None] - unsupported
    outlook = [f"{fit} predicted to fit"] if fit else []
    outlook += [f"{fail} not to" if fit else f"{fail} predicted not to fit"] if fail else []
    outlook += [f"{unsupported} unsupported"] if unsupported else []
    outlook += [f"{unknown} not predictable"] if unknown else []
    return f"{told}: {_count(expectation.probes, 'probe')} expected, {_time(expectation)}\n{', '.join(outlook)}"


@dataclass(frozen=True)
class ForecastTable:
    """The cells, or the cases, of one card and one model; `names` are those of all that is planned."""

    rows: list[ForecastRow]
    names: Names

    @property
    def title(self) -> str:
        """The model, the card, the attention that was asked for, and that it is predicted."""
        first = self.rows[0]
        asked = {row.identity["attention_requested"] for row in self.rows}
        attention = (
            f", {first.identity['attention_requested']} attention" if len(asked) == 1 and asked != {"auto"} else ""
        )
        where = f"{self.names.model(first.identity)} on {self.names.card_title(first.identity)}"
        return f"{where}{attention}{in_common(row.identity for row in self.rows)}: predicted"

    @property
    def varying(self) -> list[str]:
        """Of what tells lines apart, what does so here."""
        return self.axes.varying

    @cached_property
    def axes(self) -> Axes:
        """How the lines are called."""
        return Axes(row.identity for row in self.rows)

    @property
    def notes(self) -> list[Text]:
        """What nothing can be said of, and what would help or be gained, each in a line."""
        reasons: dict[str, list[ForecastRow]] = {}
        for row in self.rows:
            if row.reason is not None:
                told = f"unsupported: {row.unsupported}" if row.unsupported else f"no prediction: {row.reason}"
                reasons.setdefault(told, []).append(row)
        notes = [
            Text(f"{self._where(among)}{reason}", "" if len(among) < len(self.rows) else "bold")
            for reason, among in reasons.items()
        ]
        notes += [self._said(row) for row in self.rows if row.gains or row.advice or row.best_split]
        of_rows: dict[str, list[ForecastRow]] = {}
        for row in self.rows:
            for note in row.notes:
                of_rows.setdefault(note, []).append(row)
        return notes + [Text(f"{self._where(among)}{note}") for note, among in of_rows.items()]

    @property
    def assumptions(self) -> list[str]:
        """What was taken for granted."""
        return in_words(note for row in self.rows for note in row.assumed)

    def name(self, row: ForecastRow) -> str:
        """What tells a row from the others of the table."""
        words = self.axes.words(row.identity)
        return words if row.kind == LENGTHS else f"{words} {tokens(row.max_seq_len)}"

    def _where(self, among: list[ForecastRow]) -> str:
        """`4 bpw FP16 load, 6 bpw FP16 load: `; empty for the whole table."""
        if len(among) == len(self.rows):
            return ""
        shown = [self.name(row) for row in among[:3]] + ([f"{len(among) - 3} more"] if len(among) > 3 else [])
        return ", ".join(shown) + ": "

    def _said(self, row: ForecastRow) -> Text:
        """What a row's memory goes to, and what one would gain."""
        split = best_split_words(row.best_split, row.predicted_fits_at, row.predicted_auto_fits_at)
        said = [split, _largest(row), row.advice, *(_gain(row, gain) for gain in row.gains or [])]
        return Text(f"{self.name(row)}: " + "; ".join(filter(None, said)))


def tables_of(rows: Sequence[ForecastRow]) -> list[ForecastTable]:
    """One table for each kind of cells and one for the cases of each card and model, in the order asked for."""
    groups: dict[tuple[Any, ...], list[ForecastRow]] = {}
    for row in rows:
        key = (*key_of(row.identity, CARD_AND_MODEL), row.kind)
        groups.setdefault(key, []).append(row)
    names = Names((row.identity for row in rows), real="cuda")
    return [ForecastTable(sorted(group, key=_place), names) for group in groups.values()]


def cards_of(tables: Sequence[ForecastTable]) -> list[PlainTable]:
    """Where there are several cards, how far each goes, and apart from that which cases fit; small cards first."""
    axes = Axes(row.identity for table in tables for row in table.rows)
    rows = [(table, row) for table in tables for row in table.rows]
    shown = []
    for kind, meaning in _LEGENDS.items():
        alike = [(table, row) for table, row in rows if row.kind == kind]
        order = [_setting(table, row, axes) for table, row in sorted(alike, key=lambda pair: _place(pair[1]))]
        cells = [
            (
                table.names.card_title(row.identity),
                _setting(table, row, axes),
                (_length(row) if row.is_search else _verdict(row)).plain,
            )
            for table, row in sorted(alike, key=lambda pair: pair[1].limit_bytes)
        ]
        shown += crossed(cells, order, meaning)
    return shown


_LEGENDS = {
    LENGTHS: "Predicted: the longest max_seq_len that fits.",
    CACHES: "Predicted: the largest cache_size that fits, for jobs of up to the length that is told.",
    CASES: "Predicted: which cases fit.",
}


def _setting(table: ForecastTable, row: ForecastRow, axes: Axes) -> Setting:
    """The words that name its column."""
    about = row.identity
    length = "" if row.kind == LENGTHS else tokens(row.max_seq_len)
    words = (f"{axes.bits(about)} bpw", about["cache"], how(about), ", ".join(axes.others(about)))
    return (table.names.model(about), *words, length)


def as_rich(table: ForecastTable, most_rows: int | None = None, told: Told | None = None) -> Group:
    """For the terminal, at home in 80 columns; of more than `most_rows` only the first, and without the assumptions
    that were `told` with another table.
    """
    rows = table.rows[:most_rows]
    speeds = any(row.estimated_decode_tokens_per_s is not None for row in rows)
    stored = any(row.stored for row in rows)
    largest = max(row.shown_bytes or 0 for row in table.rows)
    needed = any(row.predicted_needed_bytes is not None for row in rows)
    telling = zip(table.varying, zip(*(table.axes.cells(row.identity) for row in rows), strict=True), strict=True)
    columns = [
        Column(name="bpw", cells=[table.axes.bits(row.identity) for row in rows], tells=True),
        Column(name="cache", cells=[row.identity["cache"] for row in rows], justify="left", tells=True),
        Column(name="how", cells=[how(row.identity) for row in rows], justify="left", tells=True),
        *(
            Column(
                name=label(name).replace("_", "_\n"),
                cells=cells,
                justify="left" if left_aligned(label(name)) else "right",
                tells=True,
            )
            for name, cells in telling
        ),
        *_lengths(table, rows),
        Column(name="peak\nGiB", cells=[gib(row.predicted_peak_device_bytes) for row in rows]),
        Column(name="left\nGiB", cells=[gib(row.headroom_bytes if row.fits else None) for row in rows]),
        *([Column(name="needs\nGiB", cells=[_needs(row) for row in rows])] if needed else []),
        Column(name="", cells=[_bar(row, largest) for row in rows], justify="left", stretches=True),
        Column(name="verdict", cells=[_verdict(row) for row in rows], justify="left"),
    ]
    if speeds:
        columns.append(Column(name="est.\ntok/s", cells=[rate(row.estimated_decode_tokens_per_s) for row in rows]))
    if stored:
        columns.append(Column(name="", cells=[_stored(row) for row in rows], justify="left"))
    rich = Columns(columns=columns, gap=1)
    assumed = [Text(note, _FAINT) for note in (told or Told()).new(table.assumptions)]
    cut = len(table.rows) - len(rows)
    more = [Text(f"… and {cut:,} more; redirect the output to see all, as with | less", _FAINT)] if cut else []
    return Group(Text(table.title, style="bold"), rich, *more, *table.notes, *assumed)


def _lengths(table: ForecastTable, rows: Sequence[ForecastRow]) -> list[Column]:
    """How far a search goes, of the cache with how many users of the longest jobs that would be; or a case's length."""
    jobs = Column(name="max_seq_len", cells=[tokens(row.max_seq_len) for row in rows])
    kind = table.rows[0].kind
    if kind == CASES:
        return [jobs]
    if kind == LENGTHS:
        return [Column(name="fits up to", cells=[_length(row) for row in rows])]
    users = [users_of(row.predicted_fits_at, row.max_seq_len) for row in rows]
    return [
        replace(jobs, name="max_\nseq_len", tells=True),
        Column(name="cache fits\nup to", cells=[_length(row) for row in rows]),
        Column(name="users", cells=["" if each is None else f"{each:,}" for each in users]),
    ]


def _bar(row: ForecastRow, largest_bytes: int) -> RenderableType:
    """Nothing where what does not fit would look as if it did."""
    if row.parts is None or row.shown_bytes is None or _is_in_pieces(row):
        return Text("")
    return PartsBar(segments(row.parts, row.shown_bytes), scale_for(row.limit_bytes, largest_bytes))


def _needs(row: ForecastRow) -> str:
    return "" if row.predicted_needed_bytes is None else gib(row.predicted_needed_bytes)


def _is_in_pieces(row: ForecastRow) -> bool:
    """Whether it does not fit although no more would be in use than the card has."""
    return row.predicted_needed_bytes is not None and row.predicted_needed_bytes <= row.limit_bytes


def _key(rows: Sequence[ForecastRow], expectation: Expectation, has_best: bool) -> Group:
    """How to read the tables."""
    cells = " cell: a setting of which the longest is searched." if any(row.is_search for row in rows) else ""
    predicted = {row.identity["engine"] or DEFAULT_ENGINE for row in rows if row.reason is None}
    were = "was" if len(predicted) == 1 else "were"
    source = f"Predicted from what {titles(predicted)} {were} recorded to allocate: nothing" if predicted else "Nothing"
    text = (
        f"{source} here is measured, nothing was run on a card. "
        "peak: the most that the card would hold; left: what stays free. rest: scratch, attention, logits and the "
        "like; kept: by PyTorch, for later. probe: a run that finds an answer."
    )
    if any(row.predicted_needed_bytes is not None for row in rows):
        text += (
            " needs: where it does not fit, what would be in use on a card without a limit; where that is no more than "
            "this card has, what is free lies in pieces too small."
        )
    text += f" {rule()}{cells}" if has_best else cells
    if any(row.estimated_decode_tokens_per_s is not None for row in rows):
        together = (
            " of all sequences or jobs together" if any((row.identity["batch_size"] or 1) > 1 for row in rows) else ""
        )
        text += f" est. tok/s: decoding with the context full{together}, estimated from memory bandwidth."
    if any(row.kind == CACHES for row in rows):
        text += f" {USERS}"
    if any(row.is_own_limit for row in rows):
        text += f" {OWN_LIMIT}"
    if open_ends := [row for row in rows if row.is_at_end and not row.is_own_limit]:
        text += f" {lower_bound([row.identity['cache_size'] == row.max_seq_len for row in open_ends])}"
    if any(row.is_search and row.fits is False for row in rows):
        text += " none: not even the shortest, which needs what is shown."
    if any(row.stored for row in rows):
        text += " stored: answered by an earlier run, and not run again."
    if expectation.assumed:
        text += (
            " The time is assumed: estimated from layers, experts and chunks for a machine of two cores, since no case "
            "that could tell is stored."
        )
    return Group(legend(), Text(text, _FAINT))


def _place(row: ForecastRow) -> tuple[Any, ...]:
    """Few bits first, then the cache from large to small, then lazy loading last."""
    known = [(value is not None, value) for value in key_of(row.identity, OPTIONAL)]
    setting = row.identity
    return setting["bpw"], coarseness(setting["cache"]), setting["lazy"], *known, row.max_seq_len or 0


def _length(row: ForecastRow) -> Text:
    if not row.is_search:
        return Text(tokens(row.max_seq_len))
    if row.fits is False:
        return Text("none", _OOM)
    if row.is_at_end and row.predicted_fits_at is not None and not row.is_own_limit:
        return Text(at_least(row.predicted_fits_at))
    return Text(f"{tokens(row.predicted_fits_at)} max" if row.is_own_limit else tokens(row.predicted_fits_at))


def _verdict(row: ForecastRow) -> Text:
    if row.unsupported is not None:
        return Text("unsupported", _OOM)
    if row.fits is None:
        return Text("not predicted" if row.stored else "unknown", _FAINT)
    return Text("fits", _FITS) if row.fits else Text(f"OOM {row.failed_in}", _OOM)


def _stored(row: ForecastRow) -> str:
    """What an earlier run has found, where nothing is predicted beside it."""
    if row.stored_outcome is None:
        return "stored" if row.stored else ""
    if row.stored_fits_at is not None:
        return f"stored: {tokens(row.stored_fits_at)}"
    return f"stored: {'none' if row.is_search and row.stored_outcome == Outcome.OOM else row.stored_outcome}"


def _largest(row: ForecastRow) -> str | None:
    """`largest part the cache, 8.2 of 11.6 GiB`."""
    if row.parts is None:
        return None
    name, size_bytes = max(row.parts.items(), key=lambda part: part[1])
    told = f"largest part the {name.removesuffix('_bytes')}, {gib(size_bytes)} of {size(row.shown_bytes, 1)}"
    return f"what is free lies in pieces too small; {told}" if _is_in_pieces(row) else told


def _gain(row: ForecastRow, gain: Gain) -> str:
    """`cache=Q8: 63,488 (+17,152)`; for a case whether it would fit."""
    if row.is_search:
        more = gain.predicted_fits_at - (row.predicted_fits_at or 0)
        return f"{gain.setting}: {tokens(gain.predicted_fits_at)} ({more:+,})"
    fits = gain.predicted_fits_at == row.max_seq_len
    return f"{gain.setting}: fits" if fits else f"{gain.setting}: up to {tokens(gain.predicted_fits_at)}"


def _time(expectation: Expectation) -> str:
    if not expectation.probes:
        return "nothing to run"
    if expectation.seconds is None:
        return "for how long is not known: no row of such a GPU is stored"
    basis = "assumed" if expectation.assumed else "by stored rows"
    said = f"about {duration(expectation.seconds)} ({basis})"
    if is_near_timeout(expectation.longest_s, expectation.timeout_s):
        longest = duration(expectation.longest_s or 0)
        said += f"; a probe may take {longest}: timeout_s={expectation.timeout_s:g} ends it"
    return said


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")
