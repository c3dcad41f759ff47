"""The keys of a sweep, and the rules that one combination of them must keep.

`Settings` is both Hydra's structured config (names and types, at composition) and pydantic's model (ranges, for every
combination). What needs more than one key, or a look at the machine, is in cases.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any

from omegaconf import MISSING
from pydantic import ConfigDict, Field


class Cache(Enum):
    """ExLlamaV2's cache classes."""

    FP16 = "FP16"
    Q8 = "Q8"
    Q6 = "Q6"
    Q4 = "Q4"


class Attention(Enum):
    """ExLlamaV2's attention back ends; `auto` leaves the choice to it."""

    auto = "auto"
    flash = "flash"
    xformers = "xformers"
    sdpa = "sdpa"
    matmul = "matmul"


class LimitBy(Enum):
    """Who keeps a real card to `vram_limit`: another process that holds the rest of it, or PyTorch's allocator."""

    process = "process"
    allocator = "allocator"


HEAD_BITS = (2, 3, 4, 5, 6, 8)  # exllamav2/conversion/qparams.py, qparams_headoptions
MIN_SEQ_LEN = 64
AUTO = "auto"  # the length for which the boundary is to be found

_STRICT = ConfigDict(extra="forbid")
_MAX_COUNT = 1 << 20
_MAX_BYTES = 1 << 50


@dataclass
class ModelSettings:
    """One file of conf/model."""

    __pydantic_config__ = _STRICT

    name: str = MISSING
    repo: str | None = None
    revision: str | None = None
    source: str | None = None
    path: str | None = None
    config: dict[str, Any] = field(default_factory=dict)


@dataclass
class DeviceSettings:
    """One file of conf/device. `kind` is `simulated`, `cuda`, or `auto`: the GPU that is there, if there is one."""

    __pydantic_config__ = _STRICT

    name: str = MISSING
    kind: str = MISSING
    index: Annotated[int, Field(ge=0)] = 0
    full_name: str | None = None
    total_memory_bytes: Annotated[int | None, Field(gt=0, lt=_MAX_BYTES)] = None
    compute_capability: Annotated[str | None, Field(pattern=r"^\d+\.\d$")] = None
    multi_processor_count: Annotated[int | None, Field(gt=0)] = None
    memory_bandwidth_bytes_per_s: float | None = None
    context_bytes: Annotated[int | None, Field(ge=0, lt=_MAX_BYTES)] = None
    context_basis: str | None = None
    workspace_bytes: Annotated[int | None, Field(ge=0, lt=_MAX_BYTES)] = None
    workspace_basis: str | None = None
    sources: dict[str, str] = field(default_factory=dict)


@dataclass
class Settings:
    """One combination of all keys; `max_seq_len` may still be a list, which is walked inside the cell."""

    __pydantic_config__ = _STRICT

    model: ModelSettings = field(default_factory=ModelSettings)
    device: DeviceSettings = field(default_factory=DeviceSettings)
    bpw: Annotated[float, Field(ge=2.0, le=16.0)] = 4.0
    head_bits: int = 6
    max_seq_len: Any = AUTO
    cache: Cache = Cache.FP16
    lazy: bool = False
    attention: Attention = Attention.auto
    batch_size: Annotated[int, Field(ge=1, le=_MAX_COUNT)] = 1
    max_input_len: Annotated[int, Field(ge=1, le=_MAX_COUNT)] = 2048
    vram_limit: Any = None
    vram_limit_by: LimitBy = LimitBy.process
    results_dir: str = "results"
    timeout_s: Annotated[float, Field(gt=0)] = 900.0
    repeats: Annotated[int, Field(ge=1, le=_MAX_COUNT)] = 3
    jobs: Annotated[int | None, Field(ge=1)] = None
    rerun: bool = False
    run_id: Annotated[str | None, Field(pattern=r"^\w[\w.-]*$")] = None
    experiment: Any = None
