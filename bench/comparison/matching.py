"""Which card and which model of one result set is which of the other.

A fact that varies within one set tells its cards, or its models, apart; one that does not may have changed between the
two: a card may have another context by now, and a model's folder another name. Pure.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from bench.core.columns import CARD, LIMIT, SETTING, WEIGHTS
from bench.core.identity import AnyRow, completed, key_of, known

# One product has one memory; what CUDA and NVML call its total differs by a percent or two.
SAME_TOTAL = 0.05
# All that is asked of a card and a model. `attention_requested`, not what ran: that it ran with another is a finding.
ASKED = (*LIMIT, *SETTING, "max_seq_len", "search_axis")

_NAMESAKES = ("device_kind", "device_name")
_FACTS = tuple(name for name in CARD if name not in _NAMESAKES)
# What names of folders and branches say of bits: mine-4.0bpw, mine/4_25bpw-h6, mine@6.5bpw.
_BITS = re.compile(
    r"@.*$|[-_/. ](?:exl2[-_/. ]?)?\d+(?:[._]\d+)?[-_ ]?bpw(?:[-_ ]?h\d+)?$|/(?:exl2|\d+(?:[._]\d+)?(?:[-_]h\d+)?)$",
    re.I,
)

Key = tuple[Any, ...]


class Matching:
    """The identities of two sets of rows. With `allow_model_change` a model matches another quantisation of it."""

    def __init__(self, base: Sequence[AnyRow], head: Sequence[AnyRow], allow_model_change: bool = False) -> None:
        self._completed = completed([*base, *head])
        self.allow_model_change = allow_model_change
        sides = [[self._whole(row) for row in rows] for rows in (base, head)]
        self._telling = _telling(sides)
        self._totals = _totals(sides)
        self._models = _quantisations(sides) if allow_model_change else _models(sides)
        self._asked = tuple(name for name in ASKED if not (allow_model_change and name in WEIGHTS))

    def key(self, row: AnyRow) -> Key:
        """The same for rows that answer the same question."""
        return (self.card(row), self.model(row), self.asked(row))

    def card(self, row: AnyRow) -> Key:
        """What tells the card of `row` from the others of both sets."""
        whole = self._whole(row)
        name = key_of(whole, _NAMESAKES)
        facts = {**whole, "device_total_bytes": self._totals.get((*name, known(whole.get("device_total_bytes"))))}
        return (*name, *key_of(facts, self._telling.get(name, ())))

    def model(self, row: AnyRow) -> Key:
        """What tells the model of `row` from the others of both sets."""
        return self._models[_variant(row) if self.allow_model_change else _model(row)]

    def asked(self, row: AnyRow) -> Key:
        """The limit and the settings of `row`."""
        return key_of(row, self._asked)

    def _whole(self, row: AnyRow) -> AnyRow:
        """The row with what others tell of its card."""
        told = self._completed and self._completed.get(key_of(row, (*CARD, "schema_version")))
        return {**row, **told} if told else row


def family(name: str) -> str:
    """A model's name without what it says of bits, and without its revision."""
    return _BITS.sub("", name)


def _telling(sides: Sequence[Sequence[AnyRow]]) -> dict[Key, tuple[str, ...]]:
    """The facts that tell cards of one kind and name apart."""
    seen: dict[Key, dict[str, set[Any]]] = defaultdict(lambda: defaultdict(set))
    telling: dict[Key, set[str]] = defaultdict(set)
    for rows in sides:
        seen.clear()
        for card in {key_of(row, CARD) for row in rows}:
            for name, value in zip(CARD, card, strict=True):
                seen[card[: len(_NAMESAKES)]][name].add(value)
        for card, facts in seen.items():
            # A card's own number, where it is known, is what one must not mix up; unknown is no other card.
            telling[card] |= {name for name in _FACTS if len(facts[name] - _nothing(name)) > 1}
    return {card: tuple(name for name in _FACTS if name in names) for card, names in telling.items()}


def _nothing(name: str) -> set[None]:
    return {None} if name in ("device_uuid", "device_total_bytes") else set()


def _totals(sides: Sequence[Sequence[AnyRow]]) -> dict[Key, int | None]:
    """The memory of each kind, name and total as it counts: one for totals that differ by little between the sides."""
    column = (*_NAMESAKES, "device_total_bytes")
    both = [{key_of(row, column) for row in rows} for rows in sides]
    totals: dict[Key, int | None] = {}
    groups: dict[Key, list[int]] = defaultdict(list)
    for kind, called, total in both[0] | both[1]:
        if total is not None:
            groups[kind, called].append(total)
    for name, sizes in groups.items():
        for alike in _clusters(sorted(sizes)):
            changed = all(sum((*name, size) in side for size in alike) <= 1 for side in both)
            totals |= {(*name, size): alike[0] if changed else size for size in alike}
    return totals


def _clusters(sizes: list[int]) -> Iterable[list[int]]:
    alike: list[int] = []
    for size in sizes:
        if alike and size - alike[0] > SAME_TOTAL * size:
            yield alike
            alike = []
        alike = [*alike, size]
    yield alike


def _model(row: AnyRow) -> Key:
    return key_of(row, ("model", "model_fingerprint"))


def _variant(row: AnyRow) -> Key:
    return (*_model(row), *key_of(row, WEIGHTS))


def _models(sides: Sequence[Sequence[AnyRow]]) -> dict[Key, Key]:
    """Each model by its fingerprint, and by its name too where one side has several names for it."""
    both = [{_model(row) for row in rows} for rows in sides]
    everything = both[0] | both[1]
    prints: dict[Any, set[Any]] = defaultdict(set)
    for name, fingerprint in everything:
        prints[name] |= {fingerprint} - {None}
    has_several_names = {
        fingerprint for side in both for _, fingerprint in side if sum(one == fingerprint for _, one in side) > 1
    }

    def identity(name: Any, fingerprint: Any) -> Key:
        if fingerprint is None and len(prints[name]) == 1:
            (fingerprint,) = prints[name]  # a row that does not tell, of a name that stands for one
        return (fingerprint, name) if fingerprint is None or fingerprint in has_several_names else (fingerprint,)

    return {model: identity(*model) for model in everything}


def _quantisations(sides: Sequence[Sequence[AnyRow]]) -> dict[Key, Key]:
    """Each model and its bits. What is on both sides is itself; what is left of one family, of the same bits or alone,
    is another quantisation of it.
    """
    both = [{_variant(row) for row in rows} for rows in sides]
    found = {variant: variant for variant in both[0] | both[1]}
    left = [side - other for side, other in (both, both[::-1])]
    for columns in (WEIGHTS, ()):
        groups: list[dict[Key, list[Key]]] = [defaultdict(list), defaultdict(list)]
        for group, side in zip(groups, left, strict=True):
            for variant in side:
                bits = dict(zip(WEIGHTS, variant[2:], strict=True))
                group[family(str(variant[0])), *(bits[name] for name in columns)].append(variant)
        for name in set(groups[0]) & set(groups[1]):
            if len(groups[0][name]) == len(groups[1][name]) == 1:
                (old,), (new,) = groups[0][name], groups[1][name]
                found[new] = old
                left[0].discard(old)
                left[1].discard(new)
    return found
