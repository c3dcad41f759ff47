"""A smaller card inside a real one: another process holds the rest of it, so that everything sees a small card.

The memory is plain cudaMalloc, by way of PyTorch; managed memory would make room for others. The holder is forked from
the worker of one case, before that has touched CUDA, and lives no longer: it waits at a pipe whose other end only the
worker has.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from bench.core.errors import first_line
from bench.core.lifeline import die_with_parent

# What the process before us held comes back a moment after its end.
_SETTLE_S = 0.05
_PATIENCE_S = 10.0


class CannotReserve(RuntimeError):
    """No process could make the card as small as it should be; the text says why and what to do."""


@dataclass(frozen=True)
class Ballast:
    """All of a card that is not the smaller one inside it, whoever holds it. `release` gives it back."""

    held_bytes: int
    _pid: int
    _lifeline: int

    def release(self) -> None:
        """Ends the holder and waits for its end. A worker that dies ends it, too, and nobody waits."""
        os.close(self._lifeline)
        os.waitpid(self._pid, 0)


def reserve_all_but(left_bytes: int, uuid: str | None = None) -> Ballast:
    """Leaves `left_bytes` of the GPU `uuid`, or up to 2 MiB less: the driver counts in such pieces.

    Without `uuid` it is the first that is visible. To be called before CUDA is initialised here. Raises
    `CannotReserve`.
    """
    answers, answer = os.pipe()
    lifeline_end, lifeline = os.pipe()
    worker = os.getpid()
    pid = os.fork()
    if not pid:
        die_with_parent(worker)
        _hold(left_bytes, uuid, lifeline_end, answer)
    os.close(answer)
    os.close(lifeline_end)
    with os.fdopen(answers, "rb") as stream:
        said: dict[str, Any] = json.loads(stream.read() or b'{"error": "the process that should hold it has died"}')
    ballast = Ballast(said.get("held_bytes", 0), pid, lifeline)
    if "error" in said:
        ballast.release()
        raise CannotReserve(
            f"no smaller card of {left_bytes:,} B: {said['error']}; vram_limit_by=allocator caps PyTorch instead"
        )
    return ballast


def _hold(left_bytes: int, uuid: str | None, lifeline: int, answer: int) -> NoReturn:
    """The holder's life. Says on `answer` what is held, and ends when nobody is left at the other end of `lifeline`."""
    try:
        if uuid is not None:  # of several cards it sees its own alone, and takes no context on the others
            os.environ["CUDA_VISIBLE_DEVICES"] = uuid
        _close_all_but(lifeline, answer)  # the records of the case are not ours to keep open
        said: dict[str, Any]
        held: list[torch.Tensor] = []
        try:
            held, held_bytes = _fill(left_bytes)
            said = {"held_bytes": held_bytes}
        except RuntimeError as error:  # of CUDA and of PyTorch's allocator, all are of this kind
            said = {"error": first_line(error)}
        os.write(answer, json.dumps(said).encode())
        os.close(answer)
        os.read(lifeline, 1)
        del held
    finally:
        os._exit(0)


def _close_all_but(*kept: int) -> None:
    first = 3  # after the standard ones
    for fd in sorted(kept):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))


def _fill(left_bytes: int) -> tuple[list[torch.Tensor], int]:
    """What was taken, and how much of the card is gone then."""
    held: list[torch.Tensor] = []
    deadline = time.monotonic() + _PATIENCE_S
    while (free_bytes := _settled_bytes()) < left_bytes:
        if time.monotonic() > deadline:
            raise RuntimeError(f"only {free_bytes:,} B of the card are free")
    while (free_bytes := _settled_bytes()) > left_bytes:  # PyTorch takes whole pieces of 2 MiB
        held.append(torch.empty(free_bytes - left_bytes, dtype=torch.uint8, device="cuda:0"))
    return held, torch.cuda.mem_get_info(0)[1] - free_bytes


def _settled_bytes() -> int:
    """What is free, when that changes no more."""
    free_bytes = -1
    while free_bytes != (now_free := torch.cuda.mem_get_info(0)[0]):
        free_bytes = now_free
        time.sleep(_SETTLE_S)
    return free_bytes
