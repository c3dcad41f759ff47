"""The child's command line. `run/isolate.py` is its only caller.

python -m bench.worker case RECORDS_FD            one case, its request on standard input
python -m bench.worker serve SOCKET_FD KIND       a fork server for devices of KIND (cuda or simulated)
"""

from __future__ import annotations

import socket
import sys

from bench.worker import child, forkserver

if __name__ == "__main__":
    command, fd, *rest = sys.argv[1:]
    if command == "serve":
        forkserver.serve(socket.socket(fileno=int(fd)), *rest)
    else:
        child.main(int(fd), sys.stdin.read())
