"""One HTML file that holds the whole report and needs nothing else, not even a network. The only door to jinja2."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from itertools import islice

import pandas as pd
from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup, escape

from bench.analysis.claims import Answer
from bench.analysis.recommend import Recommendation
from bench.core.case import DEFAULT_ENGINE
from bench.engines.registry import titles
from bench.report.echo import MOST_TABLES
from bench.report.html import cases as page_cases
from bench.report.html import figures as page_figures
from bench.report.html.summary import cards, environments
from bench.report.tables import recommendations as advice
from bench.report.tables.boundaries import BoundaryTable
from bench.report.tables.caches import CacheTable
from bench.report.tables.claims import claims_table
from bench.report.tables.engines import EnginesTable
from bench.report.tables.speeds import SpeedTable
from bench.report.tables.verdicts import VerdictTable
from bench.report.text.plain_table import CardKey, HasCard, PlainTable
from bench.report.text.render import Shown, left_aligned

# A grid of more cells is no picture, and no table that anyone reads.
MOST_CELLS = 4_000
# Nothing is fetched, whatever the rows say: the browser is told to allow no address at all.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' blob:; style-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)


@dataclass(frozen=True, kw_only=True)
class Content:
    """What the page is made of: all cases and boundaries (each once), the tables of both by attention back end as the
    pictures have them (of the verdicts those that are `readable`, of `verdicts_total`), and what follows from the rows.
    """

    cases: pd.DataFrame
    boundaries: pd.DataFrame
    found: Sequence[BoundaryTable]
    caches: Sequence[CacheTable] = ()
    users: Sequence[PlainTable] = ()
    speeds: Sequence[SpeedTable] = ()
    engines: Sequence[EnginesTable] = ()
    all_cards: Sequence[PlainTable]
    each_card: Sequence[PlainTable] = ()
    spread: Sequence[PlainTable] = ()
    verdicts: Sequence[VerdictTable]
    verdicts_total: int
    advised: Sequence[Recommendation]
    folklore: Sequence[Answer]
    fronts: Sequence[PlainTable]
    naming: advice.Naming


@dataclass(frozen=True, kw_only=True)
class _Section:
    """One table with its figures: pairs of a caption and what plotly draws, those of `below` as wide as the page.
    `words` say what needs no figure.
    """

    table: Shown
    figures: list[tuple[str, dict[str, object]]]
    below: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    words: str | None = None


def as_html(content: Content) -> str:
    """The page; each part that has nothing to show says so in words."""
    found = [_boundary_section(table) for table in content.found[:MOST_TABLES]]
    by_engine = [_engines_section(table) for table in content.engines[:MOST_TABLES]]
    verdicts = [_verdict_section(table) for table in content.verdicts]
    advised = advice.recommendation_tables(content.advised, content.naming)
    ways = _ways(
        {
            "How far it goes": ("found", content.found),
            "Engine by engine": ("engines", content.engines),
            "Length by length": ("lengths", content.verdicts),
            "What to run": ("advice", advised),
            "Trade-offs": ("fronts", content.fronts),
        }
    )
    case_table = page_cases.case_table(content.cases, content.naming.names)
    has_figures = any(section.figures or section.below for section in (*found, *by_engine, *verdicts))
    script, style = page_cases.library() if case_table.rows else ("", "")
    return _template().render(
        policy=_POLICY,
        engines=_engines(content),
        made_at=datetime.now(UTC),
        cards=cards(content.cases, content.boundaries, content.naming.names),
        ways=ways,
        all_cards=content.all_cards,
        each_card=content.each_card[:MOST_TABLES],
        spread=content.spread[:MOST_TABLES],
        speeds=content.speeds[:MOST_TABLES],
        speeds_total=len(content.speeds),
        served=[*content.caches, *content.users][:MOST_TABLES],
        served_total=len(content.caches) + len(content.users),
        cases=len(content.cases),
        boundaries=len(content.boundaries),
        found=found,
        found_total=len(content.found),
        by_engine=by_engine,
        by_engine_total=len(content.engines),
        verdicts=verdicts,
        verdicts_total=content.verdicts_total,
        advised=list(zip(advised, advice.copyables(content.advised, content.naming), strict=True))[:MOST_TABLES],
        advised_total=len(advised),
        advised_legend=advised[-1].legend if advised else "",
        folklore=claims_table(content.folklore, content.naming.names) if content.folklore else None,
        fronts=content.fronts[:MOST_TABLES],
        fronts_total=len(content.fronts),
        case_table=case_table,
        most_tables=MOST_TABLES,
        environments=environments(content.cases, content.boundaries, content.naming.names),
        plotly=_inline(page_figures.library()) if has_figures else "",
        datatables=_inline(script),
        datatables_style=Markup(style),
        own_script=Markup(_asset("report.js")),
        own_style=Markup(_asset("report.css")),
    )


def _engines(content: Content) -> str:
    """The titles of the engines that the rows are of; those of before there was a choice do not tell it."""
    told = {name for frame in (content.cases, content.boundaries) for name in frame.get("engine", pd.Series()).dropna()}
    return titles(told or {DEFAULT_ENGINE})


def _ways(parts: dict[str, tuple[str, Sequence[HasCard]]]) -> dict[CardKey, list[tuple[str, str]]]:
    """For each card, where its first table of each of `parts` is: what the link says, and the id of that section."""
    ways: dict[CardKey, dict[str, str]] = {}
    for label, (name, tables) in parts.items():
        for number, table in enumerate(tables[:MOST_TABLES], 1):
            ways.setdefault(table.card_key, {}).setdefault(label, f"{name}-{number}")
    return {key: list(links.items()) for key, links in ways.items()}


def readable(tables: Iterable[VerdictTable]) -> list[VerdictTable]:
    """Those that a page shows."""
    return list(islice((table for table in tables if len(table.lines) * len(table.lengths) <= MOST_CELLS), MOST_TABLES))


def _boundary_section(table: BoundaryTable) -> _Section:
    figures = [("", page_figures.boundary_figure(table))] if table.answered and not table.in_words else []
    memory = page_figures.memory_figure(table)
    below = [] if memory is None else [("Where the memory goes, at the longest that fits", memory)]
    return _Section(table=table, figures=figures, below=below, words=table.in_words)


def _engines_section(table: EnginesTable) -> _Section:
    figures = [(f"{cache} cache", figure) for cache, figure in page_figures.engine_figures(table)]
    return _Section(table=table, figures=[] if table.in_words else figures, words=table.in_words)


def _verdict_section(table: VerdictTable) -> _Section:
    figures = [(f"{cache} cache", figure) for cache, figure in page_figures.verdict_figures(table)]
    return _Section(table=table, figures=figures)


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"left_aligned": left_aligned, "badged": _badged}
    return environment.from_string(_asset("report.html.jinja"))


def _badged(title: str) -> Markup:
    """The title, with the kind of its card where `Names.card_title` says it, to be seen at a glance."""
    badge = r' <span class="kind \1">\1</span> '
    return Markup(re.sub(r" \((simulated|measured)\)(, |$)", badge, str(escape(title)), count=1))


def _asset(name: str) -> str:
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")


def _inline(script: str) -> Markup:
    """A script that nothing in it can end, as HTML looks for these even in JavaScript's strings."""
    return Markup(re.sub(r"<(?=/script|script|!--)", r"\\x3C", script))
