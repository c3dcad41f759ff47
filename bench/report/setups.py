"""Whether another program's configuration fits, how far it could go, and what to raise: as values, and in lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.report.forecasts import ForecastRow
from bench.report.text.ends import at_least, users_of
from bench.report.text.units import size, tokens


@dataclass(frozen=True)
class SetupAnswer:
    """A case as it is configured, the searches for the largest cache and for the longest single job, and the case with
    each finer cache, the finest first. All of it is predicted.
    """

    case: ForecastRow
    largest: ForecastRow | None = None
    longest: ForecastRow | None = None
    finer: Mapping[str, ForecastRow] = field(default_factory=dict)

    @property
    def searches(self) -> list[ForecastRow]:
        """Those there are."""
        return [row for row in (self.largest, self.longest) if row is not None]

    @property
    def finest(self) -> tuple[str, ForecastRow] | None:
        """The finest of the finer caches that fit; None where none does."""
        return next(((cache, row) for cache, row in self.finer.items() if row.fits), None)

    def to_json(self) -> dict[str, Any]:
        """The answer in what JSON has; None is not predicted, or not asked."""
        finest = self.finest
        return {
            "device_name": self.case.identity["device_name"],
            "basis": "predicted",
            "fits": self.case.fits,
            "headroom_bytes": self.case.headroom_bytes,
            "reason": self.case.reason,
            "largest_cache_size": None if self.largest is None else self.largest.predicted_fits_at,
            "longest_max_seq_len": None if self.longest is None else self.longest.predicted_fits_at,
            "finest_cache_that_fits": None if finest is None else finest[0],
            "gains": [vars(gain) for gain in self.case.gains or []],
            "advice": self.case.advice,
        }


def answer_lines(
    answers: Sequence[SetupAnswer], key_of: Mapping[str, str], word_for: Callable[[str], str]
) -> Iterator[str]:
    """What is said of each; `key_of` and `word_for` are the program's own words for keys and for caches."""
    for answer in answers:
        yield _verdict(answer.case)
        if told := list(_reaches(answer, key_of)):
            yield f"  the largest that fits: {'; '.join(told)}"
        if answer.case.fits:
            raised = list(_raises(answer, key_of, word_for))
            yield f"  what to raise: {'; '.join(raised) if raised else 'nothing that is looked at here'}"
        elif answer.case.fits is False:
            lowered = [
                f"{gain.setting}: {_gained(gain.predicted_fits_at, answer.case)}" for gain in answer.case.gains or []
            ]
            lowered += [answer.case.advice] if answer.case.advice else []
            yield f"  what to lower: {'; '.join(lowered) if lowered else 'nothing that would help is known'}"


def _verdict(row: ForecastRow) -> str:
    where = f"{row.identity['model']} on {row.identity['device_name']}, {row.identity['cache']}"
    if row.fits:
        held = f"{size(row.predicted_peak_device_bytes)} of {size(row.limit_bytes)}"
        return f"{where}: fits, with {size(row.headroom_bytes)} left ({held}; predicted)"
    if row.fits is False:
        needed = f"it needs {size(row.predicted_needed_bytes)} of {size(row.limit_bytes)}"
        return f"{where}: does not fit ({needed}; predicted, memory runs out in {row.failed_in})"
    return f"{where}: nothing is predicted ({row.reason}); the same with `sweep` runs it"


def _reaches(answer: SetupAnswer, key_of: Mapping[str, str]) -> Iterator[str]:
    for key, row in (("cache_size", answer.largest), ("max_seq_len", answer.longest)):
        if row is None or row.fits is None:
            continue
        if row.predicted_fits_at is None:
            yield f"no {key_of[key]} at all" + (f" of {tokens(row.max_seq_len)} or more" if key == "cache_size" else "")
            continue
        told = f"{key_of[key]} {_length(row)}"
        if key == "cache_size" and (users := users_of(row.predicted_fits_at, row.max_seq_len)):
            told += f", {users:,} job{'' if users == 1 else 's'} of {tokens(row.max_seq_len)}"
        yield told + (" for one job alone" if key == "max_seq_len" and answer.largest is not None else "")


def _length(row: ForecastRow) -> str:
    if row.is_own_limit:
        return f"{tokens(row.predicted_fits_at)}, all that the model has"
    return at_least(row.predicted_fits_at or 0) if row.is_at_end else tokens(row.predicted_fits_at)


def _raises(answer: SetupAnswer, key_of: Mapping[str, str], word_for: Callable[[str], str]) -> Iterator[str]:
    """What could be larger with all else as it is."""
    for key, row, now in (
        ("cache_size", answer.largest, answer.case.identity["cache_size"] or answer.case.max_seq_len),
        ("max_seq_len", answer.longest, answer.case.max_seq_len),
    ):
        if row is not None and row.predicted_fits_at is not None and now and row.predicted_fits_at > now:
            yield f"{key_of[key]} to {tokens(row.predicted_fits_at)}"
    if (finest := answer.finest) is not None:
        cache, row = finest
        yield f"{key_of['cache']} to {word_for(cache)}, with {size(row.headroom_bytes)} left"


def _gained(fits_at: int, row: ForecastRow) -> str:
    return "fits" if fits_at == row.max_seq_len else f"up to {tokens(fits_at)}"
