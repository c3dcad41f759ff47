"""How good a model's output is at a setting: figures of others, joined to rows and never made up. Pure but for reading.

`published_quality.csv` holds the perplexities that the engine's author has published for FP16 and Q4 caches.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TypedDict

import pandas as pd

from bench.core.case import DEFAULT_ENGINE
from bench.core.errors import first_line

PUBLISHED = Path(__file__).with_name("published_quality.csv")
KEYS = ["model", "bpw", "cache", "engine"]
REQUIRED = ["model", "bpw", "cache", "quality"]
OPTIONAL = ["quality_metric", "quality_source"]


class QualityRow(TypedDict):
    """One figure, as `read_quality` has them; NaN for the metric or the source that the file does not tell."""

    model: str
    bpw: float
    cache: str
    engine: str
    quality: float
    quality_metric: str | float
    quality_source: str | float


class UnusableQuality(Exception):
    """A file that does not say what was asked for; the text names it and says what is wrong."""


def read_quality(path: Path) -> pd.DataFrame:
    """The figures of a CSV with the columns model, bpw, cache, quality, and where it has them engine (else all are of
    `DEFAULT_ENGINE`), quality_metric and quality_source; lines that begin with # are remarks. Raises UnusableQuality.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        text = "\n".join(line for line in lines if not line.startswith("#"))  # a # elsewhere belongs to its value
        frame = pd.read_csv(io.StringIO(text), dtype={"model": str, "cache": str, "engine": str})
    except FileNotFoundError:
        raise UnusableQuality(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # pandas' own errors of parsing are ValueErrors
        raise UnusableQuality(f"{path}: not a readable CSV ({first_line(error)})") from error
    missing = [name for name in REQUIRED if name not in frame]
    if missing:
        raise UnusableQuality(f"{path}: no column {', '.join(missing)}; it needs {', '.join(REQUIRED)}")
    frame = frame[[name for name in (*KEYS, "quality", *OPTIONAL) if name in frame]].copy()  # of hundreds, perhaps
    for name in ("bpw", "quality"):
        numbers = pd.to_numeric(frame[name], errors="coerce")
        if numbers.isna().any():
            line = int(numbers.isna().to_numpy().argmax())
            raise UnusableQuality(f"{path}: {name} {frame[name].iloc[line]!r} of row {line + 1} is no number")
        frame[name] = numbers
    frame["engine"] = frame["engine"].fillna(DEFAULT_ENGINE) if "engine" in frame else DEFAULT_ENGINE
    twice = frame[frame.duplicated(KEYS)]
    if not twice.empty:
        named = " ".join(str(twice.iloc[0][name]) for name in KEYS)
        raise UnusableQuality(f"{path}: {named} is there twice; keep one row for each model, bpw, cache and engine")
    return frame.reindex(columns=[*KEYS, "quality", *OPTIONAL])


def with_quality(frame: pd.DataFrame, quality: pd.DataFrame) -> pd.DataFrame:
    """`frame` with the columns of `quality`, null where nothing is known for its model, bpw, cache and engine."""
    texts = {name: frame[name].astype("str") for name in ("model", "cache")}
    engine = frame["engine"].fillna(DEFAULT_ENGINE).astype("str")
    joined = frame.assign(bpw=frame["bpw"].astype(float), **texts, of_engine=engine)
    known = quality.rename(columns={"engine": "of_engine"})
    keys = ["of_engine" if name == "engine" else name for name in KEYS]
    merged = joined.merge(known, on=keys, how="left", validate="many_to_one").set_axis(frame.index)
    return merged.drop(columns="of_engine")
