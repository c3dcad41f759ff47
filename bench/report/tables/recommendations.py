"""Recommendations as tables, Markdown and CSV."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, cast

import pandas as pd

from bench.analysis.claims import Answer, is_about
from bench.analysis.evidence import QUESTION, SETTING
from bench.analysis.quality import QualityRow, with_quality
from bench.analysis.recommend import COLUMNS, ESTIMATE_ERROR, MEASURED_ERROR, Policy, Recommendation
from bench.core.case import DEFAULT_ENGINE
from bench.core.columns import CARD, LIMIT, MODEL
from bench.core.columns import SETTING as CHOICE
from bench.core.identity import key_of
from bench.core.identity_columns import IdentityColumns
from bench.engines.base import Chosen, Snippet, wanted_weights
from bench.engines.registry import rules_of, titles
from bench.report.naming.axes import Axes, how
from bench.report.naming.models import Names
from bench.report.naming.questions import Asked, Questions
from bench.report.tables.assumptions import in_words
from bench.report.tables.best import best_answer
from bench.report.tables.best_rule import WANTED_TOKENS
from bench.report.tables.card import OPTIONAL
from bench.report.tables.claims import claims_section
from bench.report.tables.snippets import check_command
from bench.report.text.ends import at_least
from bench.report.text.markdown import list_item, plain_text
from bench.report.text.plain_table import PlainTable, card_key
from bench.report.text.render import as_markdown
from bench.report.text.units import gib, rate, size, tokens

_LEGEND = (
    "quality: the highest bpw that gives this max_seq_len, then the finest cache; fast: among the most tokens/s with "
    "it, as speeds that differ by less than their error ({errors}) count as equal, and flash attention, load and the "
    "most left decide; longest: the longest max_seq_len. All of them leave {headroom} of the card{decisive} "
    "or more. "
    "rests on: a run that fits at this length{certified}; fewer tokens are taken to need no more. "
    "tokens/s: decoding with the context full. "
    "est.: estimated from that run, never measured."
)
_ENGINES_APART = (
    "{engines} each have answers of their own: as many bits per weight are not the same quality with them, and no row "
    "knows which is better."
)
_LOWER_BOUND = "longest: of the lengths tried; longer ones were not tried, use max_seq_len=auto"
# What a policy promises no more than: an estimate cannot tell which is the fastest.
_POLICY_NAMES = {Policy.FASTEST: "fast"}
_PLAIN = ["max_seq_len", "left, GiB", "tokens/s", "rests on"]


@dataclass(frozen=True)
class Naming:
    """What all answers are called: their `names`, the `settings` that were asked for, by their question, and what tells
    `questions` of one model and card apart.
    """

    names: Names
    settings: Mapping[tuple[Any, ...], Sequence[IdentityColumns]]
    questions: Questions

    @classmethod
    def of(cls, answers: Sequence[Recommendation]) -> Naming:
        """Where nothing else was asked for."""
        told = [answer.as_row() for answer in answers if answer.setting is not None]
        return cls.among(Names(answer.identity for answer in answers), cast(list[IdentityColumns], told))

    @classmethod
    def among(cls, names: Names, settings: Sequence[IdentityColumns]) -> Naming:
        """`settings` have the columns QUESTION and SETTING of `results.evidence`."""
        grouped: dict[tuple[Any, ...], list[IdentityColumns]] = {}
        for setting in settings:
            grouped.setdefault(key_of(setting, QUESTION), []).append(setting)
        return cls(names, grouped, Questions(map(Asked.of, settings)))

    def axes(self, answers: Sequence[Recommendation]) -> Axes:
        """What tells the settings apart that were asked for where `answers` stand together."""
        questions = dict.fromkeys(key_of(answer.as_row(), QUESTION) for answer in answers)
        rows = [row for key in questions for row in self.settings.get(key, ())]
        return Axes(rows, [name for name in OPTIONAL if name not in QUESTION], beside=MODEL)


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One length of a setting: what it was `wanted` for, the rows that it `rests_on`, and what checks it."""

    tokens: str
    wanted: str
    rests_on: str
    check: str


@dataclass(frozen=True, kw_only=True)
class Copyable:
    """One setting: its lengths, the longest first, and what to copy for that; `shorter` says how the others differ."""

    title: str
    asks: list[Ask]
    weights: str
    snippets: list[Snippet]
    shorter: str


def copyables(answers: Sequence[Recommendation], naming: Naming | None = None) -> list[list[Copyable]]:
    """What to copy, for each of `recommendation_tables` in their order."""
    naming = naming or Naming.of(answers)
    return [[_as_copyable(alike, naming) for alike in _settings(group)] for group in _groups(answers, _model)]


def recommendation_tables(answers: Sequence[Recommendation], naming: Naming | None = None) -> list[PlainTable]:
    """A table for each card and model, at home in 80 columns; how to read them stands under the last."""
    tables: list[PlainTable] = []
    naming = naming or Naming.of(answers)
    for group in _groups(answers, _model):
        axes = naming.axes(group)
        where = f"{_model_name(group[0], naming)} on {naming.names.card_title(group[0].identity)}"
        lines = [[_wanted(answer), *_cells(answer, axes)] for answer in group]
        notes = [*_reasons(group), *_untried(group)]
        columns, key = ["for", *_columns(axes)], card_key(group[0].identity)
        tables.append(
            PlainTable(
                title=where,
                legend="",
                columns=columns,
                lines=lines,
                notes=notes,
                assumptions=_assumed(group),
                varying=axes.varying,
                card_key=key,
            )
        )
    return [*tables[:-1], *(replace(table, legend=_legend(answers)) for table in tables[-1:])]


def with_a_choice(answers: Sequence[Recommendation], settings: Iterable[IdentityColumns]) -> list[Recommendation]:
    """The answers to questions for which more than one of `settings` was asked for: who asked how far one setting goes
    has nothing to choose.
    """
    asked: dict[tuple[Any, ...], set[tuple[Any, ...]]] = {}
    for setting in settings:
        asked.setdefault(key_of(setting, QUESTION), set()).add(key_of(setting, CHOICE))
    return [answer for answer in answers if len(asked.get(key_of(answer.as_row(), QUESTION), ())) > 1]


def best_lines(
    answers: Sequence[Recommendation], naming: Naming | None = None, wanted_tokens: int = WANTED_TOKENS
) -> list[str]:
    """A line for each card and model."""
    naming = naming or Naming.of(answers)
    groups = _groups(answers, _model)
    lines = [best_answer(group, naming.axes(group), wanted_tokens) for group in groups]
    if len(groups) == 1:
        return lines
    names = [f"{_model_name(group[0], naming)} on {naming.names.card_title(group[0].identity)}" for group in groups]
    return [f"{name}: {line}" for name, line in zip(names, lines, strict=True)]


def as_markdown_page(
    answers: Sequence[Recommendation],
    folklore: Sequence[Answer],
    quality: pd.DataFrame,
    naming: Naming | None = None,
) -> str:
    """A table for each card with all its models, and below it each setting with what to copy."""
    naming = naming or Naming.of(answers)
    known = _known_quality(answers, quality)
    parts = ["# What to run on each card\n"]
    if any(is_about(answer.identity["model"]) for answer in answers):
        parts.append(claims_section(folklore, naming.names))
    for group in _groups(answers, _card):
        has_quality = any(known[id(answer)] for answer in group)
        axes = naming.axes(group)
        columns = ["model", "for", *_columns(axes), *(["quality"] if has_quality else []), "basis"]
        lines = [
            [
                _model_name(answer, naming),
                _wanted(answer),
                *_cells(answer, axes),
                *([known[id(answer)] or "–"] if has_quality else []),
                answer.rests_on,
            ]
            for answer in group
        ]
        notes = [f"{_model_name(a, naming)}, {_wanted(a)}: {a.reason}" for a in group if a.reason]
        notes += [f"{_model_name(a, naming)}, {_LOWER_BOUND}" for a in group if a.is_lower_bound]
        table = PlainTable(
            title=naming.names.card_title(group[0].identity),
            legend=_legend(group),
            columns=columns,
            lines=lines,
            notes=notes,
            assumptions=_assumed(group),
        )
        parts.append(as_markdown(table).replace("### ", "## ", 1))
        parts += [_copyable(alike, naming) for alike in _settings(group)]
    return "\n".join(parts)


def as_frame(answers: Sequence[Recommendation], quality: pd.DataFrame) -> pd.DataFrame:
    """The answers for CSV, raw; `basis` and `check_command` in words, the columns of `quality` last."""
    records = [
        {
            **answer.as_row(),
            "assumed": "; ".join(answer.assumed),
            "basis": answer.basis,
            "check_command": None if answer.max_seq_len is None else check_command(answer),
        }
        for answer in answers
    ]
    frame = pd.DataFrame(records, columns=[*COLUMNS, "basis", "check_command"])
    whole = [name for name in COLUMNS if name.endswith(("_bytes", "_len", "_at", "_context"))]
    whole += ["batch_size", "head_bits"]
    return with_quality(frame.astype(dict.fromkeys(whole, "Int64")), quality)


def _legend(answers: Sequence[Recommendation]) -> str:
    certified = ", + where it is certified that 256 more fail" if any(answer.fails_at for answer in answers) else ""
    several = any(answer.identity["device_cards"] for answer in answers)
    bases = {answer.tokens_per_s_basis for answer in answers} - {None}
    errors = [f"estimated {ESTIMATE_ERROR:.0%}"] if "estimated" in bases or not bases else []
    errors += [f"measured {MEASURED_ERROR:.0%}"] if bases - {"estimated"} else []
    engines = {answer.engine or DEFAULT_ENGINE for answer in answers}
    legend = _LEGEND.format(
        headroom=size(answers[0].demanded_headroom_bytes),
        certified=certified,
        decisive=" (of several: of the one that decides)" if several else "",
        errors=", ".join(errors).replace("%", " %"),
    )
    return legend if len(engines) < 2 else f"{legend} {_ENGINES_APART.format(engines=titles(engines))}"


def _row(answer: Recommendation) -> IdentityColumns:
    """The setting with its card and model; the attention is both the one that ran and the one asked for."""
    return cast(IdentityColumns, answer.as_row())


def _columns(axes: Axes) -> list[str]:
    return ["bpw", "cache", "how", *axes.varying, *_PLAIN]


def _cells(answer: Recommendation, axes: Axes) -> list[str]:
    setting = answer.setting
    if setting is None or answer.max_seq_len is None:
        return ["", "", "", *("" for _ in axes.varying), "–" if answer.is_unknown else "none", "", "", ""]
    return [
        axes.bits(setting),
        setting["cache"],
        how(setting),
        *axes.cells(_row(answer)),
        at_least(answer.max_seq_len) if answer.is_lower_bound else tokens(answer.max_seq_len),
        _estimated(gib(answer.headroom_bytes), answer.headroom_basis == "estimated"),
        _estimated(rate(answer.tokens_per_s), answer.tokens_per_s_basis in ("estimated", "interpolated")),
        tokens(answer.row_max_seq_len) + ("+" if answer.fails_at else ""),
    ]


def _estimated(text: str, is_estimated: bool) -> str:
    return f"{text} est." if is_estimated and text != "–" else text


def _wanted(answer: Recommendation) -> str:
    name = _POLICY_NAMES.get(answer.policy) or str(answer.policy)
    return name if answer.wanted_context is None else f"{name}, {answer.wanted_context:,}"


def _reasons(group: Sequence[Recommendation]) -> list[str]:
    """Why there is no answer, each reason once: without what it is of where that is all that the table tells."""
    lacking: dict[str, list[str]] = {}
    for answer in group:
        if answer.reason:
            lacking.setdefault(answer.reason, []).append(_wanted(answer))
    if len(group) > 1 and [len(names) for names in lacking.values()] == [len(group)]:
        return list(lacking)
    return [f"{'; '.join(names)}: {reason}" for reason, names in lacking.items()]


def _untried(group: Sequence[Recommendation]) -> list[str]:
    return [_LOWER_BOUND] if any(answer.is_lower_bound for answer in group) else []


def _assumed(group: Sequence[Recommendation]) -> list[str]:
    return in_words(note for answer in group for note in answer.assumed)


def _copyable(alike: list[Recommendation], naming: Naming) -> str:
    """One setting: at which lengths, the rows that these rest on, how to check them, and once what to copy."""
    told = _as_copyable(alike, naming)
    return "\n".join(
        [
            f"### {plain_text(told.title)}\n",
            *(list_item(plain_text(f"{ask.tokens} tokens, for {ask.wanted}: {ask.rests_on}")) for ask in told.asks),
            list_item(f"check it on your card, DIR being {plain_text(told.weights)}:"),
            "",
            *("  ```sh", *(f"  {ask.check}" for ask in told.asks), "  ```", ""),
            f"<details><summary>to copy{told.shorter}</summary>\n",
            *(f"```{each.language}\n{each.text}\n```\n" for each in told.snippets),
            "</details>\n",
        ]
    )


def _as_copyable(alike: list[Recommendation], naming: Naming) -> Copyable:
    """`alike` are the answers of one setting."""
    by_length: dict[int, list[Recommendation]] = {}
    for each in sorted(alike, key=lambda each: -(each.max_seq_len or 0)):
        by_length.setdefault(each.max_seq_len or 0, []).append(each)
    answer = next(iter(by_length.values()))[0]
    axes, setting = naming.axes([answer]), answer.setting
    assert setting is not None  # only what is recommended can be copied
    told = [f"{axes.bits(setting)} bpw", f"{setting['cache']} cache", how(setting), *axes.others(_row(answer))]
    length = answer.max_seq_len or 0
    if answer.best_split is not None:  # it is the best one at the row's own length
        setting, length = {**setting, "split": f"gpu_split({answer.best_split[1:-1]})"}, answer.row_max_seq_len or 0
    chosen = Chosen(answer.identity["model"], setting, answer.batch_size or 1, length)
    lengths = [tokens(length) for length in by_length]
    shorter = f"; for {' or '.join(lengths[1:])} tokens write that length" if lengths[1:] else ""
    return Copyable(
        title=f"{_model_name(answer, naming)}: {', '.join(told)}, {' and '.join(lengths)} tokens",
        asks=[_ask(length, of) for length, of in by_length.items()],
        weights=wanted_weights(chosen),
        snippets=rules_of(setting["engine"] or DEFAULT_ENGINE).snippets(chosen),
        shorter=f", with {lengths[0]} tokens{shorter}" if shorter else "",
    )


def _ask(length: int, alike: list[Recommendation]) -> Ask:
    """`alike` are the answers of one setting at one length."""
    answer = alike[0]
    rows = [f"case {answer.case_id}"] if answer.case_id else []
    rows += [f"boundary {answer.boundary_id}"] if answer.boundary_id else []
    return Ask(
        tokens=tokens(length),
        wanted="; ".join(map(_wanted, alike)),
        rests_on=f"{answer.rests_on}; {answer.attention or 'unknown'} attention; rows of run {answer.run_id}: "
        f"{', '.join(rows) or 'unnamed'}",
        check=check_command(answer),
    )


def _settings(group: Sequence[Recommendation]) -> list[list[Recommendation]]:
    """The answers of each setting, together."""
    alike: dict[tuple[Any, ...], list[Recommendation]] = {}
    for answer in group:
        if answer.max_seq_len is not None:
            alike.setdefault(key_of(answer.as_row(), [*QUESTION, *SETTING]), []).append(answer)
    return list(alike.values())


def _known_quality(answers: Sequence[Recommendation], quality: pd.DataFrame) -> dict[int, str]:
    figures = {
        (row["model"], row["bpw"], row["cache"], row["engine"]): row
        for row in cast(list[QualityRow], quality.to_dict("records"))
    }
    known = {}
    for answer in answers:
        setting = answer.setting
        engine = answer.engine or DEFAULT_ENGINE
        row = setting and figures.get((answer.identity["model"], setting["bpw"], setting["cache"], engine))
        metric = "" if row is None or pd.isna(row["quality_metric"]) else f" {row['quality_metric']}"
        known[id(answer)] = "" if row is None else f"{row['quality']:g}{metric}"
    return known


def _groups(answers: Sequence[Recommendation], key: Any) -> list[list[Recommendation]]:
    """In the order of the answers, real cards first."""
    ordered = sorted(answers, key=lambda answer: [(value is not None, value) for value in key(answer)])
    return [list(group) for _, group in groupby(ordered, key)]


def _card(answer: Recommendation) -> tuple[Any, ...]:
    card = answer.identity
    limit = card["vram_limit_bytes"] or card["device_total_bytes"]
    return card["device_kind"], limit, *key_of(card, (*CARD, *LIMIT))


def _model(answer: Recommendation) -> tuple[Any, ...]:
    return (*_card(answer), *key_of(answer.identity, MODEL), *Asked.of(vars(answer)))


def _model_name(answer: Recommendation, naming: Naming) -> str:
    return naming.names.model(answer.identity) + naming.questions.words(Asked.of(vars(answer)))
