"""What a generator calls of the extension: tables of a batch, pages of the cache, sampling, and n-grams.

Nobody has computed the logits. The tokens that are sampled are different ones of the lower half of the vocabulary,
while prompts are of the upper half: no draft is accepted, and every pass gives a job one token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bench.worker.engines.exllamav3.stand_ins.checks import check
from bench.worker.simulated.tensor import SimulatedTensor

_MAX_BLOCKS = 128  # sampling_fused.cuh
_HISTOGRAM_BYTES = 2 * 1024 * 12 + 64
CONSTANTS = {"FUSED_SAMPLER_MAX_BLOCKS": _MAX_BLOCKS, "FUSED_SAMPLER_HIST_STRIDE": _HISTOGRAM_BYTES}
_FILTERS = 3  # the mode that has a histogram
_TOKENS_MATCHED = 8  # of a prompt's beginning, taken to be what the last tokens are like


class Serving:
    """Functions of `exllamav3_ext`."""

    def __init__(self) -> None:
        self._sampled = 0

    def generator_stage_decode(
        self,
        arena: torch.Tensor,
        width: int,
        tables: Sequence[torch.Tensor],
        lengths: Sequence[int],
        offsets: Sequence[int],
        batch_ids: torch.Tensor | None,
        ids: Sequence[torch.Tensor],
        pages: Sequence[torch.Tensor],
        places: Sequence[int],
    ) -> None:
        """Writes the tables of a batch into `arena` on the host, and the tokens that are decoded (staging.cpp)."""
        rows = len(tables)
        of_each = width + (2 if offsets else 1)
        check(arena.dtype is torch.int32 and arena.numel() >= rows * of_each, "generator_stage_decode", arena)
        check(len(lengths) == rows, "generator_stage_decode", lengths)
        table = arena[: rows * width].view(rows, width).zero_()
        for row, each in enumerate(tables):
            check(each.dtype is torch.int32, "generator_stage_decode", each)
            shown = min(each.numel(), width)
            table[row, :shown] = each.view(-1)[:shown]
        after = arena[rows * width :]
        after[:rows] = torch.tensor(list(lengths))
        if offsets:
            after[rows : 2 * rows] = torch.tensor([sum(each) for each in zip(lengths, offsets, strict=True)])
        if not ids:
            return
        check(batch_ids is not None and len(ids) == len(pages) == len(places) == rows, "generator_stage_decode", ids)
        assert batch_ids is not None
        for row, (sequence, page, place) in enumerate(zip(ids, pages, places, strict=True)):
            check(
                lengths[row] < sequence.shape[-1] and place < page.shape[-1], "generator_stage_decode", sequence, page
            )
            token = sequence.view(-1)[lengths[row]]
            batch_ids[row, 0] = token
            page.view(-1)[place] = token

    def count_match_tensor(self, a: torch.Tensor, b: torch.Tensor, max_a: int) -> int:
        """How many tokens are the same at the beginning of both, [1, n] (strings.cpp)."""
        length = min(max_a, b.shape[1], a.numel())
        differ = (a.view(-1)[:length] != b.view(-1)[:length]).nonzero()
        return int(differ[0]) if len(differ) else length

    def fused_sampler(
        self,
        logits: torch.Tensor,
        mask: torch.Tensor | None,
        bits: torch.Tensor | None,
        out: torch.Tensor,
        workspace: torch.Tensor,
        size: int,
        inv_temp: float,
        minp_log: float,
        random: int,
        mode: int,
        filters: int,
        top_k: int,
        top_p: float,
        inv_temp_filter: float,
        histogram: torch.Tensor | None,
    ) -> None:
        """A token for each row of the logits [rows, vocabulary], in tensors of the caller (sampling_fused.cu)."""
        types = logits.dtype in (torch.half, torch.float) and out.dtype is torch.long and workspace.dtype is torch.float
        check(types and logits.dim() == 2 and logits.is_contiguous(), "fused_sampler", logits, out, workspace)
        rows = logits.shape[0]
        fits = 0 < size <= logits.shape[1] and out.numel() == rows and workspace.numel() >= rows * _MAX_BLOCKS * 3
        check(fits, "fused_sampler", logits, out, workspace, size)
        has_histogram = histogram is not None and histogram.numel() >= rows * _HISTOGRAM_BYTES
        check(mode != _FILTERS or has_histogram, "fused_sampler", histogram)
        self._sampled += 1
        write(out, torch.full(out.shape, self._sampled % max(1, logits.shape[1] // 2)))

    def cache_rotate(self, cache: torch.Tensor, order: torch.Tensor, page: torch.Tensor) -> None:
        """Moves pages of the cache by way of one that the caller made (cache.cu)."""
        check(order.dim() == 1 and page.nbytes * cache.shape[0] == cache.nbytes, "cache_rotate", cache, order, page)


def write(target: torch.Tensor, values: torch.Tensor) -> None:
    """What a kernel has computed into `target`, of the same shape and type, for the host to read."""
    if isinstance(target, SimulatedTensor):
        target.numbers = values
    else:
        target.copy_(values)


class SuffixAutomaton:
    """BC_SAM (sam.cpp), which looks for the last tokens further up. Here they are always found, at the beginning.

    What a text is like is not known of a simulated card: n-grams are taken to be found for every token, which shows
    what a pass with all the tokens that are proposed takes.
    """

    def accept_tensor(self, tokens: torch.Tensor) -> tuple[int, int]:
        """First and last token (exclusive) of what was found; (-1, -1) where there are too few."""
        return (0, _TOKENS_MATCHED) if tokens.shape[-1] >= 2 * _TOKENS_MATCHED else (-1, -1)
