"""How much of this machine's own memory a child of simulated cards may take: a config.json may ask for any amount.

A child of a real card has no limit: CUDA reserves addresses without end, and weights go through the host.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from bench.core.device import SIMULATED, DeviceSpec
from bench.core.messages import Failure

_GIB = 1 << 30
# What is in use, files that are mapped left out. Simulated cases take 0.4 GiB.
_MOST_BYTES, _LEAST_BYTES = 8 * _GIB, 2 * _GIB
# What is asked for, most of which is never touched: a simulated 70B model asks for 6.5 GB. Linux's RLIMIT_DATA.
_MOST_ASKED_BYTES = 256 * _GIB
_LOOK_S = 0.1
_OF_TORCH = re.compile(r"DefaultCPUAllocator: (can't allocate memory|not enough memory)|std::bad_alloc")
_REMEDY = "look for an absurd number in config.json"


class HostMemoryExceeded(Exception):
    """The child has asked for more than it may have."""


def watch(devices: Sequence[DeviceSpec], tell: Callable[[Failure], None], exit_code: int) -> None:
    """From now on this process ends with `exit_code`, and says why, where it takes too much memory."""
    if any(device.kind != SIMULATED for device in devices) or _in_use_bytes() is None:
        return
    limit_bytes = most_bytes()
    _limit_what_is_asked()

    def look() -> None:
        while (_in_use_bytes() or 0) <= limit_bytes:
            stop.wait(_LOOK_S)
        tell(Failure(HostMemoryExceeded.__name__, _told(limit_bytes)))
        os._exit(exit_code)

    stop = threading.Event()
    threading.Thread(target=look, daemon=True).start()


def most_bytes() -> int:
    """The limit: a quarter of the machine's memory, between bounds, as several children run at a time."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(_LEAST_BYTES, min(_MOST_BYTES, installed // 4))


def explained(error: Exception) -> Exception:
    """`error`, or what it means where the machine gives no more memory than this."""
    is_refused = isinstance(error, OSError) and error.errno == errno.ENOMEM
    if isinstance(error, MemoryError) or is_refused or _OF_TORCH.search(str(error)):
        return HostMemoryExceeded(f"more of this machine's own memory than it gives; {_REMEDY}")
    return error


def _told(limit_bytes: int) -> str:
    most = f"{limit_bytes / _GIB:.1f} GiB"
    return f"more than {most} of this machine's own memory, as much as a simulated case may take; {_REMEDY}"


def _limit_what_is_asked() -> None:
    with suppress(ImportError, AttributeError, OSError, ValueError):  # not on every system
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        most = _MOST_ASKED_BYTES if hard == resource.RLIM_INFINITY else min(_MOST_ASKED_BYTES, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def _in_use_bytes() -> int | None:
    """Resident memory that no file stands behind; None where the system does not say."""
    try:
        _, resident, of_files, *_ = map(int, Path("/proc/self/statm").read_text().split())
    except (OSError, ValueError):
        return None
    return (resident - of_files) * os.sysconf("SC_PAGE_SIZE")
