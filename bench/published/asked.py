"""What is asked of a case to be held against one published figure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from bench.core.case import Case
from bench.core.outcome import Outcome, Phase
from bench.published.compared import Cause, Compared, Section
from bench.published.runs import Ran
from bench.synth.layout import Layout

_SIZE = r"(\d+(?:\.\d+)?) (bytes|KiB|MiB|GiB)"
_UNIT_BYTES = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
# Our own message is written as PyTorch writes its own (`bench.allocator.oom_text`): it is read as theirs was.
_MESSAGE = {
    "tried": re.compile(rf"Tried to allocate {_SIZE}"),
    "total": re.compile(rf"total capacity of {_SIZE}"),
    "free": re.compile(rf"of which {_SIZE} is free"),
    "allocated": re.compile(rf"{_SIZE} is allocated by PyTorch"),
    "reserved_unallocated": re.compile(rf"{_SIZE} is reserved by PyTorch but unallocated"),
}
MESSAGE_FIGURES = tuple(_MESSAGE)


@dataclass(frozen=True)
class Answer:
    """A figure of ours and the predicted one, None where there is none; or why there is none at all."""

    ours: float | None
    predicted: float | None = None
    text: str | None = None
    predicted_text: str | None = None
    none_because: str | None = None


Of = Callable[[Ran], Answer]


@dataclass(frozen=True)
class Asked:
    """A figure and what answers it: runs of `cases`, the layout of one, or nothing where it is answered already.

    `of` reads the run of the first case; of two cases the answer is what the second has more.
    """

    compared: Compared
    cases: tuple[Case, ...] = ()
    of: Of | None = None
    layout_of: Case | None = None
    size_of: Callable[[Layout], int] | None = None

    def answered(self, ran: dict[Case, Ran], layouts: dict[Case, Layout]) -> Compared:
        """The figure with ours beside it."""
        if self.size_of is not None and self.layout_of is not None:
            layout = layouts.get(self.layout_of)
            if layout is None:
                return replace(self.compared, not_comparable="the engine lays out no such checkpoint")
            return replace(self.compared, ours=float(self.size_of(layout)))
        if self.of is None:
            return self.compared
        answers = [self.of(ran[case]) for case in self.cases]
        if reason := next((each.none_because for each in answers if each.none_because), None):
            return replace(self.compared, not_comparable=reason)
        if len(answers) == 1:
            (answer,) = answers
            return replace(
                self.compared,
                ours=answer.ours,
                predicted=answer.predicted,
                our_text=answer.text,
                predicted_text=answer.predicted_text,
            )
        less, more = answers
        return replace(self.compared, ours=_more(less.ours, more.ours), predicted=_more(less.predicted, more.predicted))


def _more(less: float | None, more: float | None) -> float | None:
    return None if less is None or more is None else more - less


def held_bytes_after(ran: Ran, phase: Phase) -> int | None:
    """What the card held when a phase was over; None where it never was."""
    memory = ran.after.get(phase)
    return None if memory is None else memory.device_bytes


def held_after(phase: Phase) -> Of:
    """What the card held when a phase was over."""

    def read(ran: Ran) -> Answer:
        held_bytes = held_bytes_after(ran, phase)
        if held_bytes is None:
            return Answer(None, none_because=f"ours ended before: {ran.outcome} in {ran.phase}")
        return Answer(float(held_bytes))

    return read


def peak(ran: Ran) -> Answer:
    """The most that the card held."""
    held_bytes = ran.at_end.peak_device_bytes if ran.at_end else None
    if ran.outcome is not Outcome.FITS or held_bytes is None:
        return Answer(None, none_because=f"ours has no peak: {ran.outcome} in {ran.phase}")
    predicted = ran.predicted_peak_bytes
    return Answer(float(held_bytes), None if predicted is None else float(predicted))


def of_message(name: str) -> Of:
    """A figure of our out-of-memory message."""

    def read(ran: Ran) -> Answer:
        if ran.outcome is not Outcome.OOM:
            return Answer(None, none_because=f"ours does not run out of memory: {ran.outcome}")
        found = _MESSAGE[name].search(ran.error or "")
        if not found:
            return Answer(None, none_because="our message does not tell it")
        return Answer(float(found[1]) * _UNIT_BYTES[found[2]])

    return read


def phase_of_failure(ran: Ran) -> Answer:
    """In which phase memory runs out."""
    text = str(ran.phase) if ran.outcome is Outcome.OOM else str(ran.outcome)
    return Answer(None, text=text, predicted_text=_predicted_verdict(ran))


def verdict(ran: Ran) -> Answer:
    """Whether it fits."""
    if ran.outcome not in (Outcome.FITS, Outcome.OOM):
        return Answer(None, none_because=f"ours has no verdict: {ran.outcome}, {(ran.error or '')[:120]}")
    text = "fits" if ran.outcome is Outcome.FITS else "does not fit"
    return Answer(None, text=text, predicted_text=_predicted_verdict(ran))


def _predicted_verdict(ran: Ran) -> str | None:
    if ran.predicted_fits is None:
        return None
    return "fits" if ran.predicted_fits else "does not fit"


def cause_of(compared: Compared, version: str | None, made_up: bool, ours: str | None) -> tuple[Cause, str]:
    """What is named as the cause where nobody has looked into it: the first thing that is known to differ."""
    if compared.section is Section.SPEED:
        return Cause.OUTSIDE, "time is not simulated: the estimate is from bandwidth alone"
    if made_up:
        return Cause.OUTSIDE, "the layout of the checkpoint: ours is made up for the mean"
    if compared.unknown:
        return Cause.UNKNOWN, compared.unknown
    if version and version != ours:
        return Cause.VERSION, f"{version} was run, {ours} is simulated"
    return Cause.FAULT, "not explained"
