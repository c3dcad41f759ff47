"""The child's command line. `bench/launch` is its only caller.

python -m bench.worker case RECORDS_FD                one case, its request on standard input
python -m bench.worker serve SOCKET_FD KIND ENGINE    a fork server for devices of KIND (cuda or simulated)
python -m bench.worker packages                       what is installed and cannot be imported, as JSON
python -m bench.worker snapshot PATH                  one case on standard input, its allocations to PATH
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

from bench.core.case import Case
from bench.core.lifeline import die_with_parent
from bench.worker import child, forkserver
from bench.worker.engines.registry import worker_engines

if __name__ == "__main__":
    die_with_parent()
    command, *rest = sys.argv[1:]
    if command == "packages":
        print(json.dumps({name: error for each in worker_engines() for name, error in each.broken_packages().items()}))
    elif command == "snapshot":
        from bench.worker import snapshots

        snapshots.record(Case.from_json(sys.stdin.read()), Path(rest[0]))
    elif command == "serve":
        fd, kind, engine = rest
        forkserver.serve(socket.socket(fileno=int(fd)), kind, engine)
    else:
        child.main(int(rest[0]), sys.stdin.read())
