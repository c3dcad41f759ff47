"""The one setting of each card and model that answers most questions, in a line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.analysis.recommend import DEFAULT_HEADROOM_BYTES, Policy, Recommendation
from bench.core.case import CACHES
from bench.core.identity_columns import SettingColumns
from bench.report.forecasts import ForecastRow
from bench.report.naming.axes import Axes, how
from bench.report.naming.cards import kind_word
from bench.report.tables.card import Line
from bench.report.text.units import gib, size, tokens

WANTED_TOKENS = 32768


def rule(wanted_tokens: int = WANTED_TOKENS, headroom_bytes: int = DEFAULT_HEADROOM_BYTES) -> str:
    """What `best` means of recommendations, for the length and the headroom that were asked for."""
    return f"{_rule(wanted_tokens, headroom_bytes)} that leaves as much."


def _rule(wanted_tokens: int, headroom_bytes: int) -> str:
    return (
        f"best: the highest bpw, then the finest cache, that fits {wanted_tokens:,} tokens (or all that the model "
        f"takes, where that is less) and leaves {size(headroom_bytes)}; where none does, the longest"
    )


FORECAST_RULE = f"{_rule(WANTED_TOKENS, DEFAULT_HEADROOM_BYTES)}."


def best_forecast(rows: Iterable[ForecastRow], axes: Axes) -> str:
    """`best: 5 bpw, Q4 cache, load, 32,768 tokens, 0.8 GiB left (predicted)`, of the rows of one card and model.

    `axes` name what else varies among them.
    """
    fitting = [row for row in rows if row.fits and row.max_seq_len is not None and row.headroom_bytes is not None]
    if not fitting:
        return "best: nothing is predicted to fit"
    able = [
        (row, left)
        for row in fitting
        if (row.max_seq_len or 0) >= _wanted(row.native_max_seq_len)
        and (left := _left(row, _wanted(row.native_max_seq_len))) >= DEFAULT_HEADROOM_BYTES
    ]
    if able:
        row, left = max(able, key=lambda one: (*_fineness(one[0]), one[1], not one[0].identity["lazy"]))
        length = _wanted(row.native_max_seq_len)
    else:
        row = max(fitting, key=lambda one: (one.max_seq_len or 0, *_fineness(one), not one.identity["lazy"]))
        length, left = row.max_seq_len or 0, row.headroom_bytes or 0
    return _line(row.identity, axes, length, left, "predicted")


def best_answer(answers: Sequence[Recommendation], axes: Axes, wanted_tokens: int = WANTED_TOKENS) -> str:
    """The same of the recommendations for one card and model, which rest on rows."""
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
            return _line(setting, axes, best.max_seq_len, best.headroom_bytes, kind_word(best.identity))
    return f"best: none: {longest[0].reason}"


def _line(setting: SettingColumns, axes: Axes, length: int, left: int | None, basis: str) -> str:
    words = [f"{axes.bits(setting)} bpw", f"{setting['cache']} cache", how(setting), *axes.others(setting)]
    return f"best: {', '.join(words)}, {tokens(length)} tokens, {gib(left)} GiB left ({basis})"


def _wanted(native: int | None, wanted_tokens: int = WANTED_TOKENS) -> int:
    return min(wanted_tokens, native or wanted_tokens)


def _left(row: ForecastRow, length: int) -> int:
    """What is left of the card at `length`, at most the row's own: the cache that is not made is free, too."""
    own = row.max_seq_len or length
    cache_bytes = (row.parts or {}).get("cache_bytes", 0)
    return (row.headroom_bytes or 0) + cache_bytes * (own - length) // own


def _fineness(row: ForecastRow) -> tuple[float, int, int]:
    setting = row.identity
    return setting["bpw"], -CACHES.index(setting["cache"]), setting["head_bits"] or 0
