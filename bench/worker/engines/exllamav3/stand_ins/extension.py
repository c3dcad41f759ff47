"""A stand-in for exllamav3's compiled extension: the checks of its bindings, and the memory that they take.

Three kinds of memory: tensors that a binding makes with ATen; PyTorch's own cuBLAS workspace; and buffers that the
extension takes from the driver (buffers.py), which PyTorch does not see. All read off the sources of exllamav3 1.6.5.
"""

from __future__ import annotations

from functools import partial
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from types import ModuleType
from typing import Any

import torch

from bench.worker.engines.exllamav3.stand_ins import checks, serving
from bench.worker.engines.exllamav3.stand_ins.attention import Attention, DeltaNet
from bench.worker.engines.exllamav3.stand_ins.buffers import Buffers
from bench.worker.engines.exllamav3.stand_ins.experts import Experts, Routing
from bench.worker.engines.exllamav3.stand_ins.graphed import MLP, GatedMLP, Slotted
from bench.worker.engines.exllamav3.stand_ins.matrices import Matrix, Products, Unquantised
from bench.worker.interfaces.engine import Unsupported
from bench.worker.simulated.tensor import SimulatedCuda

NAME = "exllamav3_ext"
# These write into tensors that they are given, and make none (each was looked up in its source).
_WRITE_ONLY = (
    "add",
    "add_sigmoid_gate",
    "add_sigmoid_gate_proj",
    "batched_conv_rewind",
    "batched_scan_replay",
    "cuda_causal_conv1d_update",
    "cuda_memcpy_async",
    "cuda_recurrent_gated_delta_rule",
    "cuda_recurrent_mamba2",
    "deinterleave_qg",
    "dequant_cache_cont",
    "dequant_cache_paged",
    "dequant_cache_paged_window",
    "det_quant_weight",
    "exl3_moe",
    "exl3_moe_gather",
    "gated_delta_net_fused_op",
    "gated_delta_net_fused_op_2",
    "gated_rms_norm",
    "gdn_ba_gemv",
    "gdn_lowrank_gemv_f",
    "had_paley",
    "had_paley2",
    "had_r_128_batch",
    "kda_gate_op",
    "mamba2_dt_op",
    "mul_sigmoid_",
    "mul_sigmoid_broadcast_",
    "mul_softplus_broadcast_",
    "paged_kv_cache_update",
    "quant_cache_cont",
    "quant_cache_paged",
    "reconstruct_batch",
    "reconstruct_had_batch",
    "relu_mul",
    "rms_norm_res_in",
    "rope",
    "routing_gemv_f32",
    "softcap",
    "stloader_close_file",
    "stloader_deferred_batch",
    "xielu",
)
_SMS_PER_EXPERT = 8  # exl3_moe.cu: MOE_SMS_PER_EXPERT
_CONSTANTS = {
    "HAS_GR_MIX_TILED": True,
    "HAS_DET_GEMM": True,
    "HAS_HGEMM_F16ACC": True,
    "HAS_DFLASH2": True,
    **serving.CONSTANTS,
}


class Extension:
    """What `exllamav3_ext` offers of that which loading, prefilling and decoding call."""

    def __init__(self, cuda: SimulatedCuda) -> None:
        self._cuda = cuda
        self._buffers = Buffers(cuda)
        self._routing = Routing(self._buffers)

    def forget(self) -> None:
        """Lets go of what it keeps of the cards before."""
        self._routing.forget()

    def module(self) -> ModuleType:
        """The module to put in `sys.modules`; the engine looks whether its file is a compiled one's."""
        module = ModuleType(NAME)
        spec = module.__spec__ = ModuleSpec(NAME, loader=None, origin=f"simulated{EXTENSION_SUFFIXES[0]}")
        spec.loader, spec.has_location = object(), True  # type: ignore[assignment]
        names = vars(module)
        names.update(dict.fromkeys(_WRITE_ONLY, _nothing), **checks.FUNCTIONS, **_CONSTANTS)
        for functions in (Products(self._buffers), self._routing, serving.Serving(), self):
            public = (name for name in dir(functions) if not name.startswith("_") and name not in ("module", "forget"))
            names.update({name: getattr(functions, name) for name in public})
        for name, kind in _CLASSES.items():
            names[name] = partial(kind, self._buffers)
        # BC_GatedDeltaNet is made, but nothing in Python runs it in this version
        names.update(BC_GatedDeltaNet=_Kept, BC_GatedRMSNorm=_Kept, BC_LinearFP16=Unquantised)
        names.update(ConvRewindJob=_Kept, ScanReplayJob=_Kept)
        names.update(TritonKernel=_Launched, BC_SAM=serving.SuffixAutomaton)
        names["__getattr__"] = _missing
        return module

    # Loading

    def stloader_open_file(self, name: str) -> list[str]:
        """A handle."""
        return [name]

    def stloader_read(self, handle: list[str], offset: int, size: int, target: torch.Tensor) -> None:
        """Weights are not read: nothing that steers the engine is among them."""
        self._cuda.observer.weight(handle[0], offset, target)

    # The card

    def prepare_ctx(self, device: int) -> None:
        """Takes the locks."""
        self._buffers.locks(torch.empty(0, device=torch.device("cuda", device)))

    def g_get_num_sms(self, device: int) -> int:
        """Its multiprocessors."""
        return self._cuda.cards[device].limits.num_sms

    def exl3_moe_max_concurrency(self, device: int) -> int:
        """How many experts are at work at once."""
        return self.g_get_num_sms(device) // _SMS_PER_EXPERT

    def exl3_gemv_int8_max_k(self, device: int) -> int:
        """The most bits a weight of a matrix that runs on int8."""
        return self._buffers.int8_bits(self._cuda.cards[device])


_CLASSES: dict[str, Any] = {
    "BC_LinearEXL3": Matrix,
    "BC_GatedMLP": GatedMLP,
    "BC_MLP": MLP,
    "BC_Attention": Attention,
    "BC_MLAttention": Slotted,
    "BC_SharedKVAttention": Slotted,
    "BC_Mamba2": Slotted,
    "BC_GatedDeltaNetSplit": DeltaNet,
    "BC_BlockSparseMLP": Experts,
}


class _Kept:
    """A class of the extension that only holds what it is given."""

    def __init__(self, *args: Any) -> None:
        self._args = args


class _Launched(_Kept):
    """TritonKernel: a compiled kernel that the extension launches."""

    grid_y = 1


def _nothing(*args: Any, **kwargs: Any) -> None: ...


def _missing(name: str) -> Any:
    """Whatever else the engine asks for may be named, but not used: what it would allocate is not known."""
    if name.startswith("__"):
        raise AttributeError(name)

    def unknown(*args: Any, **kwargs: Any) -> Any:
        raise Unsupported(f"exllamav3 calls {name} of its extension for this model, which is not simulated")

    return unknown
