"""exllamav3 and what it is built of: imported, found broken, and made to forget the cards that it has seen."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from bench.worker.interfaces.engine import EngineBroken

_EXTENSION = "exllamav3_ext"
_TABLES_OF_EXPERTS = "batch_recon"
_PACKED_LATENTS = ("/mla_qtmp", "/mla_stmp")  # what mla_kv_quant_append keeps for each number of rows
# Dictionaries and lists at the level of a module that the engine fills as it meets a card (exllamav3 1.6.5).
_OF_CARDS = (
    ("exllamav3.modules.attn", "_block_tables"),
    ("exllamav3.modules.attention_fn.triton_paged", "_h32_cache"),
    ("exllamav3.modules.attention_fn.triton_paged", "_decode_sm_count"),
    ("exllamav3.modules.attention_fn.triton_paged", "_qc_prefill_ns_cache"),
    ("exllamav3.modules.attention_fn.bc_attn", "_kernel_cache"),
    ("exllamav3.modules.attention_fn.bc_attn", "_sm_count"),
    ("exllamav3.modules.attention_fn.mla_triton", "_mha_block_m"),
    ("exllamav3.modules.attention_fn.mla_triton", "_sm_count"),
    ("exllamav3.modules.attention_fn.qsa_triton", "_sm_counts"),
    ("exllamav3.modules.attention_fn.smem", "_limit"),
    ("exllamav3.modules.attention_fn.smem", "_picks"),  # of a kernel's shapes: to pick takes memory of its own
    ("exllamav3.cache.recurrent_util", "_slot_tensors"),
    ("exllamav3.util.tensor", "buffered_aranges"),
    ("exllamav3.util.backend", "_cc_cache"),
)


def import_engine() -> None:
    """Imports exllamav3. Raises `EngineBroken` where a package here stands in the way."""
    try:
        importlib.import_module("exllamav3")
    except Exception as error:
        raise EngineBroken(f"exllamav3 cannot be imported ({_one_line(error)}); run vram-bench doctor") from error


def broken() -> dict[str, str]:
    """What exllamav3 needs beside it and cannot be imported here, with the error of each in a line.

    An extension that is not there is none that is broken: it is not built yet.
    """
    found = {}
    for name in ("triton", *([_EXTENSION] if importlib.util.find_spec(_EXTENSION) else [])):
        try:
            importlib.import_module(name)
        except Exception as error:
            found[name] = _one_line(error)
    return found


def forget_cards() -> None:
    """Empties what the engine keeps of the cards before: a process may simulate one machine after the other."""
    importlib.import_module("exllamav3.util.tensor").g_tensor_cache.drop_all()
    for module, name in _OF_CARDS:
        kept: Any = getattr(importlib.import_module(module), name)
        kept.clear()


def forget_tables(rows: int) -> None:
    """Empties what is kept for chunks of so many tokens: the order of their tokens' experts."""
    kept = importlib.import_module("exllamav3.util.tensor").buffered_aranges
    copies = kept.get("dev_cache", {})
    for key in [each for each in kept if isinstance(each, tuple) and each[0] == rows]:
        host = kept.pop(key)
        for copy in [each for each in copies if each[0] == id(host)]:
            del copies[copy]


def has_packed_latents(rows: int) -> bool:
    """Whether the buffers are there in which the latents of chunks of so many tokens are packed."""
    return bool(_packed_latents(rows))


def forget_packed_latents(rows: int) -> None:
    """Frees them; there are none without a quantised cache of latents."""
    for name in _packed_latents(rows):
        del _kept_buffers()[name]


def _packed_latents(rows: int) -> list[str]:
    return [name for name in _kept_buffers() if f"/({rows}, " in name and name.endswith(_PACKED_LATENTS)]


def _kept_buffers() -> dict[str, Any]:
    """By device, shape, type and use (util/tensor.py, GTensorCache)."""
    kept: dict[str, Any] = importlib.import_module("exllamav3.util.tensor").g_tensor_cache.cache
    return kept


def has_tables_of_experts(model: Any) -> bool:
    """Whether the tables are there that a model makes of all experts at its first pass of more than a few rows."""
    return any(getattr(module, _TABLES_OF_EXPERTS, None) for module in model)


def forget_experts(model: Any) -> None:
    """Frees those tables (block_sparse_mlp.py, _batch_recon_layer)."""
    for module in model:
        if getattr(module, _TABLES_OF_EXPERTS, None):
            setattr(module, _TABLES_OF_EXPERTS, None)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
