"""The passes of exllamav3's Generator: what it gives the model for a chunk of a prompt and for a decoded token.

After generator/job.py (Job.prefill) and generator/generator.py (iterate_gen, _stage_arena, _upload_arena). The
generator's own page table, sampler and buffers are not run: each sequence has its pages in order, from the beginning.
"""

from __future__ import annotations

from typing import Any

import torch

from bench.core.case import PAGE
from bench.engines.exllamav3.setup import ring_tokens_after
from bench.engines.exllamav3.tables import table_tokens


class Passes:
    """The passes of `batch_size` sequences of up to `max_seq_len` tokens, with a loaded model and its cache."""

    def __init__(self, model: Any, cache: Any, batch_size: int, max_seq_len: int) -> None:
        self._model = model
        self._cache = cache
        pages = -(-max_seq_len // PAGE)
        self._tables = torch.arange(batch_size * pages, dtype=torch.int32).view(batch_size, pages)
        self._devices = sorted(
            {torch.device(module.device) for module in model.get_cache_layers()}, key=lambda device: device.index
        )
        self._arenas: dict[tuple[int, int], tuple[torch.Tensor, dict[torch.device, torch.Tensor]]] = {}
        self._states: list[Any] = []

    @property
    def is_recurrent(self) -> bool:
        """Whether the model has states beside the cache: of linear attention, or rings of sliding windows."""
        return bool(self._model.caps.get("recurrent_states"))

    @property
    def with_positions(self) -> bool:
        """Whether the Generator tells positions beside lengths, as images shift them (of these models all the time)."""
        return "mrope" in self._model.caps

    @torch.inference_mode()
    def restart(self) -> None:
        """New sequences: a slot in the pool of states for each."""
        if self.is_recurrent:
            for state in self._states:
                self._cache.release_state(state)
            self._states = [self._cache.get_new_state() for _ in range(len(self._tables))]

    def place(self, tokens: int) -> None:
        """Rings of sliding windows become what they are when a prompt of so many tokens has filled them."""
        for state in self._states:
            if hasattr(state, "window_beg"):
                size = max(getattr(module, "kv_state_size", 0) for module in self._model)
                state.position, state.wshift = tokens, 0
                state.window_beg = tokens - ring_tokens_after(tokens, size)

    def prefill(self, sequence: int, start: int, end: int) -> None:
        """The tokens from `start` to `end` of one sequence."""
        params = {
            "attn_mode": "flash_attn",
            "block_table": self._tables[sequence : sequence + 1],
            "cache": self._cache,
            "cache_seqlens": torch.tensor([start], dtype=torch.int32),
            "recurrent_states": [self._states[sequence]] if self.is_recurrent else None,
            "indexed_embeddings": [],
            "inv_freq": None,
            "mm_span_prefix": 0,
        }
        self._model.prefill(input_ids=torch.zeros((1, end - start), dtype=torch.long), params=params)

    def decode(self, start: int) -> torch.Tensor:
        """One token of each sequence, whose cache holds `start`; returns their logits."""
        rows, pages = self._tables.shape
        width = table_tokens(start) // PAGE
        with_positions = self.with_positions
        host, on_devices = self._arena(rows, width, with_positions)
        mine = _views(host, rows, width, with_positions)
        mine[0][:, : min(width, pages)] = self._tables[:, :width]
        for tensor in mine[1:]:
            tensor[:] = start
        shown: dict[tuple[int, torch.device], tuple[torch.Tensor, torch.Tensor]] = {}
        for device in self._devices:
            if device not in on_devices:
                on_devices[device] = torch.empty_like(host, device=device)
            theirs = _views(on_devices[device], rows, width, with_positions)
            shown.update({(id(m), device): (m, t) for m, t in zip(mine, theirs, strict=True)})
        params = {
            "attn_mode": "flash_attn",
            "block_table": mine[0],
            "cache": self._cache,
            "cache_seqlens": mine[1],
            "recurrent_states": self._states if self.is_recurrent else None,
            "indexed_embeddings": [],
            "positions": mine[2] if with_positions else None,
            "recurrent_history": False,
            "pinned_staging": True,
            "dev_cache": shown,
        }
        logits: torch.Tensor = self._model.forward(input_ids=torch.zeros((rows, 1), dtype=torch.long), params=params)
        return logits

    def _arena(
        self, rows: int, width: int, with_positions: bool
    ) -> tuple[torch.Tensor, dict[torch.device, torch.Tensor]]:
        """One step's tables on the host and their copies on the cards, which stay from step to step."""
        if (rows, width) not in self._arenas:
            length = rows * (width + (2 if with_positions else 1))
            self._arenas[rows, width] = torch.zeros(length, dtype=torch.int32, pin_memory=True), {}
        return self._arenas[rows, width]


def _views(arena: torch.Tensor, rows: int, width: int, with_positions: bool) -> list[torch.Tensor]:
    """The block table [rows, width], the lengths [rows], and the positions [rows] where there are some."""
    table = rows * width
    return [
        arena[:table].view(rows, width),
        *(arena[table + rows * i : table + rows * (i + 1)] for i in range(2 if with_positions else 1)),
    ]
