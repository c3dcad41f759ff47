"""The environment of a child: a few variables of the user's, and those that memory depends on, pinned."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import bench
from bench.core.case import EXPANDABLE, NATIVE
from bench.engines.registry import MORE_ENGINES

# The user's variables that a child gets. Others could change the result, or are private: the row keeps them all.
_KEPT = {
    *("PATH", "HOME", "USER", "TMPDIR", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CPATH", "PYTHONPATH", "VIRTUAL_ENV"),
    *("CUDA_HOME", "CUDA_PATH", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"),
    *("TORCH_EXTENSIONS_DIR", "TORCH_CUDA_ARCH_LIST", "XDG_CACHE_HOME", MORE_ENGINES),
}
# Of the names of PyTorch's settings this one is the oldest, and the one that engines look at.
_ALLOCATOR_SETTINGS = "PYTORCH_CUDA_ALLOC_CONF"
_PINNED = {
    "CUDA_MODULE_LOADING": "LAZY",
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
}


def child_environment(device_kind: str, uuids: Sequence[str] = (), allocator: str = NATIVE) -> dict[str, str]:
    """The whole environment of a child; it is recorded in the row.

    PyTorch's allocator has its default settings, and the segments of `Case.allocator`: others give other results.
    Of the real GPUs it sees those of `uuids`, in this order, and the first where none are given; with a simulated card
    it sees none.
    """
    kept = {k: v for k, v in os.environ.items() if k in _KEPT}
    package_parent = str(Path(bench.__file__).parent.parent)
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [package_parent, kept.get("PYTHONPATH")]))
    visible = "" if device_kind == "simulated" else (",".join(uuids) or "0")
    threads = {"OMP_NUM_THREADS": "1"} if device_kind == "simulated" else {}
    settings = {_ALLOCATOR_SETTINGS: f"expandable_segments:{allocator == EXPANDABLE}"}
    return {**kept, **settings, **_PINNED, **threads, "CUDA_VISIBLE_DEVICES": visible}
