"""By how many pages a made-up layout may be off, and what is said of kernels that nobody counts."""

from __future__ import annotations

import dataclasses
import json

import pytest

from bench.allocator.limits import limits_of
from bench.config.cases import plan_sweep
from bench.notes.holes import pages_note
from bench.notes.rules import notes_of_cards
from tests.conftest import Program

MIB = 1 << 20


@pytest.mark.parametrize(
    ("model", "cache_bytes", "tokens", "said"),
    [
        ("mistral_nemo_12b", 4 * 40 * MIB, 4 * 256, "differed by up to 80 MiB for this model: ± 2 pages of 256 tokens"),
        ("mistral_nemo_12b", 4 * 100 * MIB, 4 * 256, "± 1 page of 256 tokens in a Q4 cache"),
        ("qwq_32b", 57 * MIB, 256, "up to 57 MiB for this model: ± 1 page of"),
        ("llama_3_1_8b", 57 * MIB, 256, "unknown for this model"),
        ("qwq_32b", 0, 256, "unknown for this model"),
    ],
)
def test_pages_are_told_for_models_whose_holes_are_known(model: str, cache_bytes: int, tokens: int, said: str) -> None:
    assert said in pages_note(model, "Q4", cache_bytes, tokens)


def test_a_plan_says_it_of_a_boundary_and_not_of_an_end(in_process: Program) -> None:
    done = in_process("plan", "model=tinyllama_1_1b", "device=rtx_4090", "vram_limit=1100MiB,8GiB", "--json")
    assert done.returncode == 0, done.stderr
    boundary, end = json.loads(done.stdout)["cells"]
    assert 0 < boundary["predicted_fits_at"] < end["predicted_fits_at"] == 2048
    assert "by how many pages a real checkpoint's holes move this boundary is unknown" in str(boundary["assumed"])
    assert "holes move" not in str(end["assumed"])


def test_kernels_of_the_first_pass_are_said_and_change_neither_limit_nor_id() -> None:
    (case,) = plan_sweep(["device=t4", "max_seq_len=512"]).cases
    without = dataclasses.replace(case.device, first_forward_bytes=None, first_forward_basis=None)
    versions: dict[str, str | None] = {"torch_version": "x"}
    assert dataclasses.replace(case, device=without).case_id(versions) == case.case_id(versions)
    assert limits_of(without, None) == limits_of(case.device, None)
    (note,) = set(notes_of_cards([case.device])) - set(notes_of_cards([without]))
    assert note == "kernels of the first forward pass may take 34 MiB more on t4 (assumed): in no figure here"
