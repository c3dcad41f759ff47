"""exllamav3's own Generator on a simulated card: what its jobs take and get, and that it is predicted to the byte."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.allocator.reduction import workspace_bytes
from bench.core.case import PAGE, Case
from bench.core.messages import Result
from bench.engines.exllamav3.setup import Setup
from bench.engines.registry import rules_of
from bench.engines.steps import steps_of
from bench.trace.passes import NoPrediction
from bench.worker import cards, recorder
from bench.worker.engines.exllamav3.stand_ins.serving import Serving
from bench.worker.interfaces.engine import Unsupported
from bench.worker.interfaces.given import Given
from tests.worker.conftest import Run, catalogue_case
from tests.worker.predicted_and_simulated import little_garbage, predict, simulate
from tests.worker.test_exllamav3_prediction import _EAGER, _LATENT, _ROUTED, _SHARED, _case, _replayer

MIB = 1 << 20
SHORT = {"num_hidden_layers": 3}
FEW_EXPERTS = "model.config.num_local_experts=4"


@pytest.fixture(scope="module", autouse=True)
def fast() -> Iterator[None]:
    with little_garbage("exllamav3"):
        yield


def served(config: dict[str, Any] | None = None, **axes: Any) -> Case:
    return _case(config or {}, scenario="generator", **axes)


SEARCHES: dict[str, tuple[Case, tuple[int, ...]]] = {
    # Tables of the first job alone, those that are wider, and prompts whose keys are read in pieces.
    "jobs": (served(batch_size=3, cache="Q8", bpw=4.3), (256, 8448)),
    "a larger cache": (served(cache_size=20480, allocator="expandable", head_bits=8), (1280, 20480)),
    # The last tokens of a job that ends with a column of its tables are decoded with wider ones.
    "drafts": (served(batch_size=2, draft="ngram", num_draft_tokens=3), (512, 4096)),
    # With experts, too, chunks of a kind are all there; of one that is longer than its share of the cache none is.
    "jobs that share": (served(_ROUTED, batch_size=2, cache_size=12288, cache="Q4"), (768, 5888)),
    "autosplit": (served(lazy=True, draft="ngram", num_draft_tokens=3), (2304, 4352)),
    "autosplit of jobs": (served(_LATENT, lazy=True, batch_size=2, cache="Q6"), (1024, 2304)),
    # The first job's chunks make tables that those of the others find.
    "experts": (served(_ROUTED, batch_size=3, cache="k7v5"), (768, 9472)),
    "experts alone": (served(_ROUTED), (256, 1280)),
    "experts and drafts": (served(_ROUTED, batch_size=2, draft="ngram", num_draft_tokens=3), (768, 4352)),
    "more jobs than decoding has kernels for": (served(_ROUTED, batch_size=9), (512, 1280)),
    "shared experts": (served(_SHARED, batch_size=2, cache="Q8"), (1280, 4352)),
    "latent attention": (served(_LATENT, batch_size=3, cache="Q4"), (512, 3072)),
    "no graphs": (served(_EAGER, cache="Q6"), (4096, 6400)),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.thorough] * (name != "jobs")) for name in SEARCHES]
)
def test_it_is_predicted_to_the_byte(name: str, layouts: Path) -> None:
    search, lengths = SEARCHES[name]
    replayer = _replayer(search, layouts)
    for length in lengths:
        case = replace(search, max_seq_len=length)
        need, _ = simulate(case, layouts)
        assert predict(replayer, case) == need, length
    for limit_bytes in (need.peak_held_bytes - 1, need.peak_allocated_bytes, need.peak_allocated_bytes // 2):
        limited = replace(case, vram_limit_bytes=limit_bytes)
        assert predict(replayer, limited) == simulate(limited, layouts)[0], limit_bytes


@pytest.mark.thorough
def test_a_job_that_runs_alone_before_those_that_share_is_no_wrong_number(layouts: Path) -> None:
    search = served(batch_size=3, cache_size=8192)
    replayer = _replayer(search, layouts)
    with pytest.raises(NoPrediction, match=r"no recording shows a .*full_alone"):
        predict(replayer, replace(search, max_seq_len=4352))


def test_a_cases_passes_are_those_of_the_engine(layouts: Path) -> None:
    """As they are recorded: prompts of any length are left out."""
    case = served(SHORT, batch_size=2, max_seq_len=4096, draft="ngram", num_draft_tokens=2)
    sections = recorder.record(case, layouts, (), apart=True).sections
    setup = Setup("triton", case.max_input_len, 2, 4096, False, "generator", draft_tokens=2)
    passes = setup._all_passes(4096, with_prompts=False)
    assert [(each.q_len, each.k_len) for each in passes] == [(s.q_len, s.k_len) for s in sections]
    assert passes[-1].q_len == 3
    whole = setup.schedule(4096).passes()
    assert sum(each.q_len for each in whole if each.kind.startswith("prefill_of")) == 2 * (4096 - 2 - 1 - 5 - 1)


@pytest.mark.parametrize(
    ("case", "told"),
    [
        (served(bpw=16.0, head_bits=None), "with EXL3 weights alone"),
    ],
)
def test_what_is_not_predicted_says_why(case: Case, told: str) -> None:
    assert told in str(rules_of(case.engine).prediction.unpredicted(case))


@pytest.mark.parametrize(
    ("axes", "told"),
    [
        ({"max_input_len": 128}, "in pages of 256 tokens; give 256 or more"),
        ({"batch_size": 300}, "takes 256 jobs at a time by default; give max_batch_size=300"),
    ],
)
def test_what_the_generator_asserts_is_told_before(layouts: Path, axes: dict[str, Any], told: str) -> None:
    with pytest.raises(Unsupported, match=told):
        simulate(served(SHORT, **axes), layouts)


def test_a_job_that_would_be_cut_is_refused(layouts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself the engine gives it fewer tokens, and says nothing of it."""
    monkeypatch.setattr("bench.worker.engines.exllamav3.served.Served._prompt", lambda self, tokens: torch.ones(1, 254))
    with pytest.raises(Unsupported, match="gets 1 of 3 tokens in a cache of 256: exllamav3 cuts it"):
        simulate(served(SHORT, max_seq_len=256), layouts)


def test_what_the_jobs_were_given_is_told(run: Callable[[Case], Run]) -> None:
    two = ("engine=exllamav3", "model=llama_3_1_8b", "model.config.num_hidden_layers=2", "scenario=generator")
    told = {}
    for drafts in ((), ("draft=ngram", "num_draft_tokens=3")):
        (result,) = run(catalogue_case(*two, "max_seq_len=1024", "batch_size=2", *drafts)).of(Result)
        told[drafts[:1]] = result.generated_tokens, result.drafted_tokens
    # The first token, and four more of each job; one that gets its last one has no use for a draft, and is given one.
    assert told == {(): (10, 0), ("draft=ngram",): (10, 30)}


def test_states_have_as_many_slots_as_jobs_may_run(run: Callable[[Case], Run]) -> None:
    """A ring of a window is made for each; exllamav3 has 16 by default, whatever runs."""
    of = ("engine=exllamav3", "model=gpt_oss_20b", "scenario=generator", "max_seq_len=256")
    few = (
        "model.config.num_hidden_layers=2",
        "model.config.layer_types=[sliding_attention,full_attention]",
        FEW_EXPERTS,
    )
    default, four = (run(catalogue_case(*of, *few, *more)) for more in ((), ("max_batch_size=4",)))
    ring = 768 * 2 * 8 * 64 * 2  # tokens, keys and values, heads, of FP16
    assert (default.parts["cache_bytes"] or 0) - (four.parts["cache_bytes"] or 0) == 12 * ring
    with pytest.raises(Unsupported, match="a state for each; give max_batch_size=17"):
        run(catalogue_case(*of, *few, "batch_size=17"))


def test_the_host_buffers_are_told(run: Callable[[Case], Run]) -> None:
    """The tokens of each page, tables of 16 columns, a token of each of 32 rows, and as many that were sampled."""
    two = ("engine=exllamav3", "model=llama_3_1_8b", "model.config.num_hidden_layers=2", "max_seq_len=1024")
    (result,) = run(catalogue_case(*two, "scenario=generator")).of(Result)
    assert result.host_buffers_bytes == 1024 * 8 + (16 + 1) * 4 + 32 * 8 + 32 * 8
    (result,) = run(catalogue_case(*two)).of(Result)
    assert (result.host_buffers_bytes, result.generated_tokens) == (None, None)


def test_every_job_has_its_pages() -> None:
    """The engine takes one token more than a job is given; else fewer jobs would run at a time."""
    case = served(max_seq_len=1024, batch_size=3, draft="ngram", num_draft_tokens=4)
    begun = [step for step in steps_of(case) if step.new_tokens]
    assert [step.jobs for step in begun] == [1, 3, 3]
    for step in begun[1:2]:
        assert step.tokens + step.new_tokens + 1 + 4 == 1024


def test_given_are_the_last_long_jobs() -> None:
    given = Given()
    for prompt, of_each, drafted in ((16, [3], 0), (4000, [5], 1), (1000, [5, 4], 2), (16, [5, 5], 3)):
        given.note(prompt, of_each, drafted)
    assert (given.generated_tokens, given.drafted_tokens) == (9, 2)


@pytest.mark.parametrize(
    ("values", "sizes"),
    # As PyTorch 2.13's own allocator was asked by torch.isfinite(logits).all(), on the null GPU.
    [(128256, []), (130560, []), (130561, [16, 4]), (151936, [19, 4]), (262144, [32, 4])],
)
def test_long_rows_are_reduced_by_several_blocks(values: int, sizes: list[int]) -> None:
    assert workspace_bytes(values, 1) == sizes


def test_a_product_into_a_tensor_has_cublas_with_its_workspace() -> None:
    """torch.matmul(..., out=...), as exllamav3 multiplies by unquantised weights."""
    with cards.open_machine(served()) as machine, torch.inference_mode():
        (card,) = machine.cards
        x, y = (torch.empty((8, 8), dtype=torch.half, device="cuda:0") for _ in range(2))
        before = card.memory().allocated_bytes
        torch.matmul(x, x, out=y)
        assert card.memory().allocated_bytes - before == card.limits.workspace_bytes  # type: ignore[attr-defined]


def test_tables_are_staged_as_the_extension_does() -> None:
    arena = torch.full((2 * (4 + 2),), -1, dtype=torch.int32)
    ids, pages = torch.zeros((2, 1), dtype=torch.long), [torch.zeros((1, PAGE), dtype=torch.long) for _ in range(2)]
    tables = [torch.tensor([[5, 6]], dtype=torch.int32), torch.tensor([[1, 2, 3, 4, 9]], dtype=torch.int32)]
    tokens = [torch.arange(300).view(1, -1), torch.arange(100, 400).view(1, -1)]
    Serving().generator_stage_decode(arena, 4, tables, [299, 7], [1, 0], ids, tokens, pages, [43, 7])
    assert arena.tolist() == [5, 6, 0, 0, 1, 2, 3, 4, 299, 7, 300, 7]
    assert ids.flatten().tolist() == [299, 107]
    assert [int(pages[0][0, 43]), int(pages[1][0, 7])] == [299, 107]
    with pytest.raises(RuntimeError, match="generator_stage_decode"):
        Serving().generator_stage_decode(arena, 8, tables, [299, 7], [], None, [], [], [])
