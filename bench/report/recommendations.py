"""Recommendations and what people say, as tables, Markdown and CSV."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import pandas as pd

from bench.report.card_table import how
from bench.report.format import gib, rate, size, tokens
from bench.report.plain_table import PlainTable, card_title
from bench.report.render import as_markdown
from bench.report.snippets import check_command, exllamav2, tabbyapi, weights
from bench.results.folklore import Answer
from bench.results.quality import with_quality
from bench.results.recommend import ESTIMATE_ERROR, MEASURED_ERROR, Recommendation

_LEGEND = (
    "quality: the highest bpw that gives this max_seq_len, then the finest cache; fastest: the most tokens/s with it, "
    "where speeds that differ by less than their error ({errors}) count as equal: flash attention, load and the most "
    "left decide; longest: the longest max_seq_len. All of them leave {headroom} of the card or more. "
    "rests on: a run that fits at this length{certified}; fewer tokens are taken to need no more. "
    "tokens/s: decoding with the context full. "
    "est.: estimated from that run, never measured."
)
_PLAIN = ["bpw", "cache", "how", "max_seq_len", "left, GiB", "tokens/s", "rests on"]


@dataclass(frozen=True, kw_only=True)
class Copyable:
    """One setting at one length: what it was `wanted` for, the rows that it `rests_on`, and what to copy."""

    title: str
    wanted: str
    rests_on: str
    weights: str
    check: str
    python: str
    yaml: str


def copyables(answers: Sequence[Recommendation]) -> list[list[Copyable]]:
    """What to copy, for each of `recommendation_tables` in their order."""
    return [[_as_copyable(alike) for alike in _settings(group)] for group in _groups(answers, _model)]


def recommendation_tables(answers: Sequence[Recommendation]) -> list[PlainTable]:
    """A table for each card and model, at home in 80 columns; how to read them stands under the last."""
    tables: list[PlainTable] = []
    for group in _groups(answers, _model):
        where = f"{_model_name(group[0])} on {_card_title(group[0])}"
        notes = [f"{name}: {answer.reason}" for answer in group if (name := _wanted(answer)) and answer.reason]
        lines = [[_wanted(answer), *_cells(answer)] for answer in group]
        notes = [*_same_reason(notes, group), *_assumed(group)]
        tables.append(PlainTable(title=where, legend="", columns=["for", *_PLAIN], lines=lines, notes=notes))
    return [*tables[:-1], *(replace(table, legend=_legend(answers)) for table in tables[-1:])]


def as_markdown_page(
    answers: Sequence[Recommendation], folklore: Sequence[Answer], quality: pd.DataFrame, has_boundaries: bool
) -> str:
    """A table for each card with all its models, and below it each setting with what to copy."""
    known = _known_quality(answers, quality)
    parts = ["# What to run on each card\n", folklore_section(folklore, has_boundaries)]
    for group in _groups(answers, _card):
        has_quality = any(known[id(answer)] for answer in group)
        columns = ["model", "for", *_PLAIN, *(["quality"] if has_quality else []), "basis"]
        lines = [
            [
                _model_name(answer),
                _wanted(answer),
                *_cells(answer),
                *([known[id(answer)] or "–"] if has_quality else []),
                answer.basis,
            ]
            for answer in group
        ]
        notes = [f"{_model_name(a)}, {_wanted(a)}: {a.reason}" for a in group if a.reason]
        title = _card_title(group[0])
        table = PlainTable(title=title, legend=_legend(group), columns=columns, lines=lines, notes=notes)
        parts.append(as_markdown(table).replace("### ", "## ", 1))
        parts += [_copyable(alike) for alike in _settings(group)]
    return "\n".join(parts)


def as_frame(answers: Sequence[Recommendation], quality: pd.DataFrame) -> pd.DataFrame:
    """The answers for CSV, raw; `basis` and `check_command` in words, the columns of `quality` last."""
    fields = [field.name for field in dataclasses.fields(Recommendation)]
    records = [
        {
            **{name: getattr(answer, name) for name in fields},
            "assumed": "; ".join(answer.assumed),
            "basis": answer.basis,
            "check_command": None if answer.max_seq_len is None else check_command(answer),
        }
        for answer in answers
    ]
    frame = pd.DataFrame(records, columns=[*fields, "basis", "check_command"])
    whole = [name for name in fields if name.endswith(("_bytes", "_len", "_at", "_context"))]
    whole += ["batch_size", "head_bits"]
    return with_quality(frame.astype(dict.fromkeys(whole, "Int64")), quality)


def folklore_section(answers: Sequence[Answer], has_boundaries: bool) -> str:
    """What people say of 24 GB and 40 GB cards, answered by certified boundaries; or why it is not."""
    if not answers:
        why = "none is of a 24 GB or a 40 GB card" if has_boundaries else "there are none among these rows"
        return f"## What people say\n\n24 GB: 2,048? 40 GB: 4,096 or more? Only certified boundaries answer; {why}.\n"
    table = folklore_table(answers)
    return as_markdown(table).replace("### ", "## ", 1)


def folklore_table(answers: Sequence[Answer]) -> PlainTable:
    lines = [
        [
            str(answer.saying),
            _folklore_card(answer),
            str(answer.least["model"]),
            _end(answer.least),
            _end(answer.most),
            answer.verdict,
        ]
        for answer in answers
    ]
    return PlainTable(
        title="What people say",
        legend="The largest max_seq_len of the settings that were searched, each certified: the least and the most.",
        columns=["saying", "card", "model", "least", "most", "so the saying"],
        lines=lines,
    )


def folklore_frame(answers: Sequence[Answer]) -> pd.DataFrame:
    """The same for CSV, raw, with the rows that it rests on."""
    named = ("device_kind", "device_name", "device_total_bytes", "vram_limit_bytes", "model", "model_fingerprint")
    ends = ("fits_at", "bpw", "cache", "lazy", "run_id", "boundary_id")
    records = [
        {
            "saying": str(answer.saying),
            **{name: answer.least[name] for name in named},
            "settings": answer.settings,
            "reaching": answer.reaching,
            "verdict": answer.verdict,
            **{f"least_{name}": answer.least[name] for name in ends},
            **{f"most_{name}": answer.most[name] for name in ends},
        }
        for answer in answers
    ]
    frame = pd.DataFrame(records)
    whole = [name for name in map(str, frame.columns) if name.endswith(("_bytes", "fits_at"))]
    return frame.astype(dict.fromkeys(whole, "Int64"))


def _legend(answers: Sequence[Recommendation]) -> str:
    certified = ", + where it is certified that 256 more fail" if any(answer.fails_at for answer in answers) else ""
    bases = {answer.tokens_per_s_basis for answer in answers} - {None}
    errors = [f"estimated {ESTIMATE_ERROR:.0%}"] if "estimated" in bases or not bases else []
    errors += [f"measured {MEASURED_ERROR:.0%}"] if bases - {"estimated"} else []
    return _LEGEND.format(
        headroom=size(answers[0].demanded_headroom_bytes),
        certified=certified,
        errors=", ".join(errors).replace("%", " %"),
    )


def _cells(answer: Recommendation) -> list[str]:
    if answer.max_seq_len is None:
        return ["", "", "", "none", "", "", ""]
    return [
        f"{answer.bpw:g}",
        str(answer.cache),
        how(vars(answer)),
        tokens(answer.max_seq_len),
        _estimated(gib(answer.headroom_bytes), answer.headroom_basis == "estimated"),
        _estimated(rate(answer.tokens_per_s), answer.tokens_per_s_basis in ("estimated", "interpolated")),
        tokens(answer.row_max_seq_len) + ("+" if answer.fails_at else ""),
    ]


def _estimated(text: str, is_estimated: bool) -> str:
    return f"{text} est." if is_estimated and text != "–" else text


def _wanted(answer: Recommendation) -> str:
    return str(answer.policy) if answer.wanted_context is None else f"{answer.policy}, {answer.wanted_context:,}"


def _same_reason(notes: list[str], group: Sequence[Recommendation]) -> list[str]:
    """One line where the whole table has no answer, for one reason."""
    reasons = {answer.reason for answer in group}
    return [str(group[0].reason)] if len(reasons) == 1 and len(notes) > 1 else notes


def _assumed(group: Sequence[Recommendation]) -> list[str]:
    return sorted({note for answer in group for note in answer.assumed})


def _copyable(alike: list[Recommendation]) -> str:
    """One setting at one length, the rows that it rests on, how to check it, and what to copy."""
    told = _as_copyable(alike)
    return "\n".join(
        [
            f"### {told.title}\n",
            f"- for {told.wanted}",
            f"- {told.rests_on}",
            f"- check it on your card, DIR being {told.weights}: `{told.check}`\n",
            "<details><summary>to copy</summary>\n",
            f"```python\n{told.python}\n```\n",
            f"```yaml\n{told.yaml}\n```\n",
            "</details>\n",
        ]
    )


def _as_copyable(alike: list[Recommendation]) -> Copyable:
    answer = alike[0]
    rows = [f"case {answer.case_id}"] if answer.case_id else []
    rows += [f"boundary {answer.boundary_id}"] if answer.boundary_id else []
    attention = answer.attention or "unknown"
    return Copyable(
        title=f"{_model_name(answer)}: {answer.bpw:g} bpw, {answer.cache} cache, {how(vars(answer))}, "
        f"{tokens(answer.max_seq_len)} tokens",
        wanted="; ".join(_wanted(each) for each in alike),
        rests_on=f"{answer.basis}; {attention} attention; rows of run {answer.run_id}: {', '.join(rows) or 'unnamed'}",
        weights=weights(answer),
        check=check_command(answer),
        python=exllamav2(answer),
        yaml=tabbyapi(answer),
    )


def _settings(group: Sequence[Recommendation]) -> list[list[Recommendation]]:
    """The answers that say the same, together."""
    alike: dict[tuple[Any, ...], list[Recommendation]] = {}
    for answer in group:
        if answer.max_seq_len is not None:
            setting = (answer.bpw, answer.head_bits, answer.cache, answer.lazy, answer.attention, answer.max_input_len)
            alike.setdefault((*_model(answer), *setting, answer.max_seq_len), []).append(answer)
    return list(alike.values())


def _known_quality(answers: Sequence[Recommendation], quality: pd.DataFrame) -> dict[int, str]:
    figures = {(row["model"], row["bpw"], row["cache"]): row for row in quality.to_dict("records")}
    known = {}
    for answer in answers:
        row = figures.get((answer.model, answer.bpw, answer.cache))
        metric = "" if row is None or pd.isna(row["quality_metric"]) else f" {row['quality_metric']}"
        known[id(answer)] = "" if row is None else f"{row['quality']:g}{metric}"
    return known


def _groups(answers: Sequence[Recommendation], key: Any) -> list[list[Recommendation]]:
    """In the order of the answers, real cards first."""
    ordered = sorted(answers, key=lambda answer: [(value is not None, value) for value in key(answer)])
    return [list(group) for _, group in groupby(ordered, key)]


def _card(answer: Recommendation) -> tuple[Any, ...]:
    limit = answer.vram_limit_bytes or answer.device_total_bytes
    return answer.device_kind, limit, answer.device_name, answer.device_uuid, answer.vram_limit_bytes


def _model(answer: Recommendation) -> tuple[Any, ...]:
    return (*_card(answer), answer.model, answer.model_fingerprint, answer.batch_size)


def _card_title(answer: Recommendation) -> str:
    return card_title(
        answer.device_name, answer.device_kind, answer.device_total_bytes, answer.vram_limit_bytes, answer.device_uuid
    )


def _model_name(answer: Recommendation) -> str:
    batch = "" if answer.batch_size in (None, 1) else f" (batch of {answer.batch_size})"
    return answer.model + batch


def _folklore_card(answer: Answer) -> str:
    row = answer.least
    what = "simulated" if row["device_kind"] == "simulated" else "measured"
    limit = "" if row["vram_limit_bytes"] is None else f", limited to {size(row['vram_limit_bytes'])}"
    return f"{row['device_name']} ({what}{limit})"


def _end(row: dict[str, Any]) -> str:
    if row["fits_at"] is None:
        return f"none ({row['bpw']:g} bpw, {row['cache']}, {how(row)})"
    most = " max" if row["fits_at"] == row["native_max_seq_len"] else ""
    return f"{tokens(row['fits_at'])}{most} ({row['bpw']:g} bpw, {row['cache']}, {how(row)})"
