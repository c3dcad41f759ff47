"""Everything that a set of rows can be shown as, written to one folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from bench.analysis.asked import DEFAULT_CONTEXTS, DEFAULT_HEADROOM_BYTES
from bench.analysis.claims import Answer, answers
from bench.analysis.evidence import LENGTH_LIMIT, QUESTION, evidence, untried
from bench.analysis.quality import PUBLISHED, read_quality, with_quality
from bench.analysis.recommend import Recommendation, recommend
from bench.analysis.tradeoffs import tradeoffs
from bench.core.errors import BadInput
from bench.core.identity_columns import IdentityColumns, RanAttention
from bench.core.outcome import Outcome
from bench.report.echo import Echo
from bench.report.html import page
from bench.report.kinds import by_kind, latest_of_each_host
from bench.report.naming.models import Names, distinct
from bench.report.plots.write import Pictures, drawing
from bench.report.rows import raw
from bench.report.tables import boundaries as boundary_report
from bench.report.tables import recommendations as advice
from bench.report.tables import tradeoffs as tradeoff_tables
from bench.report.tables import verdicts as verdict_report
from bench.report.tables.best_rule import WANTED_TOKENS, rule
from bench.report.tables.caches import cache_tables, of_caches, of_lengths
from bench.report.tables.card import CardTable, card_table_count
from bench.report.tables.card_memory import at_boundaries, memory_tables
from bench.report.tables.cards import cards_frame, cards_tables
from bench.report.tables.claims import claims_frame
from bench.report.tables.engines import engines_tables
from bench.report.tables.more_cards import more_cards_tables
from bench.report.tables.parts import with_parts
from bench.report.tables.speeds import of_several_sizes, speed_tables
from bench.report.tables.spread import spread_tables
from bench.report.tables.users import users_tables
from bench.report.text.console import console_for
from bench.report.text.plain_table import PlainTable
from bench.report.text.render import as_markdown
from bench.report.whole_cards import with_whole_cards
from bench.report.written import in_short, keep_only
from bench.store.store import release_memory, without_formulae, write_csv

_CHUNK_ROWS = 100_000
_Sections = list[tuple[str, Iterable[CardTable[Any] | PlainTable]]]


@dataclass(frozen=True)
class ReportOptions:
    """What recommendations should give: the wanted lengths, and what the card keeps to spare; whose figures of quality
    stand beside them (columns as `quality.read_quality` gives them).
    """

    contexts: tuple[int, ...] = DEFAULT_CONTEXTS
    headroom_bytes: int = DEFAULT_HEADROOM_BYTES
    quality: pd.DataFrame = field(default_factory=lambda: read_quality(PUBLISHED))


@dataclass(frozen=True)
class Published:
    """The files that were written, the page last, and what they recommend."""

    files: list[Path]
    advised: list[Recommendation]


def publish(
    cases: pd.DataFrame,
    boundaries: pd.DataFrame,
    out_dir: Path,
    echo: bool,
    options: ReportOptions | None = None,
    plots: bool = True,
    list_files: bool = True,
    memory: Callable[[], pd.DataFrame] | None = None,
) -> Published:
    """Writes tables and plots of `cases` (each case once, or once a host) and `boundaries` to `out_dir`.

    `memory` reads what each card held; it is asked where a case has several.

    `echo` also prints the tables, and with `list_files` where everything is. What an earlier report wrote there, and
    this one has no more, is removed. Either frame may be empty. Cases that were run to find a boundary are shown as
    that boundary; `cases.csv` has all.
    """
    cases, boundaries = with_whole_cards(cases, boundaries)
    every_case, probes = cases, _probes(boundaries)
    every_boundary = boundaries if boundaries.empty else latest_of_each_host(boundaries, "boundary_id", "finished_at")
    kinds = by_kind(every_case, every_boundary)
    cases, boundaries = kinds.cases, kinds.boundaries
    asked = verdict_report.shown(cases)
    if not boundaries.empty and not cases.empty:
        asked = asked[~cases["case_id"].isin(probes)]
    names = Names.of_frames(cases, boundaries)
    lengths = of_lengths(boundaries)
    found = boundary_report.boundary_tables(lengths, names=names)
    caches, users = cache_tables(of_caches(boundaries), names=names), users_tables(boundaries, names)
    engines = engines_tables(lengths, names)
    echoed = Echo(console_for() if echo else None)
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        with drawing(asked, cases, boundaries, out_dir, names) if plots else nullcontext(_no_pictures) as pictures:
            each_card: list[PlainTable] = []
            if memory is not None and not cases.empty and cases["device_cards"].notna().any():
                each_card = memory_tables(at_boundaries(cases, lengths), memory(), names)
            gained = more_cards_tables(lengths, names)
            spread = spread_tables(kinds.all_cases, kinds.all_boundaries, names)
            speeds = list(speed_tables(of_several_sizes(cases), names=names))
            sections: _Sections = [
                ("How far it goes", found),
                ("How large the cache may be", caches),
                ("How many users", users),
                ("Engine by engine", engines),
                ("What more cards gain", gained),
                ("Case by case", verdict_report.verdict_tables(asked, names=names)),
                ("Card by card", each_card),
                ("Card to card", spread),
                ("How fast, by batch size", speeds),
            ]
            files = [_tables(sections, out_dir / "tables.md", echoed)]
            verdicts = page.readable(verdict_report.verdict_tables(asked, by_attention=True, names=names))
            verdicts_total = card_table_count(asked)
            del asked  # of a million rows hundreds of MB
            told = _advice(cases, lengths, boundaries, out_dir, options or ReportOptions(), names)
            files += told.files
            wiki = cards_tables(found)
            if wiki:
                files.append(_write(out_dir / "cards.md", "\n".join(map(as_markdown, wiki))))
                files.append(_write(out_dir / "cards.csv", without_formulae(cards_frame(found)).to_csv(index=False)))
            if not every_boundary.empty:
                files.append(_write_csv(out_dir / "boundaries.csv", [boundary_report.as_frame(every_boundary)]))
            if not every_case.empty:
                files.append(_write_csv(out_dir / "cases.csv", verdict_report.as_frames(every_case, _CHUNK_ROWS)))
            content = page.Content(
                cases=kinds.every_case,
                boundaries=kinds.every_boundary,
                found=boundary_report.boundary_tables(with_parts(lengths, cases), by_attention=True, names=names),
                caches=caches,
                users=users,
                speeds=speeds,
                engines=engines,
                all_cards=wiki,
                each_card=each_card,
                spread=spread,
                verdicts=verdicts,
                verdicts_total=verdicts_total,
                advised=told.advised,
                folklore=told.folklore,
                fronts=told.fronts,
                naming=told.naming,
            )
            page_file = _write(out_dir / "report.html", page.as_html(content))
            drawn, untold = pictures()
            files += [*drawn, page_file]
            keep_only(out_dir, files)
    except OSError as error:
        raise BadInput(f"{out_dir}: cannot be written ({error.strerror}); choose another folder") from None
    for words in untold:
        print(f"vram-bench: {words}", file=sys.stderr)
    if echo:
        options = options or ReportOptions()
        chosen = advice.with_a_choice(told.advised, _settings(cases, boundaries))
        list(echoed.tables(advice.recommendation_tables(chosen, told.naming), out_dir / "recommendations.md"))
        wanted = WANTED_TOKENS if WANTED_TOKENS in options.contexts else max(options.contexts)
        echoed.best(advice.best_lines(chosen, told.naming, wanted), rule(wanted, options.headroom_bytes))
        echoed.lines(in_short(files) if list_files else ())
    return Published(files, told.advised)


def _no_pictures() -> Pictures:
    return [], []


def _settings(cases: pd.DataFrame, boundaries: pd.DataFrame) -> list[IdentityColumns]:
    """What was asked for, whatever its verdict."""
    return [*distinct(cases, IdentityColumns), *distinct(boundaries, IdentityColumns)]


class _Asked(IdentityColumns, RanAttention):
    """A setting that was asked for, on a card and of a model."""


@dataclass(frozen=True)
class _Advice:
    """What follows from the rows, and the files that say it."""

    files: list[Path]
    advised: list[Recommendation]
    naming: advice.Naming
    folklore: list[Answer]
    fronts: list[PlainTable]


def _advice(
    cases: pd.DataFrame,
    lengths: pd.DataFrame,
    boundaries: pd.DataFrame,
    out_dir: Path,
    options: ReportOptions,
    names: Names,
) -> _Advice:
    """What to run, what people say, and the trade-offs, each in Markdown and CSV; `lengths` are those `boundaries` of
    which the length of jobs was searched.
    """
    release_memory()
    shown_to_fit = evidence(cases, lengths)
    release_memory()
    # Figures of quality are known by a model's name: where that stands for several, nobody knows whose they are.
    quality = options.quality[~options.quality["model"].isin(names.shared)]
    files, fronts = _tradeoffs(shown_to_fit, out_dir, quality, names)
    asked = pd.concat([_questions(cases), _questions(boundaries)], ignore_index=True)
    advised = recommend(shown_to_fit, asked, options.contexts, options.headroom_bytes, untried(cases, lengths))
    naming = advice.Naming.among(names, distinct(shown_to_fit, _Asked))
    said = answers(lengths) if not lengths.empty else []
    advice_rows = without_formulae(advice.as_frame(advised, quality))
    text = advice.as_markdown_page(advised, said, quality, naming)
    told = [
        _write(out_dir / "recommendations.md", text),
        _write(out_dir / "recommendations.csv", advice_rows.to_csv(index=False)),
    ]
    if said:
        told.append(_write(out_dir / "folklore.csv", without_formulae(claims_frame(said)).to_csv(index=False)))
    return _Advice([*told, *files], advised, naming, said, fronts)


def _questions(rows: pd.DataFrame) -> pd.DataFrame:
    """What may be recommended for; nothing can where the engine runs the model on no card."""
    if not rows.empty:
        rows = rows[rows["outcome"] != Outcome.UNSUPPORTED]
    return rows.reindex(columns=[*QUESTION, *LENGTH_LIMIT]).drop_duplicates(QUESTION)


def _tradeoffs(
    shown_to_fit: pd.DataFrame, out_dir: Path, quality: pd.DataFrame, names: Names
) -> tuple[list[Path], list[PlainTable]]:
    points = with_quality(tradeoffs(shown_to_fit), quality)
    fronts = tradeoff_tables.front_tables(points, names)
    files = [_write(out_dir / "tradeoffs.md", tradeoff_tables.as_markdown_page(fronts, has_rows=len(points) > 0))]
    if not points.empty:
        chunks = (points.iloc[at : at + _CHUNK_ROWS] for at in range(0, len(points), _CHUNK_ROWS))
        files.append(_write_csv(out_dir / "tradeoffs.csv", (chunk.drop(columns="notes") for chunk in chunks)))
    return files, fronts


def _probes(boundaries: pd.DataFrame) -> set[str]:
    if boundaries.empty:
        return set()
    return {case_id for case_ids in boundaries["case_ids"] if case_ids is not None for case_id in case_ids}


def _tables(sections: _Sections, path: Path, echoed: Echo) -> Path:
    """The boundaries first, then the cases that were asked for: both may speak of the same card and model.

    Written one by one, as there may be many.
    """
    with path.open("w", encoding="utf-8") as file:
        file.write("# What fits\n")
        for heading, tables in sections:
            for number, table in enumerate(echoed.tables(tables, path)):
                file.write("" if number else f"\n## {heading}\n")
                file.write("\n" + as_markdown(table))
    return path


def _write_csv(path: Path, frames: Iterable[pd.DataFrame]) -> Path:
    """Raw, one frame below the other."""
    write_csv(map(raw, frames), path)
    return path


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path
