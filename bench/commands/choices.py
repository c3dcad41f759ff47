"""Of each setting of a model whether it fits, by stored rows or else by prediction; what does is a choice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pandas as pd

from bench.analysis.quality import QualityRow
from bench.analysis.ranking import Basis, Choice, Quality, ranked
from bench.answers.forecast_rows import row_of
from bench.core.case import Case, Search
from bench.core.identity import identity_of, known
from bench.core.outcome import Outcome
from bench.forecast.forecaster import Forecast, Forecaster
from bench.launch.versions import installed_versions
from bench.report.choices import ChosenFor
from bench.report.text.plain_table import CardKey, card_key
from bench.run.resume import Stored

Pair = tuple[Search, Case]
_SURE = 0.95  # of the weights that a model is thought to have: it may have fewer
TOO_LARGE = "their weights alone leave less than the headroom, or are more than the card"
_NO_ROOM = "no setting that was asked for fits and leaves the headroom"


@dataclass
class _Card:
    case: Case  # one of those on it
    choices: list[Choice] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    assumed: dict[int, list[str]] = field(default_factory=dict)

    @property
    def total_bytes(self) -> int:
        return min(self.case.machine.total_memory_bytes, self.case.limit_bytes or self.case.machine.total_memory_bytes)


class Chooser:
    """Takes settings of one engine, and has for each card what is to be run there.

    `weights` are about how many each model has; `prepare` makes the recordings that predictions need.
    """

    def __init__(
        self,
        stored: Stored,
        forecaster: Forecaster,
        prepare: Callable[[Iterable[Case]], None],
        quality: pd.DataFrame,
        headroom_bytes: int,
        jobs: int,
    ) -> None:
        self._stored, self._forecaster, self._prepare = stored, forecaster, prepare
        self._headroom_bytes, self._jobs = headroom_bytes, jobs
        rows = cast(list[QualityRow], quality.to_dict("records"))
        self._quality = {
            (row["model"], row["bpw"], row["cache"], row["engine"]): Quality(
                row["quality"], known(row["quality_metric"]), known(row["quality_source"])
            )
            for row in rows
        }
        self._versions = installed_versions()
        self._cards: dict[CardKey, _Card] = {}
        self._searches: list[Search] = []
        self.weights: dict[str, int | None] = {}

    def add_card(self, case: Case) -> None:
        """Another card that is asked for, by a case on it."""
        self._cards.setdefault(_card_of(case), _Card(case))

    def leave_out(self, model: str, reason: str) -> None:
        """Says of all cards why a model is not looked at."""
        for card in self._cards.values():
            names = card.left_out.setdefault(reason, [])
            if model not in names:
                names.append(model)

    def could_hold(self, model: str, bpw: float) -> bool:
        """Whether the largest card has room for a model's weights by themselves, as far as its size is told."""
        return any(self._holds(card, model, bpw) for card in self._cards.values())

    def _holds(self, card: _Card, model: str, bpw: float) -> bool:
        weights = self.weights.get(model)
        taken_bytes = self._headroom_bytes + sum(device.context_bytes or 0 for device in card.case.devices)
        return weights is None or _SURE * weights * bpw / 8 + taken_bytes <= card.total_bytes

    def is_known(self, model: str) -> bool:
        """Whether there is a published figure of it, or a stored row on one of the cards."""
        cards = {card.case.machine.name for card in self._cards.values()}
        return any(key[0] == model for key in self._quality) or any(
            row["model"] == model and row["device_name"] in cards for row in self._stored.answers.values()
        )

    def have(self, count: int) -> bool:
        """Whether each card has so many models to run."""
        return all(len({choice.model for choice in card.choices}) >= count for card in self._cards.values())

    def not_recorded(self, pairs: Sequence[Pair]) -> list[str]:
        """The models of which something would have to be recorded first, to predict these settings."""
        wanted = [case for _, case in pairs if self._holds(self._cards[_card_of(case)], case.model.name, case.bpw)]
        return list(dict.fromkeys(case.model.name for case in wanted if self._forecaster.needs_recording(case)))

    def take(self, pairs: Sequence[Pair]) -> None:
        """Finds which of these settings fit: by their rows, and where there are none by prediction."""
        looked_at: dict[tuple[CardKey, str], dict[str, None]] = {}
        asked, pairs = pairs, []
        for search, case in asked:
            if self._holds(self._cards[_card_of(case)], case.model.name, case.bpw):
                pairs.append((search, case))
            else:
                looked_at.setdefault((_card_of(case), case.model.name), {})[TOO_LARGE] = None
        self._prepare([case for _, case in pairs])
        forecasts = self._forecaster.forecast_all([case for _, case in pairs], self._jobs)
        for (search, case), forecast in zip(pairs, forecasts, strict=True):
            card = self._cards[_card_of(case)]
            reasons = looked_at.setdefault((_card_of(case), case.model.name), {})
            choice = self._choice(search, case, forecast)
            if isinstance(choice, Choice):
                card.choices.append(choice)
                card.assumed[choice.number] = row_of(forecast, None, ()).assumed
            else:
                reasons[choice] = None
        for (key, model), why in looked_at.items():
            card = self._cards[key]
            if not any(choice.model == model for choice in card.choices):
                # Where anything could be told, that nothing fits is the answer.
                reason = _NO_ROOM if _NO_ROOM in why else next(iter(why))
                card.left_out.setdefault(reason, []).append(model)

    def _choice(self, search: Search, case: Case, forecast: Forecast) -> Choice | str:
        """What is known of a setting that fits; or why it is none to choose."""
        told = row_of(forecast, None, ())
        found = self._shown(search, case)
        if found is None and told.fits is None:
            return f"not predicted: {told.reason}"
        left, of_run = told.headroom_bytes if told.fits else None, False
        exact = self._stored.answers.get(case.case_id(self._versions))
        if exact is not None and exact["peak_device_bytes"] is not None:
            left, of_run = self._cards[_card_of(case)].total_bytes - exact["peak_device_bytes"], True
        basis, fits_at = found or (Basis.PREDICTED if told.fits else None, None)
        if basis is None or (left is not None and left < self._headroom_bytes):
            return _NO_ROOM
        if left is None:
            return "a row shows that it fits, and nothing tells what is left of the card"
        self._searches.append(search)
        return Choice(
            number=len(self._searches) - 1,
            model=case.model.name,
            weights=self.weights.get(case.model.name),
            bpw=case.bpw,
            head_bits=case.head_bits,
            cache=case.cache,
            basis=basis,
            headroom_bytes=left,
            is_headroom_of_run=of_run,
            quality=self._quality.get((case.model.name, case.bpw, case.cache, case.engine)),
            fits_at=fits_at,
            fits_at_basis=None if fits_at is None else basis,
        )

    def _shown(self, search: Search, case: Case) -> tuple[Basis | None, int | None] | None:
        """What stored rows have shown of the wanted length: how, and the longest that fits; no basis where it does not
        fit, None where they do not tell.
        """
        answer = self._stored.answer(search, self._versions)
        if answer is not None and answer[0] in (Outcome.FITS, Outcome.OOM):
            fits_at = answer[1] or 0
            return (Basis.CERTIFIED, fits_at) if fits_at >= case.max_seq_len else (None, None)
        rows = self._stored.answers_of(search, self._versions)
        fits = [row["max_seq_len"] for row in rows if row["outcome"] == Outcome.FITS]
        fails = [row["max_seq_len"] for row in rows if row["outcome"] == Outcome.OOM]
        if any(length <= case.max_seq_len for length in fails):
            return None, None
        longest = max((length for length in fits if length >= case.max_seq_len), default=None)
        return None if longest is None else (Basis.RUN, longest)

    def answers(self, top: int | None) -> Iterator[ChosenFor]:
        """For each card what to run, the best first; of those that are predicted `top` models at most."""
        chosen = {key: _first(ranked(card.choices), top) for key, card in self._cards.items()}
        open_ends = [
            choice for choices in chosen.values() for choice in choices if choice.fits_at_basis is not Basis.CERTIFIED
        ]
        searches = [self._searches[choice.number] for choice in open_ends]
        self._prepare([search.longest for search in searches])
        forecasts = self._forecaster.forecast_all(searches, self._jobs)
        longest = {choice.number: forecast.fits_at for choice, forecast in zip(open_ends, forecasts, strict=True)}
        for key, card in self._cards.items():
            choices = [_with_end(choice, longest.get(choice.number)) for choice in chosen[key]]
            ends = {choice.number: self._searches[choice.number].search_end for choice in choices}
            named = {choice.model for choice in choices}
            cut = sorted({choice.model for choice in card.choices} - named)
            left_out = {**card.left_out, **({"fit, and rank below those that are named": cut} if cut else {})}
            assumed = list(dict.fromkeys(note for each in choices for note in card.assumed[each.number]))
            yield ChosenFor(
                identity_of(card.case), self._headroom_bytes, choices, ends, left_out, assumed, card.case.engine
            )


def _with_end(choice: Choice, predicted: int | None) -> Choice:
    """With the longest that is predicted to fit, where that is more than any row has shown."""
    if predicted is None or predicted <= (choice.fits_at or 0):
        return choice
    return replace(choice, fits_at=predicted, fits_at_basis=Basis.PREDICTED)


def _first(choices: Sequence[Choice], top: int | None) -> list[Choice]:
    """All that were shown, and of the others so many models."""
    shown = [choice for choice in choices if choice.is_shown]
    return [*shown, *[choice for choice in choices if not choice.is_shown][:top]]


def _card_of(case: Case) -> CardKey:
    columns: Any = identity_of(case)
    return card_key(columns)
