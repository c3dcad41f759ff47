"""What a parent asks a child for, a class for each kind of request."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import get_args

from bench.core import wire
from bench.core.case import Case


class Recording(StrEnum):
    """What a prediction is made of."""

    TRACE = "trace"  # the allocations of a case, for any length
    TENSORS = "tensors"  # the sizes of a checkpoint's tensors
    LOADING = "loading"  # the allocations up to the first prompt of any length, of a checkpoint of those bits


@dataclass(frozen=True)
class RunCase:
    """Run a case; checkpoints made for it go below `layouts`."""

    case: Case
    layouts: Path


@dataclass(frozen=True)
class SelfTest:
    """Take known sizes on the cards of a case, of which nothing else counts, and tell what they say of it."""

    case: Case


@dataclass(frozen=True)
class LayOut:
    """Write what is in the checkpoint of a case to `path`."""

    case: Case
    path: Path


@dataclass(frozen=True)
class InspectCheckpoint:
    """Write what is wrong with the checkpoint of a case to `path`, and why the engine refuses it, if it does."""

    case: Case
    path: Path


@dataclass(frozen=True)
class Wanted:
    """One recording, to be written to `path`."""

    recording: Recording
    case: Case
    path: Path


@dataclass(frozen=True)
class Record:
    """Make recordings, one after the other; checkpoints made for them go below `layouts`."""

    wanted: list[Wanted]
    layouts: Path


Request = RunCase | SelfTest | LayOut | InspectCheckpoint | Record
_KINDS: dict[str, type[Request]] = {kind.__name__: kind for kind in get_args(Request)}


def read_request(text: str) -> Request:
    """Raises ValueError for text that is no request."""
    return wire.decode(text, _KINDS)


def cases_of(request: Request) -> list[Case]:
    """The cases that a request is about."""
    return [wanted.case for wanted in request.wanted] if isinstance(request, Record) else [request.case]
