"""A case as a recording and a replay see it: sections, which are loading, making the cache, and the engine's passes.

Which passes an engine makes of the steps of a scenario, and which of them allocate alike, are the engine's own rules: a
`Setup` (`bench.engines`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class NoPrediction(Exception):
    """The recordings follow no rule that is known here; the text says what does not."""


class Pass(NamedTuple):
    """One section of a case: a pass of `q_len` tokens after which the cache holds `k_len`; 0 outside of passes.

    Passes of one `kind` allocate the same, but for sizes that follow from the lengths. Some are `of_draft`, a model
    that proposes tokens to the one that the case is about.
    """

    phase: str
    kind: str
    q_len: int = 0
    k_len: int = 0
    of_draft: bool = False


CACHE_OF_DRAFT = "draft_cache"  # the kind of the section in which a draft model's cache is made


class Schedule(NamedTuple):
    """Every section of a case, in order, in arrays: of long cases there may be a hundred thousand.

    Section i is like the pass `distinct[which[i]]`, but of its own `lengths[i]`, which are q_len and k_len. Where the
    engine would never come to an end, `endless` says why, and the sections end there.
    """

    distinct: list[Pass]
    which: NDArray[np.int64]
    lengths: NDArray[np.int64]
    endless: str | None = None

    def passes(self) -> list[Pass]:
        """Every section as a pass."""
        return [
            self.distinct[index]._replace(q_len=q_len, k_len=k_len)
            for index, (q_len, k_len) in zip(self.which.tolist(), self.lengths.tolist(), strict=True)
        ]


class Setup(Protocol):
    """An engine's rules for one search: what decides, with the length of a case, which passes there are.

    It is kept with a trace as `to_plain` gives it.
    """

    @property
    def attention(self) -> str:
        """The attention back end that runs."""

    def within(self, cache_size: int | None, max_seq_len: int | None = None, turns: int = 1) -> Any:
        """The same rules, of a type of their own, for cases whose jobs share a cache of so many tokens.

        With a `max_seq_len` every length, here and below, is that of the cache, and jobs have that `max_seq_len`.
        `turns` are those of the cases.
        """

    def lengths_at(self, length: int) -> tuple[int, int]:
        """`max_seq_len` of a case of that length, and the tokens of its cache."""

    def schedule(self, max_seq_len: int) -> Schedule:
        """Every section of a case of that length."""

    def chunk_count(self, tokens: int) -> int:
        """Into how many chunks a prompt of so many tokens is split."""

    def whole_lengths(self) -> list[int]:
        """The lengths at which a case is recorded from its beginning to its end."""

    def larger_caches(self) -> list[tuple[int, int]]:
        """Lengths at which a case is also recorded to its end with a larger cache than it asks for, of so many tokens.

        They show what the cache's own length has to do with sizes.
        """

    def load_lengths(self) -> list[int]:
        """The lengths at which no more is recorded than loading and the making of the cache."""

    def extra_passes(self, max_seq_len: int) -> list[Pass]:
        """What is recorded after a whole case of that length: passes that others come to."""

    def whole_passes(self, max_seq_len: int) -> list[Pass]:
        """Every section of a whole case of that length as it is recorded, with the extra passes."""

    def longest_chunk(self, max_seq_len: int) -> int:
        """The tokens that the scratch buffer must be large enough for."""

    def in_words(self, each: Pass) -> str:
        """A pass, for people."""

    def to_plain(self) -> dict[str, Any]:
        """The rules as plain data."""
