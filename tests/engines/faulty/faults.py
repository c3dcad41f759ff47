"""What a child may do in the middle of a case, by name."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import NoReturn

import torch

MOST_HOST_BYTES = 640 << 20  # of this machine's memory that a child may eat
_TIB = 1 << 40
_MANY = 12 << 20  # bytes of output; what four passes write is within what is kept of a log
_MANY_IN_MESSAGES = 12 << 20
_FOR_EVER_S = 3600.0


class _Unspeakable(Exception):
    def __str__(self) -> str:
        raise TypeError("no text")


def _raise(error: BaseException) -> NoReturn:
    raise error


def _raising(kind: type[BaseException], *said: object) -> Callable[[], NoReturn]:
    return lambda: _raise(kind(*said))


def _full_card(text: str) -> None:
    """Takes all of the card, and then fails with `text`."""
    held = []
    for size_bytes in (1 << 30, 64 << 20, 2 << 20):
        try:
            while True:
                held.append(torch.empty(size_bytes, dtype=torch.uint8, device="cuda:0"))
        except torch.OutOfMemoryError:
            continue
    raise RuntimeError(text)


def _allocate_too_much() -> None:
    torch.empty(_TIB, dtype=torch.uint8, device="cuda:0")


def _abort_out_of_cpp(said: str) -> None:
    os.write(2, said.encode())
    os.abort()


def _die_of(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_DFL) if number not in (signal.SIGKILL, signal.SIGSTOP) else None
    os.kill(os.getpid(), number)
    time.sleep(_FOR_EVER_S)


def _at_its_end(do: Callable[[], None]) -> None:
    """Does it when everything was told and the process is about to end well."""
    end = os._exit

    def instead(code: int) -> None:
        do()
        end(code)

    os._exit = instead  # type: ignore[assignment]


def _hang() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        time.sleep(_FOR_EVER_S)


def _leave_grandchild(then: Callable[[], None] = lambda: None, own_session: bool = False) -> None:
    """Starts a process that keeps every channel open, prints its number, and does `then`."""
    read_fd, write_fd = os.pipe()
    if not os.fork():
        if own_session:
            os.setsid()
        if own_session and os.fork():  # a daemon: its parent has ended
            os._exit(0)
        os.write(write_fd, f"grandchild {os.getpid()}\n".encode())
        os.close(read_fd)
        _hang()
    os.write(1, os.read(read_fd, 64))
    then()


def _message_pipe() -> int:
    """The descriptor on which messages go to the parent: its one pipe."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) > 2 and os.readlink(f"/proc/self/fd/{name}").startswith("pipe:"):
                return int(name)
        except OSError:
            continue
    raise LookupError("no pipe")


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _write(channel: str, data: bytes) -> None:
    _write_all({"stdout": 1, "stderr": 2}.get(channel) or _message_pipe(), data)


def _write_for_ever(channel: str, data: bytes) -> NoReturn:
    while True:
        _write(channel, data)
        time.sleep(0.05)  # others work on this machine


def _cut_off(last: bytes) -> None:
    """Half a message, and the end."""
    _write("messages", last)
    os._exit(0)


def _eat_host_memory() -> None:
    eaten = []
    while True:
        piece = bytearray(32 << 20)
        piece[:: os.sysconf("SC_PAGE_SIZE")] = b"\1" * len(piece[:: os.sysconf("SC_PAGE_SIZE")])
        eaten.append(piece)
        if len(eaten) << 25 > 4 * MOST_HOST_BYTES:
            raise AssertionError("nobody minded")


def _open_all_files() -> None:
    held = []
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))


def _recurse(depth: int = 0) -> int:
    return _recurse(depth + 1) + 1


_GARBAGE = bytes(range(256)) * 64
_LIES = (
    b'{"kind": "Result"}\n{"kind": "Farewell"}\n[1, 2]\nnull\n\xff\xfe\n{"kind": "Entered", "phase": "lunch"}\n'
    + b"[" * 100_000
    + b"\n"
    + b"9" * 5_000
    + b'\n{"kind": "PhaseDone", "phase": "load", "seconds": "long"}\n'
)
_CPP = "terminate called after throwing an instance of '{}'\n  what():  {}\n"
_NOT_INITIALIZED = "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"
_CUDA_OOM = "CUDA out of memory. Tried to allocate 212.00 MiB."

_leaked: list[torch.Tensor] = []


def _leak(size_bytes: int) -> None:
    _leaked.append(torch.empty(size_bytes, dtype=torch.uint8, device="cuda:0"))


FAULTS: dict[str, Callable[[], object]] = {
    "none": lambda: None,
    # Out of the card's memory
    "oom_of_torch": _allocate_too_much,
    "oom_exllamav2_load": _raising(RuntimeError, "Insufficient VRAM for model and cache"),
    "oom_exllamav2_split": _raising(AssertionError, "Insufficient space in device allocation"),
    "oom_exllamav3_load": _raising(RuntimeError, "Insufficient VRAM in split for model and cache"),
    "oom_exllamav3_buffers": _raising(RuntimeError, "exl3 workspace allocation failed"),
    "oom_cuda_error": _raising(RuntimeError, "CUDA error: out of memory\nCUDA kernel errors might be asynchronous"),
    "oom_driver": _raising(RuntimeError, "CUDA driver error: out of memory"),
    "oom_cublas": _raising(RuntimeError, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "oom_cudnn": _raising(RuntimeError, "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "cublas_on_a_full_card": partial(_full_card, _NOT_INITIALIZED),
    "cublas_on_an_empty_card": _raising(RuntimeError, _NOT_INITIALIZED),
    "oom_abort": partial(_abort_out_of_cpp, _CPP.format("c10::OutOfMemoryError", _CUDA_OOM)),
    "leaks_1_mib": partial(_leak, 1 << 20),  # in each prompt, of which the first turn has two
    "leaks_5_gib": partial(_leak, 5 << 30),
    # Out of the host's
    "memory_error": lambda: bytearray(_TIB),
    "host_oom_of_torch": _raising(RuntimeError, "DefaultCPUAllocator: can't allocate memory: you tried 137438953472"),
    "host_enomem": _raising(OSError, errno.ENOMEM, "Cannot allocate memory"),
    "host_abort": partial(_abort_out_of_cpp, _CPP.format("std::bad_alloc", "std::bad_alloc")),
    "eats_host_memory": _eat_host_memory,
    "disk_full": _raising(OSError, errno.ENOSPC, "No space left on device"),
    "no_descriptors": _open_all_files,
    # Errors of any other kind
    "value_error": _raising(ValueError, "no such rope"),
    "recursion": _recurse,
    "system_exit": _raising(SystemExit, 0),
    "interrupt": _raising(KeyboardInterrupt),
    "long_text": _raising(RuntimeError, "many words " * 500_000),
    "odd_text": _raising(RuntimeError, "\x1b[2J \udcff \x00 line\nbreak"),
    "no_text": _raising(_Unspeakable),
    # Deaths
    "segfault": lambda: ctypes.string_at(0),
    "killed": partial(_die_of, signal.SIGKILL),
    "terminated": partial(_die_of, signal.SIGTERM),
    "bus_error": partial(_die_of, signal.SIGBUS),
    "abort": os.abort,
    "exit_1": partial(os._exit, 1),
    "exit_0": partial(os._exit, 0),
    "exit_3_after_done": lambda: _at_its_end(partial(os._exit, 3)),
    "segfault_after_done": lambda: _at_its_end(lambda: ctypes.string_at(0)),
    # No end
    "hang": _hang,
    "stopped": partial(_die_of, signal.SIGSTOP),
    "hang_with_grandchildren": lambda: [_leave_grandchild() for _ in range(3)] and _leave_grandchild(_hang, True),
    # Processes that stay
    "grandchild": _leave_grandchild,
    "daemon": partial(_leave_grandchild, own_session=True),
    "grandchild_and_segfault": partial(_leave_grandchild, lambda: ctypes.string_at(0)),
    # Words
    "garbage_stdout": partial(_write, "stdout", _GARBAGE),
    "garbage_stderr": partial(_write, "stderr", _GARBAGE),
    "megabytes_stdout": partial(_write, "stdout", b"x" * _MANY),
    "megabytes_stderr": partial(_write, "stderr", b"y\n" * (_MANY // 2)),
    "garbage_messages": partial(_write, "messages", _GARBAGE + b"\n" + _LIES),
    "megabytes_messages": partial(_write, "messages", b"z" * _MANY_IN_MESSAGES + b"\n" + b"\n" * (1 << 20)),
    "endless_output": partial(_write_for_ever, "stdout", b"x" * (4 << 20)),
    "endless_messages": partial(_write_for_ever, "messages", b'{"kind": "%s"}\n' % (b"x" * (1 << 20))),
    "unended_message": partial(_write, "messages", b'{"kind": "Entered", '),
    "cut_off_message": partial(_cut_off, b'{"kind": "Result", "parts": {}, "no'),
    "closed_messages": lambda: os.close(_message_pipe()),
    "closed_output": lambda: [os.close(fd) for fd in (1, 2)],
}
