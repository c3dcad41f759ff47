"""What earlier versions are known to have held more, by their source."""

from __future__ import annotations

import pytest

from bench.config.cases import plan_sweep
from bench.engines.registry import engine_of


@pytest.mark.parametrize(
    ("overrides", "version", "more"),
    [
        (("bpw=4.0",), (0, 0, 11), 128_256 * 2048 * 4 + 128),  # linear.py of v0.0.11: temp_fwd_size of the head
        (("bpw=4.0", "max_input_len=512"), (0, 0, 19), 128_256 * 512 * 4 + 128),
        (("bpw=4.0",), (0, 1, 0), 0),
        (("bpw=16",), (0, 0, 11), 0),
        (("bpw=4.0", "engine=exllamav3"), (0, 0, 1), 0),
    ],
)
def test_the_scratch_of_earlier_versions(overrides: tuple[str, ...], version: tuple[int, ...], more: int) -> None:
    (case,) = plan_sweep(["model=llama_3_1_8b", "device=a100_40gb", "max_seq_len=1024", *overrides]).cases
    assert engine_of(case.engine).more_after_loading_bytes(case, version) == more
