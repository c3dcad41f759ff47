"""How far a search went, in words: to where it fails, to the model's own limit, or only to where it was ended."""

from __future__ import annotations

from collections.abc import Collection

from bench.core.case import PAGE, Axis
from bench.core.columns import BoundaryRow
from bench.core.identity_columns import NativeLength
from bench.core.outcome import LimitBasis
from bench.report.text.units import tokens

USERS = "users: how many jobs of the whole max_seq_len the cache has room for."
OWN_LIMIT = "max: the model's own limit."
_LOWER_BOUND = "≥: all fits up to where the search ended; "


def is_own_limit(row: BoundaryRow) -> bool:
    """Whether a boundary ends at the model's own limit, and not at the card's; a cache has none."""
    if row["search_axis"] == Axis.CACHE_SIZE:
        return False
    return row["fits_at"] is not None and row["fails_at"] is None and row["fits_at"] == own_limit(row)


def is_lower_bound(row: BoundaryRow) -> bool:
    """Whether all fitted up to where the search ended, which says nothing of the card's end or the model's."""
    end = row["searched_up_to"] or row["native_max_seq_len"]  # rows of before were searched up to that
    return row["fits_at"] is not None and row["fails_at"] is None and row["fits_at"] == end and not is_own_limit(row)


def lower_bound(has_whole_cache: Collection[bool]) -> str:
    """What ≥ stands for; of each line, whether a job there has the whole of a cache of a given size."""
    if all(has_whole_cache):
        return _LOWER_BOUND + "a job has the whole cache there, and a larger cache_size goes further."
    also = ", where a job has the whole cache with a larger cache_size" if any(has_whole_cache) else ""
    return f"{_LOWER_BOUND}auto_up_to=N goes further{also}."


def own_limit(row: NativeLength) -> int | None:
    """The model's own limit; None where nothing tells it, and there is only what the engine takes by default."""
    is_told = row["native_max_seq_len_basis"] != LimitBasis.ENGINE_DEFAULT
    return row["native_max_seq_len"] if is_told else None


def users_of(cache_tokens: int | None, max_seq_len: int | None) -> int | None:
    """How many jobs of up to `max_seq_len` tokens a cache has room for, in whole pages; None where none is told."""
    if cache_tokens is None or not max_seq_len:
        return None
    return cache_tokens // (-(-max_seq_len // PAGE) * PAGE)


def at_least(length: int) -> str:
    """`≥ 131,072`."""
    return f"≥ {tokens(length)}"


def reach(row: BoundaryRow) -> str:
    """`131,072 max`, `≥ 2,048`, or `96,512`: of a boundary where something fits."""
    if row["fits_at"] is not None and is_lower_bound(row):
        return at_least(row["fits_at"])
    return tokens(row["fits_at"]) + (" max" if is_own_limit(row) else "")
