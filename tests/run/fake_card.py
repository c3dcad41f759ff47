"""A launcher whose children are a few lines of Python that play a card: no torch, no engine, nothing to wait for."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.core.requests import RunCase, read_request
from bench.launch.fresh_interpreter import StartedProcess

_CHILD = """\
import json, os, sys, time
fd, request, limit, ends = int(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
takes_s = float(sys.argv[5])
if request["kind"] != "RunCase":
    sys.exit()  # no recordings
def say(kind, **data):
    os.write(fd, (json.dumps({"kind": kind, **data}) + "\\n").encode())
length = request["case"]["max_seq_len"]
memory = {f"peak_{name}_bytes": 1000 + length for name in ("allocated", "requested", "reserved", "device")}
memory.update({f"{name}_bytes": 0 for name in ("allocated", "reserved", "device")})
say("Entered", phase="load")
say("Started", attention="flash", notes=[], facts={"context_bytes": 0})
time.sleep(takes_s)
end = ends.get(str(length), "fits" if length <= limit else "oom")
if end == "oom":
    say("Failure", type="OutOfMemoryError", message="CUDA out of memory", memory=memory)
    sys.exit(3)
if end == "crash":
    os.kill(os.getpid(), 11)
say("PhaseProgress", phase="load", done=1, total=2, units="modules")
say("PhaseDone", phase="decode", seconds=0.0, memory=memory)
say("Result", parts={}, notes=[], facts={})
"""


@dataclass
class FakeCard:
    """Cases of up to `limit` tokens fit; `ends` are lengths that end otherwise (`fits`, `oom`, `crash`).

    `lengths` are those that were run; each stays in its first phase for `takes_s`.
    """

    limit: int = 1 << 30
    ends: Mapping[int, str] = field(default_factory=dict)
    lengths: list[int] = field(default_factory=list)
    takes_s: float = 0.0

    def start(self, request: str, records_fd: int, log_fd: int) -> StartedProcess:
        asked = read_request(request)
        if isinstance(asked, RunCase):
            self.lengths.append(asked.case.max_seq_len)
        process = subprocess.Popen(
            [
                sys.executable,
                "-S",
                "-c",
                _CHILD,
                str(records_fd),
                request,
                str(self.limit),
                json.dumps(dict(self.ends)),
                str(self.takes_s),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log_fd,
            stderr=log_fd,
            pass_fds=[records_fd],
            start_new_session=True,
        )
        return StartedProcess(process)

    def close(self) -> None: ...

    def kill(self) -> None: ...
