"""The best settings for each card and model, under a stated policy. Pure: evidence in, recommendations out.

A recommendation rests on a row: a case that fits, or a certified boundary, at the recommended length or above it. What
is predicted only is never recommended.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypedDict, cast

import pandas as pd

from bench.analysis.asked import DEFAULT_CONTEXTS, DEFAULT_HEADROOM_BYTES
from bench.analysis.evidence import (
    LENGTH_LIMIT,
    QUESTION,
    SETTING,
    headroom_at,
    reach,
    speed_at,
    without_defaults,
)
from bench.core import columns
from bench.core.caches import finest_first
from bench.core.identity import is_simulated
from bench.core.identity_columns import CardColumns, IdentityColumns, NamedColumns, RanAttention, SettingColumns

_WHOLE = ("native_max_seq_len", "batch_size", "device_multi_processor_count")
# By how much two speeds must differ to say which is faster: the worst error of an estimate that was checked
# (docs/speed.md), and for measured ones what `compare` takes for noise by default.
ESTIMATE_ERROR = 0.29
MEASURED_ERROR = 0.05
# Which attention is taken of settings that are as good: flash copies nothing and pages, the engine's SDPA has no
# causal mask. `auto`, of what was not run, is whichever of these the card can run.
_ATTENTION = {"auto": 3, "flash": 3, "triton": 3, "xformers": 2, "matmul": 1}


# Of settings that are otherwise as good, the larger of what else there is to choose.
_AT_LAST = [name for name in SETTING if name not in (*columns.WEIGHTS, "cache", "lazy", "attention")]


class _Question(NamedColumns):
    """What is asked: of which card, model and engine, how many sequences at a time, and what is done with them; NaN for
    None, as pandas has it.
    """

    batch_size: int | None
    engine: str | None
    scenario: str | None
    vision: bool | None
    native_max_seq_len: int | None


class _Best(IdentityColumns, RanAttention):
    """A row of the evidence at one `length`, with what was `left` there; NaN for None, as pandas has it."""

    question: int
    length: float
    left: float
    is_own: bool
    tokens_per_s: float
    tokens_per_s_basis: str
    max_seq_len: int
    fails_at: float
    certified: bool
    notes: object
    run_id: str
    best_split: str | None
    case_id: str | None
    boundary_id: str | None


class _Summary(TypedDict):
    """Of all rows to one question: how many tell what was left of the card, and how far they reach."""

    told: int
    reach: float


class Policy(StrEnum):
    """What is best."""

    QUALITY = "quality"  # the highest bpw that gives the wanted context, then the finest cache
    FASTEST = "fastest"  # the most tokens/s with the wanted context, as far as the speeds can tell
    LONGEST = "longest"  # the longest context, then as QUALITY


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """One answer for a card and a model (`identity`) with an `engine`: a `setting`, the `attention` that it ran with.
    Where there is none, they and what follows are None, and `reason` says why.

    `wanted_context` is None for the longest; else at most the model's own limit. `headroom_bytes` is what is left of
    the card at `max_seq_len`, by `headroom_basis`: `measured` or `simulated` of the row itself, `estimated` from a
    longer row's. `tokens_per_s` is at the end of that context, by `tokens_per_s_basis` (see `evidence.speed_at`). The
    row that it rests on fits at `row_max_seq_len`: `case_id`, `boundary_id` (certified) or both. `best_split` is what
    was run there, where `split=best` was asked for: other lengths may want another.
    `is_lower_bound` of the longest: some setting may go further, but was not tried there. `is_unknown`: there is no
    answer because the rows do not tell, not because no setting gives it.
    """

    identity: NamedColumns
    native_max_seq_len: int | None
    batch_size: int | None
    engine: str | None
    scenario: str | None = None
    vision: bool | None = None
    policy: Policy
    wanted_context: int | None
    demanded_headroom_bytes: int
    reason: str | None = None
    setting: SettingColumns | None = None
    attention: str | None = None
    max_seq_len: int | None = None
    headroom_bytes: int | None = None
    headroom_basis: str | None = None
    tokens_per_s: float | None = None
    tokens_per_s_basis: str | None = None
    row_max_seq_len: int | None = None
    certified: bool | None = None
    fails_at: int | None = None
    run_id: str | None = None
    best_split: str | None = None
    case_id: str | None = None
    boundary_id: str | None = None
    assumed: tuple[str, ...] = ()
    is_lower_bound: bool = False
    is_unknown: bool = False

    def as_row(self) -> dict[str, object]:
        """All of it side by side, the card and the model first; a setting that there is none of is None."""
        told = {**self.identity, **(self.setting or {}), **vars(self)}
        return {name: told.get(name) for name in COLUMNS}

    @property
    def basis(self) -> str:
        """What the line rests on, in words, and what that takes for granted."""
        return ", ".join([self.rests_on, *(self.assumed if self.max_seq_len is not None else ())])

    @property
    def rests_on(self) -> str:
        """What the line rests on, in words."""
        kind = _kind(self.identity)
        if self.max_seq_len is None:
            return kind
        parts = [kind, f"{'certified' if self.certified else 'fits'} at {self.row_max_seq_len:,}"]
        parts += ["headroom estimated"] if self.headroom_basis == "estimated" else []
        parts += [f"tokens/s {self.tokens_per_s_basis}"] if self.tokens_per_s_basis not in (None, "measured") else []
        return ", ".join(parts)


# Those of a recommendation as a row, in their order.
_OWN = [field.name for field in dataclasses.fields(Recommendation) if field.name not in ("identity", "setting")]
COLUMNS = list(dict.fromkeys([*columns.IDENTITY, *_OWN]))


def recommend(
    shown_to_fit: pd.DataFrame,
    asked: pd.DataFrame,
    contexts: Sequence[int] = DEFAULT_CONTEXTS,
    headroom_bytes: int = DEFAULT_HEADROOM_BYTES,
    untried: pd.DataFrame | None = None,
) -> list[Recommendation]:
    """What is best for each question of `asked` (rows of cases and boundaries, whatever their verdict).

    `shown_to_fit` is the `evidence` of the same rows, and `untried` what they leave open. For each question: by quality
    and by speed for each of `contexts` (those beyond the model's own limit become that limit), and the longest. Of
    settings that are equally good, that with flash attention, then without drafts, as what they gain hangs on the
    text, then with the most headroom, then with plain loading; of those that are fastest as far as one can tell, plain
    loading comes before headroom.
    """
    asked = without_defaults(asked.reindex(columns=[*QUESTION, *LENGTH_LIMIT]))
    questions = asked.drop_duplicates(QUESTION)[[*QUESTION, "native_max_seq_len"]]
    questions = questions.sort_values(QUESTION).reset_index(drop=True)
    keys = {_key(row): number for number, row in enumerate(questions[QUESTION].to_dict("records"))}
    rows = shown_to_fit.assign(reach=reach(shown_to_fit, headroom_bytes))
    first = rows.drop_duplicates("question")
    numbered = zip(first["question"], first[QUESTION].to_dict("records"), strict=True)
    rows = rows.assign(question=rows["question"].map({number: keys[_key(row)] for number, row in numbered}))
    summed = rows.groupby("question").agg(told=("headroom_bytes", "count"), reach=("reach", "max"))
    summary = dict(zip(summed.index, cast(list[_Summary], summed.to_dict("records")), strict=True))
    open_to: dict[int, float] = {}
    if untried is not None:
        lengths_open = untried["untried_up_to"].astype(float).tolist()
        open_to = {keys[_key(row)]: end for row, end in zip(untried.to_dict("records"), lengths_open, strict=True)}
    picked: dict[tuple[int, Policy, int | None], _Best] = {}
    for wanted in contexts:
        length = rows["native_max_seq_len"].astype(float).fillna(math.inf).clip(upper=wanted)
        held = _at(_nearest(rows[rows["reach"] >= length]), length)
        for policy in (Policy.QUALITY, Policy.FASTEST):
            for row in _best(held, policy):
                picked[row["question"], policy, wanted] = row
    furthest = rows["reach"].eq(rows.groupby("question")["reach"].transform("max"))
    far = _at(rows[furthest & (rows["reach"] > 0)], rows["reach"])
    for row in _best(far, Policy.LONGEST):
        picked[row["question"], Policy.LONGEST, None] = row
    answers = []
    for number, question in enumerate(cast(list[_Question], questions.to_dict("records"))):
        native = _whole(question["native_max_seq_len"])
        lengths = {min(wanted, native or wanted): wanted for wanted in sorted(contexts, reverse=True)}
        longest = picked.get((number, Policy.LONGEST, None))
        asks = [(policy, n) for policy in (Policy.QUALITY, Policy.FASTEST) for n in sorted(lengths)]
        for policy, n in [*asks, (Policy.LONGEST, None)]:
            best = picked.get((number, policy, None if n is None else lengths[n]))
            stated: dict[str, Any] = {"policy": policy, "wanted_context": n, "demanded_headroom_bytes": headroom_bytes}
            untried_up_to = open_to.get(number, 0.0)
            reason, is_unknown = (
                (None, False) if best else _reason(summary.get(number), policy, n, longest, untried_up_to)
            )
            is_lower_bound = n is None and best is not None and untried_up_to > best["length"]
            stated |= {"reason": reason, "is_lower_bound": is_lower_bound, "is_unknown": is_unknown}
            answers.append(_recommendation(question, best, stated))
    return answers


def _key(row: dict[Any, Any]) -> tuple[Any, ...]:
    """A question as a value that equals itself, which NaN does not."""
    return tuple(None if _missing(row[name]) else row[name] for name in QUESTION)


def _nearest(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each setting the row nearest to `length`, of those that reach it: it says most about that length."""
    return _first(rows, ["max_seq_len"], "setting", ascending=True)


def _first(rows: pd.DataFrame, order: list[str], of_each: str, ascending: bool) -> pd.DataFrame:
    """The first row of each by that order; only that is copied, as there may be a million."""
    ordered = rows[[of_each, *order]].sort_values(order, ascending=ascending, kind="stable")
    return rows.loc[ordered.drop_duplicates(of_each).index]


def _at(rows: pd.DataFrame, length: pd.Series[float]) -> pd.DataFrame:
    """The rows as they would be with a context of `length`."""
    length = length.loc[rows.index]
    speed, basis = speed_at(rows, length)
    own = rows["max_seq_len"].eq(length)
    return rows.assign(
        length=length, left=headroom_at(rows, length), is_own=own, tokens_per_s=speed, tokens_per_s_basis=basis
    )


def _best(rows: pd.DataFrame, policy: Policy) -> list[_Best]:
    """One row for each question that has any."""
    caches = rows["cache"].astype(object)
    rows = rows.assign(
        fineness=caches.map({cache: -i for i, cache in enumerate(finest_first(caches.dropna().unique()))}),
        kernels=rows["attention"].astype(object).map(_ATTENTION).fillna(0),
        eager=~rows["lazy"].astype(bool),
        undrafted=rows["draft"].isna(),
    )
    finest = ["bpw", "fineness", "head_bits"]
    order = [*finest, "kernels", "undrafted", "left", "eager", *_AT_LAST]
    if policy is Policy.FASTEST:
        rows = _as_fast(rows)
        order = ["kernels", "undrafted", "eager", "left", "tokens_per_s", *finest, *_AT_LAST]
    if policy is Policy.LONGEST:
        order = ["length", *order]
    return cast(list[_Best], _first(rows, order, "question", ascending=False).to_dict("records"))


def _as_fast(rows: pd.DataFrame) -> pd.DataFrame:
    """The fastest of each question, and those of which the speeds cannot tell that they are slower.

    Where any is measured, those that are only estimated are left out: the two are not compared.
    """
    rows = rows[rows["tokens_per_s"].notna()]
    measured = rows["tokens_per_s_basis"].ne("estimated")
    rows = rows[measured | ~measured.groupby(rows["question"]).transform("any")]
    error = rows["tokens_per_s_basis"].eq("estimated").map({True: ESTIMATE_ERROR, False: MEASURED_ERROR})
    fastest = rows.groupby("question")["tokens_per_s"].transform("max")
    return rows[rows["tokens_per_s"] * (1 + error) >= fastest]


def _reason(
    summary: _Summary | None,
    policy: Policy,
    wanted: int | None,
    longest: _Best | None,
    untried_up_to: float,
) -> tuple[str, bool]:
    """Why there is no answer, and whether that is for want of rows that tell.

    `summary` is of the rows that fit, None where there are none.
    """
    if summary is None:
        untried = ", and shorter lengths were not tried: use max_seq_len=auto" if untried_up_to else ""
        return f"no row shows that anything fits{untried}", untried_up_to > 0
    if not summary["told"]:
        return "the rows do not tell what was left of the card", True
    if longest is None:
        return "nothing that was run leaves that headroom", untried_up_to > 0
    if policy is Policy.FASTEST and wanted is not None and summary["reach"] >= wanted:
        return "the rows tell no tokens/s", True
    if wanted is not None and untried_up_to >= wanted:
        return (
            f"not known: {int(longest['length']):,} is the longest of the lengths tried that leaves that headroom, "
            "and others were not tried: use max_seq_len=auto, and auto_up_to=N where that ended too early",
            True,
        )
    return f"no setting that was run reaches it with that headroom; the longest is {int(longest['length']):,}", False


def _recommendation(question: _Question, row: _Best | None, stated: dict[str, Any]) -> Recommendation:
    where: dict[str, Any] = {name: None if _missing(value) else value for name, value in question.items()}
    where |= {name: _whole(value) for name, value in where.items() if name in _WHOLE or name.endswith("_bytes")}
    identity = cast(NamedColumns, {name: where[name] for name in NamedColumns.__annotations__})
    asked = ("native_max_seq_len", "batch_size", "engine", "scenario", "vision")
    stated |= {"identity": identity, **{name: where[name] for name in asked}}
    if row is None:
        return Recommendation(**stated)
    known = {name: value for name, value in row.items() if name == "notes" or not _missing(value)}
    told: dict[str, Any] = {
        name: known.get(name)
        for name in ("attention", "run_id", "best_split", "case_id", "boundary_id", "tokens_per_s")
    }
    setting: Any = {name: _plain(known.get(name)) for name in columns.SETTING} | {"bpw": float(row["bpw"])}
    return Recommendation(
        **stated,
        **told,
        setting=setting,
        fails_at=_whole(known.get("fails_at")),
        max_seq_len=int(row["length"]),
        headroom_bytes=_whole(known.get("left")),
        headroom_basis=None if "left" not in known else _kind(identity) if row["is_own"] else "estimated",
        tokens_per_s_basis=row["tokens_per_s_basis"] or None,
        row_max_seq_len=int(row["max_seq_len"]),
        certified=bool(row["certified"]),
        assumed=assumptions(row["notes"]),
    )


def _kind(card: CardColumns) -> str:
    return "simulated" if is_simulated(card) else "measured"


def assumptions(notes: Any) -> tuple[str, ...]:
    """The notes of a row, which may have none."""
    return () if notes is None or isinstance(notes, float) else tuple(str(note) for note in notes)


def _plain(value: Any) -> Any:
    """A setting as Python has it; a whole number whole, which pandas loses beside a null."""
    value = value.item() if hasattr(value, "item") else value
    return int(value) if isinstance(value, float) and value == int(value) else value


def _whole(value: Any) -> int | None:
    return None if _missing(value) else int(value)


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))
