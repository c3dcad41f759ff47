"""Every architecture that exllamav2 knows is laid out, loaded and run; what it does not know is refused by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from bench.core.case import Case
from bench.engines.registry import engine_of
from bench.worker.interfaces.engine import Unsupported
from tests.worker.architectures import ARCHITECTURES, DENSE
from tests.worker.conftest import Run, catalogue_case, made_up_case

_OTHERWISE = {"bpw": 16.0, "lazy": True, "cache": "Q4", "attention": "matmul"}


# test_recorder.py runs all of them, too, with these choices spread among them.
@pytest.mark.parametrize(
    ("architecture", "axes"),
    [
        *(pytest.param(name, {}, id=f"exl2-{name}") for name in ARCHITECTURES),
        *(
            pytest.param(
                name,
                _OTHERWISE,
                id=f"fp16-lazy-q4-matmul-{name}",
                marks=[pytest.mark.thorough] * (name not in ("LlamaForCausalLM", "GPT2LMHeadModel")),
            )
            for name in ARCHITECTURES
        ),
    ],
)
def test_known_architectures_run(run: Callable[[Case], Run], architecture: str, axes: dict[str, Any]) -> None:
    config = {**DENSE, "architectures": [architecture], **ARCHITECTURES[architecture]}
    result = run(made_up_case(config, **axes))
    assert (result.parts["weights_bytes"] or 0) > 0
    assert (result.parts["cache_bytes"] or 0) > 0


def test_the_parent_knows_which_they_are() -> None:
    package = find_spec("exllamav2")  # which cannot be imported without a compiler
    assert package is not None
    assert package.origin is not None
    source = Path(package.origin).with_name("architecture.py").read_text(encoding="utf-8")
    named = re.findall(r'"(\w+(?:ForCausalLM|ForConditionalGeneration|LMHeadModel))"', source)
    assert set(named) == engine_of("exllamav2").architectures == ARCHITECTURES.keys()


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ("autoglm_phone_9b", "Glm4vForConditionalGeneration"),
        ("kimi_k2_thinking", "DeepseekV3ForCausalLM"),
        ("glm_4_6v_fp8", "Glm4vMoeForConditionalGeneration"),
        ("hunyuan_ocr", "HunYuanVLForConditionalGeneration"),
        ("glm_asr_nano_2512", "GlmAsrForConditionalGeneration"),
    ],
)
def test_unknown_architectures_are_named_and_never_run_as_llama(
    run: Callable[[Case], Run], model: str, named: str
) -> None:
    with pytest.raises(Unsupported, match=named):
        run(catalogue_case(f"model={model}", "max_seq_len=512"))


@pytest.mark.parametrize("model", ["phi_3_mini_128k", "gemma_2_9b", "qwen2_5_7b"])
def test_models_of_the_catalogue_run(run: Callable[[Case], Run], model: str) -> None:
    memory = run(catalogue_case(f"model={model}", "max_seq_len=2048")).memory
    assert 2 << 30 < memory.peak_allocated_bytes < 32 << 30
