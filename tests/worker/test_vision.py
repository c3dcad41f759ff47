"""The vision tower beside a model: as large as published, loaded as a whole, a part of its own, predicted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.core.case import Case
from bench.core.messages import Result
from bench.trace.replay import Replayer
from bench.worker import cards, recorder
from bench.worker.engines.exllamav2.checkpoint import lay_out, layout_of
from bench.worker.interfaces.engine import Unsupported
from tests.worker.architectures import ARCHITECTURES
from tests.worker.conftest import Run, catalogue_case
from tests.worker.predicted_and_simulated import (
    case_of,
    little_garbage,
    predict,
    simulate,
    tensor_bytes_of,
    trace_of,
)

MIB = 1 << 20
# Of the published models (safetensors metadata of their repositories), text and all.
PARAMETERS = {"gemma_3_4b": 4_300_079_472, "mistral_small_3_1_24b": 24_011_361_280}
QWEN_2_5_VL_7B = 8_292_166_656, {"intermediate_size": 3420, "hidden_size": 1280, "out_hidden_size": 3584}
QWEN_2_VL_7B = 8_291_375_616, {"embed_dim": 1280, "hidden_size": 3584, "mlp_ratio": 4}
QWEN_VISION = {**ARCHITECTURES["Qwen2VLForConditionalGeneration"]["vision_config"], "depth": 32}
QWEN_7B = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "max_position_embeddings": 32768,
    "torch_dtype": "bfloat16",
}


@pytest.fixture(scope="module", autouse=True)
def fast() -> Iterator[None]:
    cards.preload("simulated", "exllamav2")
    with little_garbage():
        yield


def seeing(architecture: str, layers: int = 2, **axes: Any) -> Case:
    """A small model with a tower of three layers."""
    vision = ARCHITECTURES[architecture]["vision_config"]
    depth = {"depth": 3} if "depth" in vision else {"num_hidden_layers": 3, "image_size": 448}
    # With a bias ExLlamaV2 0.3.2 wants one of Mistral's patch merger, too, which no model has.
    more = {"vision_config": {**vision, **depth}, "multimodal_projector_bias": "Mistral3" not in architecture}
    return case_of(architecture, layers, more, vision=True, **axes)


def parameters(config: dict[str, Any]) -> int:
    return sum(math.prod(tensor.shape) for tensor in lay_out(config, 16.0, None, vision=True).tensors)


@pytest.mark.parametrize("model", PARAMETERS)
def test_a_layout_has_as_many_parameters_as_the_published_model(model: str) -> None:
    config = catalogue_case(f"model={model}", "max_seq_len=256").model.config
    more, text = 0, config["text_config"]
    if "Gemma3" in config["architectures"][0]:
        # Its head is its embedding, and the heads of a layer share a norm: the layout has them apart.
        heads = text["num_attention_heads"] + text["num_key_value_heads"] - 2
        more = text["vocab_size"] * text["hidden_size"] + text["num_hidden_layers"] * heads * text["head_dim"]
    assert parameters(config) - more == PARAMETERS[model]


@pytest.mark.parametrize(
    ("architecture", "published"),
    [("Qwen2VLForConditionalGeneration", QWEN_2_VL_7B), ("Qwen2_5_VLForConditionalGeneration", QWEN_2_5_VL_7B)],
)
def test_so_has_that_of_qwen(architecture: str, published: tuple[int, dict[str, Any]]) -> None:
    count, vision = published
    config = {**QWEN_7B, "architectures": [architecture], "vision_config": {**QWEN_VISION, **vision}}
    assert parameters(config) == count


@pytest.mark.parametrize("architecture", [name for name, more in ARCHITECTURES.items() if "vision_config" in more])
def test_every_tensor_of_a_tower_is_loaded_before_the_model(layouts: Path, architecture: str) -> None:
    case = seeing(architecture)
    tower, *_ = recorder.record(case, layouts, None).sections
    language = set(tensor_bytes_of(replace(case, vision=False), layouts))
    own = {name for name, size in tensor_bytes_of(case, layouts).items() if size} - {
        name for name, size in tensor_bytes_of(replace(case, vision=False), layouts).items() if size
    }
    named = {event.tensor for event in tower.events if event.tensor is not None}
    assert named <= own
    # What the engine reads on the host and cuts there has no allocation of its own size.
    assert all("qkv" in name for name in own - named)
    assert language


@pytest.mark.parametrize(
    ("search", "lengths"),
    [
        (seeing("Gemma3ForConditionalGeneration", 12, cache="Q4"), (512, 2304)),
        (seeing("Mistral3ForConditionalGeneration", 6, lazy=True), (300, 1280)),
        (seeing("LlavaForConditionalGeneration", 6, scenario="generator", load_as="tabbyapi"), (1024, 2560)),
        (seeing("Qwen2VLForConditionalGeneration", 6), (1280,)),
        (seeing("Qwen2_5_VLForConditionalGeneration", 6, bpw=16.0, head_bits=None), (1280,)),
    ],
    ids=lambda value: value.model.config["architectures"][0] if isinstance(value, Case) else "",
)
def test_it_is_predicted_to_the_byte(layouts: Path, search: Case, lengths: tuple[int, ...]) -> None:
    trace = trace_of(search, layouts)
    if search.bpw != 16.0:  # a width that was not recorded
        search = replace(search, bpw=5.3)
    replayer = Replayer(trace, tensor_bytes_of(search, layouts))
    for length in lengths:
        case = replace(search, max_seq_len=length)
        need, _ = simulate(case, layouts)
        assert predict(replayer, case) == need, length
        for limit_bytes in (need.peak_reserved_bytes - 1, need.peak_allocated_bytes // 4):
            limited = replace(case, vram_limit_bytes=limit_bytes)
            assert predict(replayer, limited) == simulate(limited, layouts)[0], (length, limit_bytes)


def test_its_weights_are_a_part_of_their_own(run: Callable[[Case], Run]) -> None:
    case = seeing("Mistral3ForConditionalGeneration", max_seq_len=512)
    blind, both = run(replace(case, vision=False)), run(case)
    assert blind.parts["vision_bytes"] == 0
    vision = both.parts["vision_bytes"] or 0
    assert vision > 20 * MIB
    assert (both.parts["weights_bytes"] or 0) == pytest.approx(blind.parts["weights_bytes"], rel=0.01)
    (result,) = both.of(Result)
    assert any("an image's activations are not counted" in note for note in result.notes)


def test_weights_without_a_tower_are_refused(layouts: Path, run: Callable[[Case], Run]) -> None:
    case = seeing("Mistral3ForConditionalGeneration", max_seq_len=512)
    blind = replace(case, vision=False)
    path = layout_of(blind, layouts)
    with pytest.raises(Unsupported, match="the weights have no vision tower"):
        run(replace(case, model=replace(case.model, path=str(path), bpw=4.0)))
