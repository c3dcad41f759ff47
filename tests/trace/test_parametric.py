"""TraceLibrary: layers spelled out as the engine would run them, and what is kept on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.allocator.limits import limits_of
from bench.engines.exllamav2.quantised_caches import with_cache
from bench.engines.exllamav2.setup import Setup
from bench.engines.exllamav2.spec import SPEC
from bench.trace import parametric as trace
from bench.trace.parametric import ParametricTrace
from bench.trace.passes import NoPrediction
from bench.trace.solve import solve
from bench.worker import recorder
from tests.trace import requests
from tests.trace import synthetic_recordings as made_up
from tests.trace.synthetic_recordings import PLAIN
from tests.worker.predicted_and_simulated import case_of, little_garbage, tensor_bytes_of

CELLS: dict[str, tuple[str, int, dict[str, Any] | None, dict[str, Any]]] = {
    "load": ("LlamaForCausalLM", 12, None, {}),
    "lazy": ("Qwen3ForCausalLM", 12, None, {"lazy": True, "cache": "Q6"}),
    "unquantised": ("Starcoder2ForCausalLM", 9, None, {"bpw": 16.0, "head_bits": None}),
    "matmul": ("Gemma2ForCausalLM", 13, {"sliding_window": 300}, {"attention": "matmul"}),
    "parallel": ("CohereForCausalLM", 7, None, {"attention": "xformers", "batch_size": 3}),
    "pattern": (
        "Gemma3ForConditionalGeneration",
        18,
        {"sliding_window": 300, "sliding_window_pattern": 3},
        {"attention": "sdpa", "max_input_len": 256},
    ),
    "positions": ("GPTBigCodeForCausalLM", 8, None, {"max_input_len": 256}),
    "routed": ("MixtralForCausalLM", 7, {"num_local_experts": 4}, {"lazy": True, "cache": "Q6"}),
}


@pytest.fixture(scope="module", autouse=True)
def fast() -> Iterator[None]:
    with little_garbage():
        yield


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("layouts")


@pytest.fixture(scope="module")
def small() -> ParametricTrace:
    """A program with tensors, all its events made up."""
    made = made_up.recordings(PLAIN, lambda each, n: [n, 512, 512])
    for recording in made:
        load = recording.sections[0]
        load.events[0] = load.events[0]._replace(size=1, tensor="model.norm.weight")
    return solve(made, PLAIN, depth=1)


@pytest.mark.parametrize("name", CELLS)
def test_deepening_writes_out_what_the_whole_model_does(layouts: Path, name: str) -> None:
    """Every allocation of every layer, its size, its stream, its part, and when it is freed."""
    architecture, layers, more, axes = CELLS[name]
    case = case_of(architecture, layers, more, max_seq_len=1100, **axes)
    shallow = recorder.make_trace(case, layouts)
    assert shallow.num_layers < layers == shallow.depth
    limits = limits_of(case.device, None)
    predicted = list(requests.of_program(shallow.deepened(), tensor_bytes_of(case, layouts), limits, 1100))
    recorded = list(requests.of_recording(recorder.record(case, layouts), limits))
    assert [section[:2] for section in predicted] == [section[:2] for section in recorded]
    for one, other in zip(predicted, recorded, strict=True):
        assert one == other


@pytest.mark.parametrize(("architecture", "lazy"), [("LlamaForCausalLM", True), ("GPTBigCodeForCausalLM", False)])
def test_one_recording_stands_for_all_quantised_caches(layouts: Path, architecture: str, lazy: bool) -> None:
    case = case_of(architecture, 2, lazy=lazy, max_input_len=256)
    for cache in ("Q8", "Q4", "Q6", "FP16"):
        itself = recorder.make_trace(replace(case, cache=cache), layouts)
        recorded = recorder.make_trace(replace(case, cache=SPEC.caches[cache].recorded_as), layouts)
        derived = with_cache(recorded, cache)
        for kind, template in itself.templates.items():
            assert np.array_equal(derived.templates[kind], template), (cache, kind)


def test_a_program_that_is_deep_enough_is_left_alone(small: ParametricTrace) -> None:
    assert small.deepened() is small


def test_a_program_is_read_as_it_was_written(small: ParametricTrace, tmp_path: Path) -> None:
    small.save(tmp_path / "p.npz")
    read = ParametricTrace.load(tmp_path / "p.npz", Setup)
    assert list(read.templates) == list(small.templates)
    for kind, template in small.templates.items():
        assert np.array_equal(read.templates[kind], template)
        assert read.templates[kind].dtype == np.int64
    assert replace(read, templates={}) == replace(small, templates={})
    assert read.setup == PLAIN
    assert read.tensor_names == [(0, -1, "model.norm.weight")]
    assert [path.name for path in tmp_path.iterdir()] == ["p.npz"]


def test_what_was_refused_is_kept_with_its_reason(tmp_path: Path) -> None:
    made = made_up.recordings(PLAIN, lambda each, n: [n + each.q_len // 3])
    solve(made, PLAIN, depth=1).save(tmp_path / "p.npz")
    with pytest.raises(NoPrediction, match="sizes in prefill do not follow the lengths"):
        ParametricTrace.load(tmp_path / "p.npz", Setup).passes(1000)


def test_relations_of_any_size_survive(small: ParametricTrace, tmp_path: Path) -> None:
    """They are whole numbers, and may be larger than 64 bits."""
    replace(small, null_space={"load": [[10**30, -1, 0, 0, 0, 0]]}).save(tmp_path / "p.npz")
    assert ParametricTrace.load(tmp_path / "p.npz", Setup).null_space == {"load": [[10**30, -1, 0, 0, 0, 0]]}


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_a_reason_is_kept_in_the_place_of_what_it_is_about(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"kept{suffix}"
    trace.save_reason(path, "Unsupported: no")
    load = partial(ParametricTrace.load, make_setup=Setup) if suffix == ".npz" else trace.load_tensor_bytes
    with pytest.raises(NoPrediction, match="Unsupported: no"):
        load(path)


def test_tensors_are_read_as_they_were_written(tmp_path: Path) -> None:
    trace.save_tensor_bytes(tmp_path / "t.json", {"a.0.b": 3, "head": 1 << 40})
    assert trace.load_tensor_bytes(tmp_path / "t.json") == {"a.0.b": 3, "head": 1 << 40}


def test_writing_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    trace.save_tensor_bytes(path, {"a": 1})
    with pytest.raises(TypeError):
        trace.save_tensor_bytes(path, {"a": 0, "b": b""})  # type: ignore[dict-item]
    assert [each.name for each in tmp_path.iterdir()] == ["t.json"]
    assert trace.load_tensor_bytes(path) == {"a": 1}


def test_sizes_that_were_changed_are_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    trace.save_tensor_bytes(path, {"a": 1234, "b": 5})
    path.write_text(path.read_text().replace("1234", "1235", 1))
    with pytest.raises(ValueError, match=r"the tensors in t\.json do not add up"):
        trace.load_tensor_bytes(path)


def test_what_was_never_kept_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        ParametricTrace.load(tmp_path / "none.npz", Setup)
