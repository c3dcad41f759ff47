"""Cards of one kind, told as one: several that differ in their number alone, on one host or many.

A table speaks of a kind of card. Where several of that kind have measured the same, it shows the one with the least
room, as what fits there fits on each of them; what the others came to is the spread (`tables/spread.py`). Rows and CSV
files keep every card by its UUID.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from bench.core.columns import CARD, IDENTITY, LIMIT
from bench.core.device import SIMULATED
from bench.report.naming.cards import of_a_kind
from bench.report.rows import latest

_UUID, _OWN, _IS = "device_uuid", "_own_uuid", "_is_of_a_kind"
NUMBER = "question"  # the column that numbers, among all of a kind, what was asked
KIND = [name for name in (*CARD, *LIMIT) if name != _UUID]  # what cards of one kind have alike
ASKED = [name for name in IDENTITY if name != _UUID]  # what measurements of one kind of card have alike
CASE = [*ASKED, "max_seq_len"]
BOUNDARY = [*ASKED, "search_axis", "max_seq_len", "searched_up_to"]
_ANSWERED = ("fits", "oom", "degraded")


@dataclass(frozen=True)
class Kinds:
    """Rows as tables show them: of what several cards of a kind measured, one row each.

    `every_case` and `every_boundary` are all there are, with their cards under the name of their kind; `all_cases` and
    `all_boundaries` are those of which there are several, each card's own, and `NUMBER` says of what.
    """

    cases: pd.DataFrame
    boundaries: pd.DataFrame
    all_cases: pd.DataFrame
    all_boundaries: pd.DataFrame
    every_case: pd.DataFrame
    every_boundary: pd.DataFrame


def latest_of_each_host(frame: pd.DataFrame, identity: str, moment: str) -> pd.DataFrame:
    """The last row of each case or boundary, and of a measured one the last of each host."""
    is_measured = frame["device_kind"].ne(SIMULATED)
    if not is_measured.any():
        return latest(frame, identity, moment)
    host = frame["host"].astype(object).where(is_measured, None)
    return latest(frame.assign(_host=host), [identity, "_host"], moment).drop(columns="_host")


def by_kind(cases: pd.DataFrame, boundaries: pd.DataFrame) -> Kinds:
    """Both frames by kinds of cards; the same frames where no two cards are of one kind."""
    names = _names_of_kinds(cases, boundaries)
    if not names:
        return Kinds(cases, boundaries, cases.iloc[:0], boundaries.iloc[:0], cases, boundaries)
    found, every = [cases.iloc[:0], boundaries.iloc[:0]], [cases, boundaries]
    if not cases.empty:
        named = _named(cases, names)
        every[0] = named.drop(columns=[_OWN, _IS])
        cases, found[0] = _together(named, CASE, "peak_device_bytes", most_is_worst=True)
    if not boundaries.empty:
        named = _named(boundaries, names)
        every[1] = named.drop(columns=[_OWN, _IS])
        boundaries, found[1] = _together(named, BOUNDARY, "fits_at", most_is_worst=False)
    return Kinds(cases, boundaries, *found, *every)


def _names_of_kinds(*frames: pd.DataFrame) -> dict[tuple[object, ...], str | None]:
    """What the cards of each kind of which there are several are called together; None of one card on several hosts."""
    cards = [frame[[*KIND, _UUID, "host"]].drop_duplicates() for frame in frames if not frame.empty]
    if not cards:
        return {}
    real = pd.concat(cards, ignore_index=True)
    real = real[real["device_kind"].ne(SIMULATED) & real["device_total_bytes"].notna()].drop_duplicates()
    if len(real) < 2:
        return {}
    counts = real.groupby(KIND, dropna=False)[[_UUID, "host"]].nunique(dropna=False)
    several = counts[(counts > 1).any(axis=1)][_UUID]
    return {_plain(key): of_a_kind(int(count)) if count > 1 else None for key, count in several.items()}


def _named(frame: pd.DataFrame, names: dict[tuple[object, ...], str | None]) -> pd.DataFrame:
    """The frame with cards of a kind under one name: `_OWN` is what each is called, `_IS` whether it is one of them."""
    keys = [_plain(key) for key in frame[KIND].itertuples(index=False, name=None)]
    uuids = [names.get(key) or own for key, own in zip(keys, frame[_UUID], strict=True)]
    together = pd.Series(uuids, index=frame.index, dtype=object)
    is_of_a_kind = pd.Series([key in names for key in keys], index=frame.index)
    return frame.assign(**{_OWN: frame[_UUID], _IS: is_of_a_kind, _UUID: together})


def _plain(key: object) -> tuple[object, ...]:
    """A key in which every null is None, and equal to itself."""
    return tuple(None if pd.isna(value) else value for value in (key if isinstance(key, tuple) else (key,)))


def _together(
    frame: pd.DataFrame, alike: Sequence[str], measure: str, most_is_worst: bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of rows with the same `alike` the one with the least room; and all of those of which there are several."""
    number = frame.groupby(list(alike), dropna=False, sort=False).ngroup()
    several = frame[_IS] & (number.groupby(number).transform("size") > 1)
    room = frame[measure].astype(float) * (-1 if most_is_worst else 1)
    rank = pd.DataFrame(
        {
            "number": number,
            "is_no_answer": ~frame["outcome"].isin(_ANSWERED),
            "fits": frame["outcome"].eq("fits"),
            "room": room.fillna(float("inf")),
        }
    )[several]
    kept = rank.sort_values(["is_no_answer", "fits", "room"], kind="stable").drop_duplicates("number").index
    shown = frame[~several | frame.index.isin(kept)].drop(columns=[_OWN, _IS])
    own = frame.assign(**{_UUID: frame[_OWN]}).drop(columns=[_OWN, _IS])
    return shown, own.assign(**{NUMBER: number})[several]
