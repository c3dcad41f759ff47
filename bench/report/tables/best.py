"""The one setting of each card and model that answers most questions, in a line: by one rule, whatever it rests on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import pandas as pd

from bench.analysis.asked import DEFAULT_HEADROOM_BYTES
from bench.analysis.evidence import LENGTH_LIMIT, QUESTION, evidence
from bench.analysis.recommend import Policy, Recommendation, recommend
from bench.core.columns import SETTING
from bench.core.identity import key_of
from bench.core.identity_columns import SettingColumns
from bench.core.outcome import Outcome
from bench.report.forecasts import ForecastRow
from bench.report.naming.axes import OPTIONAL, Axes, how
from bench.report.naming.cards import kind_word
from bench.report.naming.questions import Asked, Questions
from bench.report.tables.best_rule import WANTED_TOKENS
from bench.report.tables.card import Line
from bench.report.text.units import gib, size, tokens

_WITHIN_A_QUESTION = [name for name in OPTIONAL if name not in QUESTION]


def best_forecasts(rows: Iterable[ForecastRow], axes: Axes) -> list[str]:
    """`best: 5 bpw, Q4 cache, load, 32,768 tokens, 0.8 GiB left (predicted)`, of the rows of one card and model: a line
    for each engine and batch size, as those are not compared, and none where there is nothing to choose from.

    `axes` name what else varies among them. What is predicted is held to what holds for rows that were run.
    """
    rows = [row for row in rows if row.unsupported is None]  # of these there is nothing to choose on any card
    if not rows:
        return []
    # As a sweep would write them down if every prediction came true.
    asked = pd.DataFrame([_as_row(row) for row in rows])
    answers = recommend(evidence(asked, pd.DataFrame()), asked, (WANTED_TOKENS,))
    groups = [list(group) for _, group in groupby(answers, lambda answer: key_of(answer.as_row(), QUESTION))]
    questions = Questions(Asked.of(vars(group[0])) for group in groups)
    lines = []
    for group in groups:
        question = key_of(group[0].as_row(), QUESTION)
        asked_of = [row for row in rows if key_of(row.identity, QUESTION) == question]
        if len({key_of(row.identity, SETTING) for row in asked_of}) < 2:
            continue
        own = axes if len(groups) == 1 else Axes((row.identity for row in asked_of), _WITHIN_A_QUESTION)
        line = best_answer(group, own, basis="predicted")
        if not any(row.fits for row in asked_of):
            line = "best: nothing is predicted to fit"
        elif all(answer.max_seq_len is None for answer in group):
            line = f"best: none: nothing that is predicted to fit leaves {size(DEFAULT_HEADROOM_BYTES)}"
        apart = questions.apart(Asked.of(vars(group[0])))
        lines.append(": ".join([*apart, line]))
    return lines


def _as_row(row: ForecastRow) -> dict[str, Any]:
    """The columns of a case that recommendations rest on."""
    parts = row.parts or {}
    return {
        **row.identity,
        "attention": row.identity["attention_requested"],
        **dict(zip(LENGTH_LIMIT, (row.native_max_seq_len, row.native_max_seq_len_basis), strict=True)),
        "max_seq_len": row.max_seq_len,
        "outcome": Outcome.FITS if row.fits else Outcome.OOM if row.fits is False else Outcome.ERROR,
        "peak_device_bytes": row.predicted_peak_device_bytes,
        "peak_reserved_bytes": row.predicted_peak_reserved_bytes,
        "tightest_headroom_bytes": row.headroom_bytes if row.identity["device_cards"] is not None else None,
        **{name: parts.get(name) for name in ("context_bytes", "weights_bytes", "cache_bytes")},
        "estimated_decode_tokens_per_s": row.estimated_decode_tokens_per_s,
    }


def best_answer(
    answers: Sequence[Recommendation], axes: Axes, wanted_tokens: int = WANTED_TOKENS, basis: str | None = None
) -> str:
    """The same of the recommendations for one card and model, which rest on rows, or on another `basis`."""
    quality = [
        answer
        for answer in answers
        if answer.policy is Policy.QUALITY
        and answer.max_seq_len is not None
        and answer.wanted_context == _wanted(answer.native_max_seq_len, wanted_tokens)
    ]
    longest = [answer for answer in answers if answer.policy is Policy.LONGEST]
    for best in [*quality, *longest]:
        if best.max_seq_len is not None and best.setting is not None:
            setting: Line = {**best.setting, "attention": best.attention}
            return _line(setting, axes, best.max_seq_len, best.headroom_bytes, basis or kind_word(best.identity))
    return f"best: {'not known' if longest[0].is_unknown else 'none'}: {longest[0].reason}"


def _line(setting: SettingColumns, axes: Axes, length: int, left: int | None, basis: str) -> str:
    words = [f"{axes.bits(setting)} bpw", f"{setting['cache']} cache", how(setting), *axes.others(setting)]
    return f"best: {', '.join(words)}, {tokens(length)} tokens, {gib(left)} GiB left ({basis})"


def _wanted(native: int | None, wanted_tokens: int = WANTED_TOKENS) -> int:
    return min(wanted_tokens, native or wanted_tokens)
