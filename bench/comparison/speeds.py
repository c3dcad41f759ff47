"""Whether two sets of timings differ by more than their noise. The only door to scipy.

Mann-Whitney's U test asks whether one set tends to be faster, without assuming how timings are distributed. It is exact
here, so few samples cannot be significant however far apart they are: 3 against 3 reach p = 0.1, 4 against 4 p = 0.029.
Samples of one process say nothing of the noise between processes, so a difference must also be larger than a threshold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from bench.core.columns import CaseRow
from bench.core.identity import key_of

ALPHA = 0.05

# The column of each speed, and that of the samples that it is the median of.
SPEEDS = {
    "prefill_tokens_per_s": "prefill_samples_s",
    "decode_tokens_per_s": "decode_samples_s",
    "decode_tokens_per_s_full": "decode_full_samples_s",
}


@dataclass(frozen=True)
class Speeds:
    """Tokens a second by the median of all samples, their numbers, and how likely chance alone sets them so far apart.

    `factor` is how many times as long the slower one takes. `decidable` is whether so many samples can tell at all.
    """

    base: float | None
    head: float | None
    base_count: int
    head_count: int
    p_value: float | None

    @property
    def decidable(self) -> bool:
        """Whether there are enough samples for any difference to be significant."""
        return _least_p_value(self.base_count, self.head_count) < ALPHA

    @property
    def factor(self) -> float | None:
        """How many times as long the slower one takes; None where one of them is 0."""
        return max(self.base, self.head) / min(self.base, self.head) if self.base and self.head else None

    def apart(self, threshold: float) -> bool:
        """Whether they are further apart than `threshold`, a fraction; the same seen from either side."""
        return self.factor is not None and self.factor - 1 > threshold

    @property
    def significant(self) -> bool:
        """Whether chance alone sets them so far apart in fewer than `ALPHA` of all trials."""
        return self.p_value is not None and self.p_value < ALPHA


def compare_speeds(base: Sequence[CaseRow], head: Sequence[CaseRow], column: str) -> Speeds:
    """The samples behind `column` of all rows of `base` against those of `head`."""
    old, new = _rates(base, column), _rates(head, column)
    p_value = _p_value(old, new) if old and new else None
    return Speeds(median(old) if old else None, median(new) if new else None, len(old), len(new), p_value)


def _p_value(base: Sequence[float], head: Sequence[float]) -> float:
    from scipy.stats import mannwhitneyu  # takes a second or two, and simulated rows have no samples

    return float(mannwhitneyu(base, head, method="exact").pvalue)


def _rates(rows: Iterable[CaseRow], column: str) -> list[float]:
    """Tokens a second of every sample. How many tokens one timed is not stored: it follows from the median."""
    rates = []
    for row in rows:
        rate, samples = key_of(row, (column, SPEEDS[column]))
        seconds = [s for s in samples or [] if s is not None and math.isfinite(s) and s > 0]
        if rate is not None and math.isfinite(rate) and rate > 0 and seconds:
            tokens = rate * median(seconds)
            rates += [tokens / s for s in seconds]
    return rates


def _least_p_value(base_count: int, head_count: int) -> float:
    """The p value of samples that do not overlap at all: the smallest that so many can reach."""
    return 2 / math.comb(base_count + head_count, head_count)
