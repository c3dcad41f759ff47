"""Starts cases in milliseconds: a process that has imported the engine once, and forks for each case.

Protocol on the socket (SOCK_SEQPACKET): the parent sends `fork` with three descriptors: a file with the request, the
records pipe and the log. The answers, a JSON document a packet, are `{"pid": …}` and, when that child has ended,
`{"pid": …, "status": …}` with the status of waitpid. The server ends when the socket closes.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import sys
import time
import traceback

from bench.core.lifeline import adopt_orphans, die_with_parent
from bench.core.process_tree import own_children
from bench.worker import cards, child

_MAX_PACKET_BYTES = 64
_ROUNDS = 10


def serve(connection: socket.socket, kind: str, engine: str) -> None:
    """Serves requests for devices of `kind`, mostly of one engine, until the parent closes the connection."""
    adopt_orphans()
    cards.preload(kind, engine)
    running: set[int] = set()
    gc.freeze()  # what is loaded now is shared with every fork, and never looked at again
    connection.send(json.dumps({"ready": os.getpid()}).encode())
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is connection:
                    data, fds, _, _ = socket.recv_fds(connection, _MAX_PACKET_BYTES, 3)
                    if not data:
                        return
                    pid = _fork(connection, fds)
                    running.add(pid)
                    for fd in fds:
                        os.close(fd)
                    connection.send(json.dumps({"pid": pid}).encode())
                    selector.register(os.pidfd_open(pid), selectors.EVENT_READ, pid)
                else:
                    pid, status = os.waitpid(key.data, 0)
                    running.discard(pid)
                    _end_strays(running)
                    selector.unregister(key.fileobj)
                    os.close(key.fd)
                    connection.send(json.dumps({"pid": pid, "status": status}).encode())


def _end_strays(running: set[int]) -> None:
    """Kills what a child that has ended left behind in a session of its own; what `running` ones start is theirs."""
    for _ in range(_ROUNDS):  # what a stray has started becomes one when that is dead
        strays = own_children() - running
        if not strays:
            return
        for pid in strays:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.001)


def _fork(connection: socket.socket, fds: list[int]) -> int:
    server = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        die_with_parent(server)
        os.setsid()
        connection.close()
        request_fd, records_fd, log_fd = fds
        os.dup2(log_fd, 1)
        os.dup2(log_fd, 2)
        with os.fdopen(request_fd, encoding="utf-8") as request:
            request_text = request.read()
        child.main(records_fd, request_text)
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(child.EXIT_FAILED)
