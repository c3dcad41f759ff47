"""What the attention back ends allocate: flash-attn, xformers, and PyTorch's scaled_dot_product_attention.

The rules are in `bench.allocator.flash`. xformers is assumed to dispatch to PyTorch's copy of the same kernel.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F

from bench.allocator import flash
from bench.worker.simulated.card import SimulatedCard
from bench.worker.simulated.tensor import SimulatedCuda, SimulatedTensor

_MAX_HEAD_DIM = 256
_NO_WINDOW = -1
_PAGE = 256  # flash_api.cpp, mha_fwd_kvcache: pages are of a multiple of so many tokens


class FlashAttention:
    """The forward kernel, and the three interfaces to it."""

    def __init__(self, cuda: SimulatedCuda) -> None:
        self._cuda = cuda

    def take_temporaries(
        self, card: SimulatedCard, q: torch.Size, k: torch.Size, window: int, rng_bytes: tuple[int, ...]
    ) -> None:
        """Allocates and frees what the kernel needs beside its output; `q` and `k` are (batch, length, heads, dim)."""
        call = flash.Call(q[0], q[1], q[2], q[3], k[1], k[2], window)
        sizes = self._cuda.observer.attention(call, flash.temporaries(*call, card.limits.num_sms))
        held = [self._cuda.claim(card, size_bytes) for size_bytes in (*sizes, *rng_bytes)]
        del held

    def flash_attn_func(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        dropout_p: float = 0.0,
        softmax_scale: float | None = None,
        causal: bool = False,
        window_size: tuple[int, int] = (-1, -1),
        softcap: float = 0.0,
    ) -> torch.Tensor:
        """flash_attn.flash_attn_func: (batch, length, heads, dim) in and out."""
        head_dim = q.shape[-1]
        if head_dim > _MAX_HEAD_DIM:
            raise RuntimeError(f"FlashAttention forward only supports head dimension at most {_MAX_HEAD_DIM}")
        if q.shape[2] % k.shape[2]:
            raise RuntimeError("Number of heads in key/value must divide number of heads in query")
        if head_dim % 8:
            q, k, v = (F.pad(t, [0, 8 - head_dim % 8]) for t in (q, k, v))
        out = torch.empty_like(q)
        self.take_temporaries(_card_of(q), q.shape, k.shape, max(window_size), rng_bytes=(16,))
        return out[..., :head_dim]

    def flash_attn_with_kvcache(
        self,
        q: torch.Tensor,
        k_cache: torch.Tensor,
        v_cache: torch.Tensor,
        k: torch.Tensor | None = None,
        v: torch.Tensor | None = None,
        cache_seqlens: torch.Tensor | None = None,
        block_table: torch.Tensor | None = None,
        softmax_scale: float | None = None,
        causal: bool = False,
        window_size: tuple[int, int] = (-1, -1),
        softcap: float = 0.0,
    ) -> torch.Tensor:
        """flash_attn.flash_attn_with_kvcache: q (batch, length, heads, dim), k_cache (pages, page, heads, dim).

        The kernel reckons with as many keys as the block table (batch, pages) has room for, however many are there.
        """
        batch_size, q_len, num_heads, head_dim = q.shape
        _, page, num_kv_heads, _ = k_cache.shape
        if block_table is None or head_dim % 8:
            raise NotImplementedError("not simulated: a cache without pages, or of heads that would be padded")
        if page % _PAGE:
            raise RuntimeError(f"Paged KV cache block size must be divisible by {_PAGE}")
        if block_table.shape[0] != batch_size or (cache_seqlens is not None and cache_seqlens.shape != (batch_size,)):
            raise RuntimeError("block_table and cache_seqlens must have a row for each sequence")
        out = torch.empty_like(q)
        card = _card_of(q)
        call = flash.Call(
            batch_size, q_len, num_heads, head_dim, block_table.shape[1] * page, num_kv_heads, max(window_size)
        )
        wanted = flash.kvcache_temporaries(*call, card.limits.num_sms)
        if call.window >= 0:  # to mha_fwd, which looks at it later, a window that counts is shorter than the keys
            call = call._replace(window=0)
        held = [self._cuda.claim(card, size_bytes) for size_bytes in self._cuda.observer.attention(call, wanted)]
        del held
        return out

    def memory_efficient_attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_bias: Any = None,
        p: float = 0.0,
        scale: float | None = None,
    ) -> torch.Tensor:
        """xformers.ops.memory_efficient_attention: (batch, length, heads, dim) in and out."""
        out = torch.empty_like(query)
        self.take_temporaries(_card_of(query), query.shape, key.shape, _NO_WINDOW, rng_bytes=(16, 8))
        return out


def _card_of(tensor: torch.Tensor) -> SimulatedCard:
    assert isinstance(tensor, SimulatedTensor)
    return tensor.card


def _scaled_dot_product_attention(cuda: SimulatedCuda, func: Any, args: Any, kwargs: Any) -> Any:
    """aten.scaled_dot_product_attention: (batch, heads, length, dim) in and out; the kernel's own layout inside."""
    if type(args[0]) is not SimulatedTensor:
        return func(*args, **kwargs)
    card, query, key = args[0].card, args[0].meta.transpose(1, 2), args[1].meta.transpose(1, 2)
    out = cuda.fresh(card, torch.empty(query.shape, dtype=query.dtype, device="meta").transpose(1, 2))
    FlashAttention(cuda).take_temporaries(card, query.shape, key.shape, _NO_WINDOW, rng_bytes=(16, 8))
    return out


RULES: dict[Any, Any] = {torch.ops.aten.scaled_dot_product_attention.default: _scaled_dot_product_attention}


def _unsupported(*_: Any, **__: Any) -> Any:
    raise NotImplementedError("not simulated: the scenario does not reach this function")


def modules(flash: FlashAttention) -> dict[str, ModuleType]:
    """Stand-ins to put in `sys.modules` before an engine is imported."""
    flash_attn = ModuleType("flash_attn")
    vars(flash_attn).update(
        __version__="2.8.3",
        flash_attn_func=flash.flash_attn_func,
        flash_attn_varlen_func=_unsupported,
        flash_attn_with_kvcache=flash.flash_attn_with_kvcache,
    )
    xformers, ops, fmha = ModuleType("xformers"), ModuleType("xformers.ops"), ModuleType("xformers.ops.fmha")
    attn_bias = ModuleType("xformers.ops.fmha.attn_bias")
    vars(xformers)["ops"] = ops
    vars(ops).update(memory_efficient_attention=flash.memory_efficient_attention, fmha=fmha)
    vars(fmha)["attn_bias"] = attn_bias
    vars(attn_bias)["LowerTriangularFromBottomRightMask"] = type("LowerTriangularFromBottomRightMask", (), {})
    return {
        "flash_attn": flash_attn,
        "flash_attn_2_cuda": ModuleType("flash_attn_2_cuda"),
        "xformers": xformers,
        "xformers.ops": ops,
        "xformers.ops.fmha": fmha,
        "xformers.ops.fmha.attn_bias": attn_bias,
    }
