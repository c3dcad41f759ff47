"""What others have published of exllamav3's memory, held against models that are loaded here (docs/exllamav3.md)."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.worker import cards
from bench.worker.engines.exllamav3.engine import EXLLAMAV3
from tests.worker.conftest import catalogue_case

MIB = 1 << 20


def _loaded_bytes(layouts: Path, *overrides: str) -> int:
    """What PyTorch has in use when the model is loaded with its cache."""
    cards.preload("simulated", "exllamav3")
    case = catalogue_case("engine=exllamav3", "device=h200_141gb", *overrides)
    with cards.open_machine(case) as machine:
        session = EXLLAMAV3.session(case, machine)
        session.open(machine.model_dir(case, layouts))
        session.build()
        session.load()
        return machine.cards[0].memory().peak_allocated_bytes


def test_a_bit_more_for_each_value_is_512_mib_as_published(layouts: Path) -> None:
    """exllamav3 #317: 22,456 MiB with `8,5` and 21,944 with `8,4`, at 262,144 tokens."""
    on = ("model=qwen3_5_27b", "max_seq_len=262144")
    more, fewer = (_loaded_bytes(layouts, *on, f"cache={cache}") for cache in ("k8v5", "k8v4"))
    assert more - fewer == (22_456 - 21_944) * MIB


def test_a_token_of_gemma_takes_about_what_is_published(layouts: Path) -> None:
    """exllamav3 #50, of 0.0.3: 17,404, 19,404 and 23,238 MiB at 2k, 12k and 30k tokens."""
    on = ("model=gemma_3_27b", "bpw=5.0", "cache=Q6")
    short, long = (_loaded_bytes(layouts, *on, f"max_seq_len={tokens}") for tokens in (2048, 12288))
    of_token = (long - short) / 10240
    assert of_token == 62 * (2048 * (6 + 6) / 8 + 2048 / 8)  # layers; 16 heads of 128, and their scales
    assert of_token == pytest.approx((19_404 - 17_404) * MIB / 10240, rel=0.01)
    assert of_token == pytest.approx((23_238 - 17_404) * MIB / 28672, rel=0.035)
