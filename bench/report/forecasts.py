"""What a sweep is expected to find and to take, in plain values.

Nothing here is measured; `predicted_` and `estimated_` say so in every name that could be taken for a measurement.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.core.case import Axis
from bench.core.identity import limit_of
from bench.core.identity_columns import IdentityColumns
from bench.core.outcome import LimitBasis

_OFTEN_UNTOLD = ("cards", "best_split", "predicted_auto_fits_at", "stored_outcome", "stored_fits_at", "cache_size")


# What a row is of: a search for the longest jobs or for the largest cache, or a case.
LENGTHS, CACHES, CASES = "lengths", "caches", "cases"


@dataclass(frozen=True)
class Gain:
    """A smaller setting, as it would be typed, and the longest length that is predicted to fit with it."""

    setting: str
    predicted_fits_at: int


@dataclass(frozen=True, kw_only=True)
class ForecastRow:
    """What is thought of one case or of one search (`is_search`), under the names that the columns of results have;
    what it is about, its `identity`, is what a row would have there.

    `max_seq_len` is the case's, or the search's at its predicted boundary; where nothing fits, it is the shortest. The
    peaks and `parts` are those at that length. Where that does not fit, the card has no peaks, and
    `predicted_peak_bytes` and `parts` are what would be in use on a card without a limit; `headroom_bytes` is then
    below zero, by what is missing at least, or zero where it is only in pieces that are too small. Where nothing can be
    predicted and an earlier run has the answer, `stored_outcome` is how that ended, and `stored_fits_at` the longest
    that fits, as its row has them. Of a search for the largest cache `search_axis` says so: `max_seq_len` is that of
    its jobs, and `cache_size` stands at its predicted boundary. `gains` is None where nobody asked; None anywhere else
    is unknown, for `reason`.
    """

    identity: IdentityColumns
    native_max_seq_len: int | None
    is_search: bool
    probes: int
    stored: bool
    reason: str | None = None
    max_seq_len: int | None = None
    predicted_fits_at: int | None = None
    fits: bool | None = None
    failed_in: str | None = None
    predicted_peak_bytes: int | None = None
    predicted_peak_reserved_bytes: int | None = None
    predicted_peak_device_bytes: int | None = None
    parts: dict[str, int] | None = None
    headroom_bytes: int | None = None
    estimated_decode_tokens_per_s: float | None = None
    assumed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    native_max_seq_len_basis: str | None = None
    searched_up_to: int | None = None
    gains: list[Gain] | None = None
    advice: str | None = None
    estimated_probe_s: float | None = None
    cards: list[dict[str, Any]] | None = None
    best_split: str | None = None
    predicted_auto_fits_at: int | None = None
    stored_outcome: str | None = None
    stored_fits_at: int | None = None
    search_axis: str | None = None
    cache_size: int | None = None

    @property
    def limit_bytes(self) -> int:
        """What the card has, or the smaller one inside it."""
        return limit_of(self.identity) or 0

    @property
    def predicted_needed_bytes(self) -> int | None:
        """Where it does not fit, what would be in use on a card without a limit, the CUDA context included: more than
        the card has, or as much as it has in pieces that are too small.
        """
        return None if self.fits or self.parts is None else sum(self.parts.values())

    @property
    def shown_bytes(self) -> int | None:
        """How much a picture of its memory shows: what the card would hold, or what would be needed."""
        return self.predicted_peak_device_bytes if self.fits else self.predicted_needed_bytes

    @property
    def is_at_end(self) -> bool:
        """Whether all fits, up to where the search ends."""
        end = self.searched_up_to or self.native_max_seq_len
        return self.is_search and self.predicted_fits_at is not None and self.predicted_fits_at == end

    @property
    def is_of_caches(self) -> bool:
        """Whether it is the largest cache that is searched."""
        return self.search_axis == Axis.CACHE_SIZE

    @property
    def kind(self) -> str:
        """`LENGTHS`, `CACHES` or `CASES`."""
        return CASES if not self.is_search else CACHES if self.is_of_caches else LENGTHS

    @property
    def is_own_limit(self) -> bool:
        """Whether that end is the model's own limit."""
        is_told = self.native_max_seq_len_basis != LimitBasis.ENGINE_DEFAULT and not self.is_of_caches
        return self.is_at_end and is_told and self.predicted_fits_at == self.native_max_seq_len

    @property
    def unsupported(self) -> str | None:
        """Why the engine cannot run it on any card; None where it can, or nobody knows."""
        kind, colon, why = (self.reason or "").partition(": ")
        return why if colon and kind == "Unsupported" else None

    def to_json(self) -> dict[str, Any]:
        """The row in what JSON has, its identity flat beside the rest."""
        gains = None if self.gains is None else [vars(gain) for gain in self.gains]
        own = {name: value for name, value in vars(self).items() if name not in ("identity", "is_search")}
        # Mostly the other fields say all: of one card, of a split that was typed, and where something is predicted.
        own = {name: value for name, value in own.items() if value is not None or name not in _OFTEN_UNTOLD}
        return {**self.identity, **own, "predicted_needed_bytes": self.predicted_needed_bytes, "gains": gains}


@dataclass(frozen=True)
class Expectation:
    """What a sweep would take: `seconds` is None where nothing tells, `assumed` where it is not from stored rows.

    `longest_s` is what its longest probe would take, `timeout_s` when that would be ended.
    """

    probes: int
    seconds: float | None
    assumed: bool = False
    longest_s: float | None = None
    timeout_s: float | None = None

    @property
    def basis(self) -> str | None:
        """What `seconds` rest on: `stored rows` or `assumed`; None where they are unknown."""
        return None if self.seconds is None else "assumed" if self.assumed else "stored rows"


def document(rows: Sequence[ForecastRow], expectation: Expectation) -> dict[str, Any]:
    """Everything as one JSON document."""
    return {
        "cells": [row.to_json() for row in rows if row.is_search],
        "cases": [row.to_json() for row in rows if not row.is_search],
        "probes": expectation.probes,
        "expected_s": expectation.seconds,
        "expected_basis": expectation.basis,
        "longest_probe_s": expectation.longest_s,
    }


def in_lines(document: Mapping[str, Any]) -> Iterator[str]:
    """The members of `document`, each in a line, those that are lists with a line for each of their items.

    An indented document of many rows is slow to write and no easier to read.
    """
    separator = "{\n"
    for name, value in document.items():
        yield f"{separator}{json.dumps(name)}: "
        separator = ",\n"
        if isinstance(value, list) and value:
            yield "[\n" + ",\n".join(map(json.dumps, value)) + "]"
        else:
            yield json.dumps(value)
    yield "}\n"
