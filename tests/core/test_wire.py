"""What is sent comes back as it was, and what is something else is told from it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from bench.core import wire
from bench.core.case import Case, ModelSpec
from bench.core.device import DeviceSpec
from bench.core.messages import (
    CardFacts,
    Entered,
    Failure,
    Memory,
    Message,
    PhaseDone,
    PhaseProgress,
    Recorded,
    Result,
    Started,
    Timings,
    Versions,
    last,
    read_message,
)
from bench.core.outcome import Phase
from bench.core.requests import InspectCheckpoint, LayOut, Record, Recording, Request, RunCase, Wanted, read_request

MEMORY = Memory(1, 2, None, 3, 4, 5, 6)
FACTS = CardFacts(300, "12.8", 1 << 34, None, {"workspaces_bytes": [1, 2]})
MESSAGES: list[Message] = [
    Versions("2.13.0", "0.3.2"),
    Entered(Phase.PREFILL),
    Started("flash", ["a note"], FACTS),
    PhaseProgress(Phase.LOAD, 1, 2, "modules"),
    PhaseDone(Phase.DECODE, 0.5, MEMORY, Timings(decode_s=[0.25], decode_full_s=[], decode_tokens=32)),
    Result({"weights_bytes": 7, "logits_bytes": None}, [], CardFacts()),
    Failure("OutOfMemoryError", "CUDA out of memory", MEMORY),
    Failure("ValueError", "zweit: 'ö'\n", None),
    Recorded(Path("/tmp/a.npz")),
]
CASE = Case(
    model=ModelSpec("tiny", {"rope_scaling": {"factor": 2.0}, "layer_types": ["full"]}, "f1"),
    device=DeviceSpec("t4", "simulated", "T4", 16 << 30),
    bpw=4.0,
    head_bits=None,
    cache="Q4",
    lazy=True,
    attention="auto",
    max_seq_len=256,
    batch_size=1,
    max_input_len=2048,
)
REQUESTS: list[Request] = [
    RunCase(CASE, Path("/tmp/layouts")),
    LayOut(CASE, Path("/tmp/layout.json")),
    InspectCheckpoint(CASE, Path("/tmp/missing.json")),
    Record([Wanted(Recording.TRACE, CASE, Path("/tmp/a.npz"))], Path("/tmp/layouts")),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_back_as_it_was_sent(message: Message) -> None:
    line = wire.encode(message)
    assert "\n" not in line
    assert read_message(line.encode()) == message


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: type(request).__name__)
def test_a_request_comes_back_as_it_was_sent(request_: Request) -> None:
    assert read_request(wire.encode(request_)) == request_


def _changed(message: Message, **fields: Any) -> bytes:
    return json.dumps({**json.loads(wire.encode(message)), **fields}).encode()


def test_a_field_that_a_newer_program_sends_is_left_out() -> None:
    assert read_message(_changed(MESSAGES[1], cards=[0, 1])) == MESSAGES[1]


def test_a_field_that_is_not_sent_has_its_default_or_is_missed() -> None:
    assert read_message(b'{"kind": "Failure", "type": "E", "message": "m"}') == Failure("E", "m")
    with pytest.raises(ValueError, match=r"Failure\.message is missing"):
        read_message(b'{"kind": "Failure", "type": "E"}')


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"kind": "Resu', "Unterminated"),
        (b"[]", "None is none of Versions"),
        (b'{"kind": ["Result"]}', "is none of Versions"),
        (b'{"kind": "OfANewerWorker"}', "'OfANewerWorker' is none of Versions"),
        (_changed(MESSAGES[1], phase="lunch"), "lunch"),
        (_changed(MESSAGES[1], phase=None), r"Entered\.phase: None"),
        (_changed(MESSAGES[3], done=True), r"PhaseProgress\.done: True"),
        (_changed(MESSAGES[3], done="1"), r"PhaseProgress\.done: '1'"),
        (_changed(MESSAGES[4], seconds="1"), r"PhaseDone\.seconds: '1'"),
        (_changed(MESSAGES[4], memory={}), r"PhaseDone\.memory\.allocated_bytes is missing"),
        (_changed(MESSAGES[4], memory=3), r"PhaseDone\.memory: 3 is no Memory"),
        (_changed(MESSAGES[4], timings={"decode_s": [None]}), r"PhaseDone\.timings\.decode_s: None"),
        (_changed(MESSAGES[5], parts={"weights_bytes": 1.5}), r"Result\.parts: 1\.5"),
        (_changed(MESSAGES[8], path=8), r"Recorded\.path: 8"),
    ],
)
def test_what_is_no_message_is_an_error_that_names_what_is_wrong(line: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_message(line)


def test_the_last_of_a_kind() -> None:
    assert last(MESSAGES, Failure) == MESSAGES[7]
    assert last(MESSAGES[:5], Failure) is None


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Everything:
    """A field of each type that may be sent."""

    text: str
    flag: bool
    share: float
    colour: Colour | None
    paths: list[Path]
    each: dict[str, Colour]
    anything: Any = None
    names: list[str] = field(default_factory=list)


def test_every_type_that_may_be_sent_survives() -> None:
    record = Everything("a", True, 1, Colour.RED, [Path("b")], {"c": Colour.RED}, {"d": [None]}, ["e"])
    assert wire.from_json(Everything, wire.to_json(record)) == record
    assert wire.from_json(Everything, wire.to_json(Everything("", False, 0.5, None, [], {}))).names == []
    with pytest.raises(TypeError, match="object is nothing that is sent"):
        wire.to_json(Everything("", False, 0.5, None, [], {}, object()))
