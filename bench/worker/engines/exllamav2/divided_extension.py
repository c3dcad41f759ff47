"""Stand-ins for the functions of exllamav2's extension by which cards share the work of each layer.

All that they compute lies in scratch; what takes memory is cuBLAS's workspace and flash-attn, which is called from C++
(ext_tp.cpp, ext_qattn.cpp, ext_qmlp.cpp, ext_qmatrix.cpp; TP_MULTITHREADED is not defined).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from bench.allocator import flash
from bench.worker.simulated.card import SimulatedCard
from bench.worker.simulated.tensor import SimulatedCuda

# What ext_qattn.cpp passes: longer than any cache, and it keeps flash-attn from taking heads for queries.
_WINDOW = 10_000_000


class Matrix(NamedTuple):
    """A matrix in the EXL2 format, or the columns of it that a card has."""

    height: int
    width: int
    card: SimulatedCard


class DividedExtension:
    """`matrices` are those of `Extension`, by handle."""

    def __init__(self, cuda: SimulatedCuda, matrices: Mapping[int, Matrix]) -> None:
        self._cuda = cuda
        self._matrices = matrices
        self._pinned_bytes: dict[int, int] = {}  # of one buffer, by context
        self._handles = itertools.count(1)

    def make_tp_context(
        self, kv: Any, id_: Any, vc: Any, rs: Any, q: Any, pinned: Sequence[torch.Tensor], streams: Any
    ) -> int:
        handle = next(self._handles)
        self._pinned_bytes[handle] = pinned[-1].numel() * pinned[-1].element_size()
        return handle

    def free_tp_context(self, handle: int) -> None:
        self._pinned_bytes.pop(handle, None)

    def tp_broadcast(self, context: int, buffer: int, source: torch.Tensor, *args: Any) -> None:
        if source.numel() * 2 > self._pinned_bytes[context]:
            raise RuntimeError("Temporary tensor is too small")

    def tp_gather(self, *args: Any) -> None: ...

    def rms_norm_tp(self, *args: Any) -> None: ...

    def gemm_half_q_half_tp(self, a: Any, handles: Sequence[int], *args: Any) -> None:
        for handle in handles:
            self._matrices[handle].card.use_cublas()

    def tp_mlp_forward_(self, context: int, hidden_states: torch.Tensor, *args: Any) -> None:
        gate, up, down = args[8:11]  # after six lists of temporary tensors, the norm and its epsilon
        self.tp_broadcast(context, 0, hidden_states)
        for handles in (gate, up, down):
            self.gemm_half_q_half_tp(None, handles)

    def tp_attn_forward_(self, *args: Any) -> None:
        keys = args[9]
        self._attention(args, [each.shape[1] for each in keys])

    def tp_attn_forward_paged_(self, *args: Any) -> None:
        # After the two tables of RoPE come the lengths of the sequences and the tables of their pages, of each card.
        keys, tables = args[9], args[24]
        self._attention(args, [table.shape[1] * each.shape[1] for each, table in zip(keys, tables, strict=True)])

    def _attention(self, args: tuple[Any, ...], k_lens: Sequence[int]) -> None:
        """Both begin with the same arguments; the cache of each card is (sequences or pages, tokens, heads, dim)."""
        context, hidden_states, *_ = args
        temp_q, k_cache = args[5], args[9]
        q_proj, k_proj, v_proj, o_proj, head_dim, _, batch_size, q_len = args[13:21]
        self.tp_broadcast(context, 0, hidden_states)
        for handles in (q_proj, k_proj, v_proj):
            self.gemm_half_q_half_tp(None, handles)
        for q, keys, k_len in zip(temp_q, k_cache, k_lens, strict=True):
            call = flash.Call(batch_size, q_len, q.shape[1] // head_dim, head_dim, k_len, keys.shape[2], _WINDOW)
            wanted = flash.kvcache_temporaries(*call, q.card.limits.num_sms)
            # To mha_fwd, which looks at it later, a window that counts is one that is shorter than the keys.
            sizes = self._cuda.observer.attention(call._replace(window=0), wanted)
            held = [self._cuda.claim(q.card, size_bytes) for size_bytes in sizes]
            del held
        self.gemm_half_q_half_tp(None, o_proj)
