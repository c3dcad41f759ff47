"""What exllamav3 refuses of a model's config.json, and the model that it makes of it without any weights."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.synth.layout import Content, Tensor
from bench.synth.shards import write_shard
from bench.worker.interfaces.engine import Unsupported

# Keys of vision towers that the engine insists on, where a config.json of text alone leaves them out.
_OF_IMAGES = {"Gemma3ForConditionalGeneration": {"mm_tokens_per_image": 256}}
# Which processor each architecture insists on; of the others GLM-4V's.
_QWEN2, _QWEN3 = "Qwen2VLImageProcessor", "Qwen2VLImageProcessorFast"
_PROCESSORS = {
    "Gemma3ForConditionalGeneration": "Gemma3ImageProcessor",
    "Mistral3ForConditionalGeneration": "PixtralImageProcessor",
    **dict.fromkeys(("HCXVisionV2ForCausalLM", "MiMoV2ForCausalLM", "Qwen2_5_VLForConditionalGeneration"), _QWEN2),
    "Qwen3VLForConditionalGeneration": _QWEN3,
    "Qwen3VLMoeForConditionalGeneration": _QWEN3,
    "Qwen3_5ForConditionalGeneration": _QWEN3,
    "Qwen3_5MoeForConditionalGeneration": _QWEN3,
    "Qwen4ExpForConditionalGeneration": _QWEN3,
}
_PREPROCESSOR = {
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 3136, "longest_edge": 12845056, "height": 896, "width": 896},
    "patch_size": 14,
    "merge_size": 2,
    "temporal_patch_size": 2,
    "pooling_kernel_size": 3,
    "max_soft_tokens": 280,
    "resample": 3,
    "do_convert_rgb": True,
    "do_rescale": True,
    "do_resize": True,
    "do_normalize": True,
}


def documents_of(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The documents of a model directory, by name: a config.json (parsed), and what is read for its vision tower.

    No image is ever processed.
    """
    architecture = next(iter(config.get("architectures") or []), "")
    preprocessor = {"image_processor_type": _PROCESSORS.get(architecture, "Glm4vImageProcessor"), **_PREPROCESSOR}
    return {
        "config.json": {**_OF_IMAGES.get(architecture, {}), **config},
        "preprocessor_config.json": preprocessor,
        "processor_config.json": {"image_processor": preprocessor},  # where Gemma 4 and others have the same
    }


@contextlib.contextmanager
def without_weights(config: dict[str, Any]) -> Iterator[Path]:
    """While it lasts, a model directory of a config.json (parsed) whose file of weights has none that matters."""
    with tempfile.TemporaryDirectory(prefix="vram-bench-") as folder:
        directory = Path(folder)
        for name, document in documents_of(config).items():
            (directory / name).write_text(json.dumps(document))
        write_shard(directory / "model.safetensors", [Tensor("none", "F16", (1,), Content.ZEROS)], lambda _: None, {})
        yield directory


def read_config(config: dict[str, Any]) -> Any:
    """exllamav3's Config of a config.json (parsed). Raises `Unsupported` for one that the engine refuses."""
    return read_model(config).config


def read_model(config: dict[str, Any]) -> Any:
    """exllamav3's Model of a config.json (parsed): modules without tensors. Raises `Unsupported`."""
    with without_weights(config) as directory:
        return open_model(directory, config)


def open_model(directory: Path, config: dict[str, Any]) -> Any:
    """exllamav3's Model of a directory, whose config.json is `config` (parsed). Raises `Unsupported`."""
    from exllamav3 import Config, Model
    from exllamav3.architecture.architectures import get_architectures

    named = config.get("architectures") or []
    if not isinstance(named, list) or len(named) != 1:
        raise Unsupported(f"config.json names the architectures {named}; exllamav3 needs a list of exactly one")
    if named[0] not in get_architectures():
        raise Unsupported(
            f"exllamav3 {version('exllamav3')} does not know the architecture {named[0]}; "
            "choose a model that `vram-bench list models` does not mark"
        )
    try:
        return Model.from_config(Config.from_directory(str(directory)))
    except FileNotFoundError as error:
        missing = Path(str(error.filename))
        if missing.parent != directory:
            raise
        raise Unsupported(
            f"exllamav3 reads {missing.name} beside config.json of {named[0]}, and there is none: put the model's there"
        ) from error
    except (OSError, MemoryError, Unsupported):
        raise
    except Exception as error:
        text = " ".join(str(error).split()) or "it gives no reason"
        raise Unsupported(f"exllamav3 cannot read config.json of {named[0]}: {type(error).__name__}: {text}") from error
