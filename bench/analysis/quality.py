"""How good a model's output is at a setting: figures of others, joined to rows and never made up. Pure but for reading.

`published_quality.csv` holds the perplexities that the engine's author has published for FP16 and Q4 caches.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TypedDict

import pandas as pd

from bench.core.errors import first_line

PUBLISHED = Path(__file__).with_name("published_quality.csv")
KEYS = ["model", "bpw", "cache"]
REQUIRED = [*KEYS, "quality"]
OPTIONAL = ["quality_metric", "quality_source"]


class QualityRow(TypedDict):
    """One figure, as `read_quality` has them; NaN for the metric or the source that the file does not tell."""

    model: str
    bpw: float
    cache: str
    quality: float
    quality_metric: str | float
    quality_source: str | float


class UnusableQuality(Exception):
    """A file that does not say what was asked for; the text names it and says what is wrong."""


def read_quality(path: Path) -> pd.DataFrame:
    """The figures of a CSV with the columns model, bpw, cache, quality, and where it has them quality_metric and
    quality_source; lines that begin with # are remarks. Raises UnusableQuality.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        text = "\n".join(line for line in lines if not line.startswith("#"))  # a # elsewhere belongs to its value
        frame = pd.read_csv(io.StringIO(text), dtype={"model": str, "cache": str})
    except FileNotFoundError:
        raise UnusableQuality(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # pandas' own errors of parsing are ValueErrors
        raise UnusableQuality(f"{path}: not a readable CSV ({first_line(error)})") from error
    missing = [name for name in REQUIRED if name not in frame]
    if missing:
        raise UnusableQuality(f"{path}: no column {', '.join(missing)}; it needs {', '.join(REQUIRED)}")
    for name in ("bpw", "quality"):
        numbers = pd.to_numeric(frame[name], errors="coerce")
        if numbers.isna().any():
            line = int(numbers.isna().to_numpy().argmax())
            raise UnusableQuality(f"{path}: {name} {frame[name].iloc[line]!r} of row {line + 1} is no number")
        frame[name] = numbers
    twice = frame[frame.duplicated(KEYS)]
    if not twice.empty:
        named = " ".join(str(twice.iloc[0][name]) for name in KEYS)
        raise UnusableQuality(f"{path}: {named} is there twice; keep one row for each model, bpw and cache")
    return frame.reindex(columns=[*REQUIRED, *OPTIONAL])


def with_quality(frame: pd.DataFrame, quality: pd.DataFrame) -> pd.DataFrame:
    """`frame` with the columns of `quality`, null where nothing is known for its model, bpw and cache."""
    bits = frame["bpw"].astype(float)
    joined = frame.assign(bpw=bits, model=frame["model"].astype("str"), cache=frame["cache"].astype("str"))
    return joined.merge(quality, on=KEYS, how="left", validate="many_to_one").set_axis(frame.index)
