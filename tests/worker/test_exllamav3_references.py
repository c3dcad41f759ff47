"""exllamav3's own Python allocates to the byte what it does over PyTorch's own allocator.

All references are replayed by `python -m tests.worker.exllamav3_references`; here are some of each kind.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.run.verdict import OUT_OF_MEMORY
from bench.worker.engines.exllamav3.engine import EXLLAMAV3
from bench.worker.engines.exllamav3.stand_ins.buffers import Buffers
from bench.worker.simulated import machine
from tests.worker.exllamav3_references import differences, references, replay

_SHOWN = (
    "4090 False native llama_3_1_8b 4.0 FP16 8192 single 1",
    "4090 False expandable llama_3_1_8b 4.0 4/4 8192 autosplit 1",
    "4090 False expandable phi_3_medium_128k 2.5 FP16 96512 autosplit 1",  # does not fit: found while it is loaded
)


@pytest.mark.parametrize("name", _SHOWN)
def test_every_phase_holds_what_pytorch_itself_holds(name: str, layouts: Path) -> None:
    (reference,) = [each for each in references() if each.name == name]
    assert differences(reference, replay(reference, layouts)) == []


def test_a_buffer_that_the_driver_has_no_room_for_is_out_of_memory_and_pytorch_gives_nothing_back_for_it() -> None:
    case = next(each for each in references() if each.allocator == "native").case
    with machine.open_machine(case, EXLLAMAV3, case.devices) as opened:
        card, buffers = opened.cards[0], Buffers(machine._CUDA)
        held = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
        rest_bytes = card.mem_get_info()[0] - (4 << 20)  # too few are left for any of them
        cached = torch.empty(rest_bytes >> 21 << 21, dtype=torch.uint8, device="cuda")
        del cached  # free for PyTorch, not for others
        reserved_bytes = card.allocator.stats.reserved_bytes
        for take in (
            lambda: buffers.locks(held),
            lambda: buffers.cublas_workspace(held),
            lambda: buffers.int8_workspace(card),
        ):
            with pytest.raises(RuntimeError) as raised:
                take()
            assert not isinstance(raised.value, torch.OutOfMemoryError)
            assert OUT_OF_MEMORY.search(str(raised.value))
        assert card.allocator.stats.reserved_bytes == reserved_bytes
        torch.cuda.empty_cache()
        buffers.locks(held)
        assert card.memory().device_bytes == card.allocator.stats.reserved_bytes + (6 << 20) + card.limits.context_bytes
