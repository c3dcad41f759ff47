"""What stored rows show to fit: the ground that recommendations and trade-offs stand on. Pure: frames in, a frame out.

A length counts as seen to fit where a case there went through, or a certified boundary says so. Of several runs of one
setting at one length the last counts; a length at or above one that failed contradicts it, and is left out. On several
cards the lengths that fit may have gaps (`_MAY_HAVE_GAPS`): there a failure says nothing of longer ones.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from bench.core import columns
from bench.core.case import PAGE
from bench.core.outcome import LimitBasis
from bench.core.split import SplitBy

# One question: rows that differ in any of these are never compared: as many bits per weight are not the same quality
# with another engine, who serves jobs does not choose a bare forward pass instead, nor who has images a model without
# its vision tower.
QUESTION = [*columns.CARD, *columns.LIMIT, *columns.MODEL, "batch_size", "engine", "scenario", "vision"]
# One answer: what a user can choose, with the attention that ran.
SETTING = ["attention" if name == "attention_requested" else name for name in columns.SETTING if name not in QUESTION]

# What tells up to where a question goes.
LENGTH_LIMIT = ["native_max_seq_len", "native_max_seq_len_basis"]

_SHARED = [*QUESTION, *SETTING, "attention_requested", *LENGTH_LIMIT, "run_id", "notes", "best_split"]
_SPEEDS = ["decode_tokens_per_s", "decode_tokens_per_s_full", "estimated_decode_tokens_per_s"]
_MAY_HAVE_GAPS = (SplitBy.GPU_SPLIT, SplitBy.TENSOR_PARALLEL)  # what is on which card changes with the length
_FAILED = ("oom", "degraded")  # verdicts on a length; others are verdicts on the harness
CASE_COLUMNS = [
    *_SHARED,
    *("case_id", "started_at", "max_seq_len", "outcome", "peak_device_bytes", "peak_reserved_bytes", "context_bytes"),
    *("weights_bytes", "cache_bytes", "decode_weights_bytes", "decode_cache_bytes", "tightest_headroom_bytes"),
    "draft_cache_bytes",
    *_SPEEDS,
]
_BOUNDARY_COLUMNS = [
    *_SHARED,
    *("boundary_id", "finished_at", "fits_at", "fails_at", "certified", "contradictory", "peak_device_bytes"),
    *("headroom_bytes", "decode_tokens_per_s_full", "estimated_decode_tokens_per_s"),
]
_WEIGHTS = [*columns.MODEL, *columns.WEIGHTS]
_LENGTH = [*QUESTION, *SETTING, "max_seq_len"]

# Bytes that decoding moves through memory for each byte of cache: a quantised cache is unpacked into FP16 first
# (docs/speed.md, the table of bytes per element, over what is stored of each).
_MOVED_PER_STORED = {"FP16": 2 / 2, "Q8": 5.0625 / 1.0625, "Q6": 4.8125 / 0.8125, "Q4": 4.5625 / 0.5625}


def evidence(cases: pd.DataFrame, boundaries: pd.DataFrame) -> pd.DataFrame:
    """A row for each question, setting and length that was seen to fit.

    Of the columns, those of cases keep their meaning. `question` and `setting` number them. `case_id` or `boundary_id`
    is null where the other alone tells; `certified` and `fails_at` are the boundary's, where the length is at one.
    `headroom_bytes` is the card's limit less what was held; where PyTorch's allocator keeps that limit, less the
    context and PyTorch's own. `cache_bytes_per_token` is of all sequences of a batch.
    """
    cases = _with_attention(cases, CASE_COLUMNS)
    boundaries = _with_attention(boundaries, _BOUNDARY_COLUMNS)
    cases = _last(cases, "started_at", _LENGTH)
    boundaries = _last(boundaries, "finished_at", [*QUESTION, *SETTING])
    certified = boundaries[boundaries["certified"].eq(True) & boundaries["contradictory"].eq(False)]
    found = certified[certified["fits_at"].notna()]
    found = found.assign(max_seq_len=found["fits_at"])
    ended = certified[certified["fails_at"].notna()]
    ended = ended.assign(max_seq_len=ended["fails_at"])
    # Of a million cases only what is needed is copied, and once.
    cases, found, ended = _with_settings([cases, found, ended])
    length = ["setting", "max_seq_len"]
    failed = pd.concat([cases.loc[cases["outcome"].isin(_FAILED), [*length, "split"]], ended[[*length, "split"]]])
    fails = failed[~_may_have_gaps(failed)].groupby("setting")["max_seq_len"].min()
    contradicted, untrue = (frame["max_seq_len"] >= frame["setting"].map(fails) for frame in (cases, found))
    rows = _merged(cases[cases["outcome"].eq("fits") & ~contradicted], found[~untrue])
    return rows.assign(
        question=_numbered([rows], QUESTION),
        headroom_bytes=rows["headroom_bytes"].fillna(_headroom(rows)).astype(float),
        cache_bytes_per_token=_cache_bytes_per_token(rows),
    ).drop(columns=_USED_UP)


def untried(cases: pd.DataFrame, boundaries: pd.DataFrame) -> pd.DataFrame:
    """The questions of which some setting may go further than it was seen to fit, as nothing between was tried.

    `untried_up_to` is the longest such length: the last page below the shortest that failed, else the model's own
    limit, or infinity where nothing tells that.
    """
    columns = [*QUESTION, *SETTING, "attention_requested", *LENGTH_LIMIT]
    cases = _with_attention(cases, [*columns, "max_seq_len", "outcome"])
    answered = cases[cases["outcome"].isin(("fits", *_FAILED))]
    length, fits = answered["max_seq_len"].astype(float), answered["outcome"].eq("fits")
    tried = answered.assign(fits_at=length.where(fits), fails_at=length.where(~fits))
    ends = _with_attention(boundaries, [*columns, "fits_at", "fails_at"])
    rows = pd.concat([tried, ends[ends["fits_at"].notna() | ends["fails_at"].notna()]], ignore_index=True)
    rows = rows.assign(question=_numbered([rows], QUESTION), setting=_numbered([rows], [*QUESTION, *SETTING]))
    longest = rows.groupby("setting")["fits_at"].transform("max")
    rows["fails_at"] = rows["fails_at"].where(~(_may_have_gaps(rows) & (rows["fails_at"] < longest)))
    of_setting = rows.astype(dict.fromkeys(("fits_at", "fails_at", "native_max_seq_len"), float)).groupby("setting")
    known = of_setting.agg(
        question=("question", "first"),
        fits_at=("fits_at", "max"),
        fails_at=("fails_at", "min"),
        limit=("native_max_seq_len", "max"),
    )
    below = (known["fails_at"] - 1) // PAGE * PAGE
    most = below.where(known["fails_at"].notna(), known["limit"].fillna(np.inf))
    open_to = most.where(most > known["fits_at"].fillna(0)).groupby(known["question"]).max().dropna()
    first = rows.drop_duplicates("question").set_index("question")
    return first.loc[open_to.index, QUESTION].assign(untried_up_to=open_to)


def _may_have_gaps(rows: pd.DataFrame) -> pd.Series[bool]:
    by: pd.Series[bool] = rows["split"].astype(object).map(str).str.startswith(_MAY_HAVE_GAPS)
    return by


def without_defaults(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with no limit where nothing tells the model's own: what the engine takes by default is none."""
    told = frame["native_max_seq_len_basis"].ne(LimitBasis.ENGINE_DEFAULT).fillna(True).astype(bool)
    return frame.assign(native_max_seq_len=frame["native_max_seq_len"].where(told))


def _with_attention(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """The columns that count; a case that ended before it told its attention has the one that was asked for."""
    frame = without_defaults(frame.reindex(columns=columns))
    return frame.assign(attention=frame["attention"].fillna(frame["attention_requested"]))


def _last(frame: pd.DataFrame, moment: str, identity: list[str]) -> pd.DataFrame:
    if not frame[moment].is_monotonic_increasing:
        frame = frame.sort_values(moment, kind="stable")
    earlier = pd.Series(_numbered([frame], identity), index=frame.index).duplicated(keep="last")
    return frame[~earlier] if earlier.any() else frame


def _with_settings(frames: list[pd.DataFrame]) -> list[pd.DataFrame]:
    """The frames with a number for each `setting`, the same in all of them; lengths as floats."""
    numbers = np.split(_numbered(frames, [*QUESTION, *SETTING]), np.cumsum([len(frame) for frame in frames])[:-1])
    return [
        frame.assign(setting=number, max_seq_len=frame["max_seq_len"].astype(float))
        for frame, number in zip(frames, numbers, strict=True)
    ]


def _numbered(frames: list[pd.DataFrame], names: list[str]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """A number for each combination of values, nulls among them, of all frames one after the other."""
    number = np.zeros(sum(map(len, frames)), dtype=np.int64)
    for name in names:
        columns = [frame[name] for frame in frames if len(frame)]
        if not columns:
            break
        codes, values = pd.factorize(pd.concat(columns), use_na_sentinel=False)
        # Numbered anew after each column, so that the product of many columns cannot overflow.
        number, _ = pd.factorize(number * len(values) + codes)
    return number


def _cache_bytes_per_token(rows: pd.DataFrame) -> pd.Series[float]:
    """What each token less leaves to the card that decides.

    Unknown where each of several has a part of the cache, and nothing where the cache has a size of its own.
    """
    together = rows["split"].isna() | rows["split"].astype(object).map(str).str.startswith(SplitBy.AUTO)
    cache = rows["cache_bytes"].astype(float) + rows["draft_cache_bytes"].astype(float).fillna(0)
    per_token: pd.Series[float] = cache / rows["max_seq_len"]
    return per_token.where(together & rows["cache_size"].isna())


def _headroom(rows: pd.DataFrame) -> pd.Series[float]:
    """As docs/results.md defines it for boundaries."""
    total, limit = rows["device_total_bytes"].astype(float), rows["vram_limit_bytes"].astype(float)
    left = total.where(~(limit < total), limit) - rows["peak_device_bytes"].astype(float)
    # There the limit is on PyTorch and the context that it began with; others may hold the rest of the card.
    own = limit - rows["context_bytes"].astype(float).fillna(0) - rows["peak_reserved_bytes"].astype(float)
    limited = rows["vram_limit_by"].eq("allocator")
    headroom: pd.Series[float] = left.where(~limited & total.notna(), own.where(limited))
    return headroom.where(rows["device_cards"].isna(), rows["tightest_headroom_bytes"].astype(float))


# What has done its service in the evidence.
_USED_UP = ["outcome", "started_at", "peak_reserved_bytes", "context_bytes", "tightest_headroom_bytes"]


def _merged(cases: pd.DataFrame, boundaries: pd.DataFrame) -> pd.DataFrame:
    """The case at a boundary and the boundary as one row: the case's memory, the boundary's certificate."""
    merged = cases.set_index(["setting", "max_seq_len"])
    ends = boundaries.set_index(["setting", "max_seq_len"])
    alone = ends[~ends.index.isin(merged.index)]
    merged = merged.assign(certified=merged.index.isin(ends.index), headroom_bytes=np.nan)
    merged = merged.join(ends[["boundary_id", "fails_at"]])
    if len(alone):
        merged = pd.concat([merged, alone.drop(columns=["fits_at", "contradictory", "finished_at"])])
    return merged.reset_index()


def reach(rows: pd.DataFrame, headroom_bytes: int) -> pd.Series[float]:
    """The longest length that each row shows to leave at least `headroom_bytes`; 0 where it shows none.

    That is the row's own length where that leaves it; else a shorter one, by whole pages: a cache of fewer tokens is
    smaller by `cache_bytes_per_token` each, and the other parts do not grow.
    """
    spare = (rows["headroom_bytes"] - headroom_bytes).fillna(0 if headroom_bytes == 0 else -np.inf)
    fewer = (-spare / rows["cache_bytes_per_token"]).fillna(np.inf)
    shortened = ((rows["max_seq_len"] - fewer) // PAGE * PAGE).clip(lower=0)
    longest: pd.Series[float] = rows["max_seq_len"].where(spare >= 0, shortened).fillna(0)
    return longest


def headroom_at(rows: pd.DataFrame, length: pd.Series[float]) -> pd.Series[float]:
    """What is left of the card at `length`, at most the row's own: at least the row's, and the bytes of the cache that
    is not made. Null where the row does not tell.
    """
    fewer = rows["max_seq_len"] - length
    saved = (fewer * rows["cache_bytes_per_token"]).where(fewer > 0, 0.0).fillna(0)
    headroom: pd.Series[float] = rows["headroom_bytes"] + saved
    return headroom


def speed_at(rows: pd.DataFrame, length: pd.Series[float]) -> tuple[pd.Series[float], pd.Series[str]]:
    """Decoding speed in tokens/s with a context of `length` tokens, at most the row's own, and its basis.

    `measured` at the row's own length; `interpolated` between the two measured speeds of a row, near the start of the
    context and at its end: a token takes longer by the same time for each token in the context. `estimated` from one
    speed, by the bytes that decoding moves (docs/speed.md). Null, with an empty basis, where the row does not tell.
    """
    own = rows["max_seq_len"].eq(length)
    full, start = rows["decode_tokens_per_s_full"].astype(float), rows["decode_tokens_per_s"].astype(float)
    share = _context(rows, length) / _context(rows, rows["max_seq_len"])
    seconds = 1 / start + (1 / full - 1 / start) * share
    weights, cache = _moved(rows)
    scale = (weights + cache) / (weights + cache * share)
    estimate = full.fillna(rows["estimated_decode_tokens_per_s"].astype(float)) * scale.where(~own, 1.0)
    speed = full.where(own & full.notna(), (1 / seconds).fillna(estimate))
    basis = pd.Series("estimated", index=rows.index, dtype=object)
    basis[seconds.notna()] = "interpolated"
    basis[own & full.notna()] = "measured"
    return speed, basis.where(speed.notna(), "")


def _context(rows: pd.DataFrame, length: pd.Series[float]) -> pd.Series[float]:
    """How many tokens a sequence has with its context full: jobs that share a cache may have fewer than `length`."""
    pages = rows["cache_size"].astype(float) // PAGE // rows["batch_size"].astype(float)
    shared: pd.Series[float] = length.where(~(pages * PAGE < length), pages * PAGE)
    return shared


def _moved(rows: pd.DataFrame) -> tuple[pd.Series[float], pd.Series[float]]:
    """The bytes of weights, and of the cache with the context full, that a step of decoding moves.

    A row that does not tell (of an older version) has the parts alive at the peak, which may be before all of them are
    made: the most that any row of the same weights shows is nearest. Of experts all count as moved then.
    """
    alive = rows["weights_bytes"].astype(float)
    weights = alive.groupby([rows[name] for name in _WEIGHTS], dropna=False).transform("max")
    cache = rows["cache_bytes"].astype(float) * rows["cache"].astype(object).map(_MOVED_PER_STORED).astype(float)
    told = rows["decode_weights_bytes"].notna() & rows["decode_cache_bytes"].notna()
    weights = rows["decode_weights_bytes"].astype(float).where(told, weights)
    return weights, rows["decode_cache_bytes"].astype(float).where(told, cache)
