"""What cards are called: by their name, and by what tells them from others of that name."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.core.columns import CARD, LIMIT
from bench.core.device import SIMULATED
from bench.core.identity import is_simulated, key_of, known
from bench.core.identity_columns import CardColumns
from bench.report.text.units import exact_size, size, size_in_mib

_UUID_DIGITS = 6
_MARK_DIGITS = 8
_LONGEST_SLUG = 100  # a name in a folder has 255 bytes at most, and more is put after this


@dataclass(frozen=True)
class _Fact:
    """A fact in words, and how its values are written: from the shortest way to the one that tells all apart."""

    words: str
    texts: tuple[Callable[[Any], str], ...]


def _totals(cards: str) -> list[int]:
    return [card["total_memory_bytes"] for card in json.loads(cards)]


def _sizes(cards: str) -> str:
    """`23.56 + 12.00 GiB`, of the cards of a machine."""
    return " + ".join(size(total).removesuffix(" GiB") for total in _totals(cards)) + " GiB"


def _exact_sizes(cards: str) -> str:
    return " + ".join(exact_size(total) for total in _totals(cards))


def limits_in_gib(limits: str) -> str:
    """`20.00 GiB + 10.00 GiB`, of the cards of a machine; `all` of one that has no limit."""
    return " + ".join(_of_a_card(limit, size) for limit in json.loads(limits))


def exact_limits(limits: str) -> str:
    """The same in bytes."""
    return " + ".join(_of_a_card(limit, exact_size) for limit in json.loads(limits))


def _of_a_card(limit: int | None, text: Callable[[Any], str]) -> str:
    return "all" if limit is None else text(limit)


def _mark(cards: str) -> str:
    """Where they differ in what no size tells."""
    return f"cards {hashlib.sha256(cards.encode()).hexdigest()[:_MARK_DIGITS]}"


def of_a_kind(count: int) -> str:
    """What several real cards that are told as one have in the place of their UUIDs."""
    return f"{count} of a kind"


def _is_of_a_kind(uuid: object) -> bool:
    return re.fullmatch(r"\d+ of a kind", str(uuid)) is not None


def _number(uuid: str) -> str:
    return uuid if _is_of_a_kind(uuid) else uuid[-_UUID_DIGITS:]


_FACTS = {
    "device_total_bytes": _Fact("{}", (size, exact_size)),
    "compute_capability": _Fact("compute capability {}", (str,)),
    "device_context_bytes": _Fact("context {}", (size_in_mib, exact_size)),
    "device_workspace_bytes": _Fact("workspace {}", (size_in_mib, exact_size)),
    "device_multi_processor_count": _Fact("{} multiprocessors", ("{:.0f}".format,)),
    "device_bandwidth_bytes_per_s": _Fact(
        "{} GB/s", (lambda value: f"{value / 1e9:.0f}", lambda value: str(value / 1e9))
    ),
    "device_cards": _Fact("{}", (_sizes, _exact_sizes, _mark)),
    "device_uuid": _Fact("[{}]", (lambda value: _number(str(value)), str)),
    "vram_limit_bytes": _Fact("limited to {}", (size, exact_size)),
    "vram_limits": _Fact("limited to {}", (limits_in_gib, exact_limits)),
}


def kind_word(row: CardColumns) -> str:
    """`simulated` or `measured`."""
    return SIMULATED if is_simulated(row) else "measured"


def texts_of(values: Iterable[Any], ways: Iterable[Callable[[Any], str]]) -> dict[Any, str]:
    """Each value as text, in the first of `ways` that makes no two of them look the same, else in the last."""
    values = set(values)
    told: dict[Any, str] = {}
    for way in ways:
        told = {value: way(value) for value in values}
        if len(set(told.values())) == len(values):
            break
    return told


class CardNames:
    """The names of `cards`, with the columns `CARD` and `LIMIT`; `real` is what those are called that are real."""

    def __init__(self, cards: Iterable[CardColumns], real: str = "measured") -> None:
        self._real = real
        distinct = {key_of(card, (*CARD, *LIMIT)): card for card in cards}
        groups: dict[tuple[Any, ...], list[CardColumns]] = {}
        self._kinds: dict[str, set[str]] = {}
        for card in distinct.values():
            groups.setdefault(_namesakes(card), []).append(card)
            self._kinds.setdefault(card["device_name"], set()).add(card["device_kind"])
        self._groups = {key: _Group(group) for key, group in groups.items()}
        self._slugs = _apart({key: self._slug(card) for key, card in distinct.items()})

    def short(self, card: CardColumns) -> str:
        """`rtx_4090`; of several with that name `rtx_4090 (1.00 GiB)`; then the limit within it."""
        group = self._group(card)
        kind = [self._kind(card)] if self._has_both_kinds(card) else []
        told = ", ".join([*kind, *group.told(card)])
        return " ".join([str(card["device_name"]), *([f"({told})"] if told else []), *group.end(card)])

    def title(self, card: CardColumns) -> str:
        """`rtx_4090 (simulated), 23.52 GiB limited to 8.00 GiB`."""
        group = self._group(card)
        total = group.text("device_total_bytes", card) or "–"
        facts = [total, *(fact for fact in group.told(card) if fact != total)]
        return " ".join([f"{card['device_name']} ({self._kind(card)}), {', '.join(facts)}", *group.end(card)])

    def slug(self, card: CardColumns) -> str:
        """The same for the name of a file, without what a name there cannot have; no two cards share one."""
        return self._slugs.get(key_of(card, (*CARD, *LIMIT))) or self._slug(card)

    def _slug(self, card: CardColumns) -> str:
        group, uuid, limit = self._group(card), card["device_uuid"], known(card["vram_limit_bytes"])
        unequal = group.text("vram_limits", card)
        kind = [self._kind(card)] if self._has_both_kinds(card) and uuid is None else []
        parts = [str(card["device_name"]), *kind, *(fact.replace(" ", "") for fact in group.told(card))]
        if unequal is not None:
            parts.append(unequal.removeprefix("limited to ").replace(" ", ""))
        elif limit is not None:
            whole = texts_of(group.values["vram_limit_bytes"], (lambda n: f"{int(n) >> 20}mib", lambda n: f"{n:.0f}b"))
            parts.append(whole[limit])
        parts += ["capped"] if card["vram_limit_by"] == "allocator" else []
        parts += [] if uuid is None else [str(group.text("device_uuid", card)).strip("[]")]
        return re.sub(r"[^\w.-]+", "_", "-".join(parts))[:_LONGEST_SLUG]

    def _kind(self, card: CardColumns) -> str:
        return SIMULATED if is_simulated(card) else self._real

    def _group(self, card: CardColumns) -> _Group:
        """Those of its name; a card that is not among them stands alone."""
        return self._groups.get(_namesakes(card)) or _Group([card])

    def _has_both_kinds(self, card: CardColumns) -> bool:
        return len(self._kinds.get(card["device_name"], ())) > 1


class _Group:
    """Cards of one kind and name."""

    def __init__(self, cards: list[CardColumns]) -> None:
        columns = (*CARD, *LIMIT)
        every = {name: {known(card.get(name)) for card in cards} for name in columns}
        self.values = {name: values - {None} for name, values in every.items()}
        # The uuid stands last, and a limit is always told.
        self._telling = _as_few_as_tell(cards, [name for name in CARD if name != "device_uuid"])
        self._has_several_uuids = len(every["device_uuid"]) > 1
        self._texts: dict[str, dict[Any, str]] = {}

    def text(self, name: str, card: CardColumns) -> str | None:
        """A fact in words; None where it is unknown."""
        fact = _FACTS.get(name) or _Fact(name + " {}", (str,))
        if name not in self._texts:
            self._texts[name] = texts_of(self.values[name], fact.texts)
        value = known(card.get(name))
        return None if value is None else fact.words.format(self._texts[name].get(value) or fact.texts[-1](value))

    def told(self, card: CardColumns) -> list[str]:
        """What tells it from the others, but for its number and its limit."""
        return [self.text(name, card) or _lacking(name) for name in self._telling]

    def end(self, card: CardColumns) -> list[str]:
        """The limit within it, who keeps to that, and its number where there are several."""
        limit = self.text("vram_limits", card) or self.text("vram_limit_bytes", card)
        if limit and known(card.get("vram_limits")) is None:
            limit += _each(card)
        capped = ["by PyTorch's allocator"] if card["vram_limit_by"] == "allocator" else []
        is_numbered = self._has_several_uuids or _is_of_a_kind(card["device_uuid"])
        number = [self.text("device_uuid", card) or "[no uuid]"] if is_numbered else []
        return [*([limit, *capped] if limit else []), *number]


def _each(card: CardColumns) -> str:
    """`, 5.00 GiB each` of the limit that all cards of a machine have together; nothing of one card."""
    cards, limit = known(card.get("device_cards")), known(card["vram_limit_bytes"])
    return "" if cards is None or limit is None else f", {size(limit / len(_totals(cards)))} each"


def _apart(slugs: Mapping[Any, str]) -> dict[Any, str]:
    """The same, but for those that are alike where files may have no capitals: the later ones are numbered."""
    taken: set[str] = set()
    told = {}
    for key, slug in slugs.items():
        free, number = slug, 1
        while free.lower() in taken:
            number += 1
            free = f"{slug}-{number}"
        taken.add(free.lower())
        told[key] = free
    return told


def _as_few_as_tell(cards: list[CardColumns], columns: list[str]) -> list[str]:
    """Those of `columns`, from the first on, that it takes to tell all cards apart that differ in any."""
    telling: list[str] = []
    for name in columns:
        if len({key_of(card, [*telling, name]) for card in cards}) > len({key_of(card, telling) for card in cards}):
            telling.append(name)
    return telling


def _namesakes(card: CardColumns) -> tuple[Any, ...]:
    return card["device_kind"], card["device_name"]


def _lacking(name: str) -> str:
    """`context not told`."""
    words = "memory {}" if name == "device_total_bytes" else _FACTS[name].words if name in _FACTS else name + " {}"
    return words.format("not told" if words.endswith("{}") else "unknown")
