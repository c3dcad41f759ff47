"""Choices that exllamav2 leaves to its caller: is the architecture known, which attention, which cache class."""

from __future__ import annotations

import contextlib
import io
from importlib.metadata import version
from typing import Any

from bench.engines.reading import Reading, Rope
from bench.worker.interfaces.card import Machine
from bench.worker.interfaces.engine import Unsupported


def require_known_architecture(config: dict[str, Any]) -> None:
    """Raises `Unsupported` where exllamav2 would warn and carry on as if the model were a Llama."""
    from exllamav2.architecture import ExLlamaV2ArchParams

    architectures = config.get("architectures") or []
    if not isinstance(architectures, list) or len(architectures) != 1:
        raise Unsupported(f"config.json names the architectures {architectures}; ExLlamaV2 needs a list of exactly one")
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            ExLlamaV2ArchParams(architectures[0], config)
    except (KeyError, AttributeError, TypeError) as error:
        if isinstance(error, KeyError):
            raise Unsupported(
                f"ExLlamaV2 cannot read config.json: {architectures[0]} needs {error.args[0]}, and it has none; "
                "add it, as the original model has it"
            ) from error
        raise Unsupported(f"ExLlamaV2 cannot read the configuration of {architectures[0]}: {error!r}") from error
    if "unknown architecture" in said.getvalue().lower():
        raise Unsupported(
            f"ExLlamaV2 {version('exllamav2')} does not know the architecture {architectures[0]} "
            "and would run it as a Llama; choose a model that `vram-bench list models` does not mark"
        )


def choose_attention(config: Any, requested: str, machine: Machine) -> str:
    """Sets the switches of an `ExLlamaV2Config` for `requested` and returns the back end that will run.

    `auto` is the engine's own order. Raises `Unsupported` for one that is not installed or that the model rules out.
    """
    from exllamav2 import attn

    available = {
        "flash": attn.has_flash_attn and machine.supports_flash_attention(),
        "xformers": attn.has_xformers,
        "sdpa": attn.has_lower_right_sdpa,
        "matmul": True,
    }
    if requested != "auto" and not available[requested]:
        have = ", ".join(name for name, there in available.items() if there)
        raise Unsupported(f"attention={requested} is not available on this card; available: {have}")
    wanted = [requested] if requested != "auto" else [name for name, there in available.items() if there]
    config.no_flash_attn = "flash" not in wanted
    config.no_xformers = "xformers" not in wanted
    config.no_sdpa = "sdpa" not in wanted
    config.arch_compat_overrides()  # switches off what cannot do the model's soft caps or sliding windows
    if not config.no_flash_attn:
        chosen = "flash"
    elif not config.no_xformers:
        chosen = "xformers"
    elif not config.no_sdpa and not config.attn_logit_softcapping:
        chosen = "sdpa"
    else:
        chosen = "matmul"
    if requested not in ("auto", chosen):
        raise Unsupported(f"{config.architecture} cannot use attention={requested} in ExLlamaV2; it runs as {chosen}")
    return chosen


def cache_class(name: str) -> Any:
    """ExLlamaV2's class for a value of the `cache` axis."""
    import exllamav2

    return getattr(exllamav2, "ExLlamaV2Cache" if name == "FP16" else f"ExLlamaV2Cache_{name}")


def divided_cache_class() -> Any:
    """ExLlamaV2's class for a cache of which each card has some heads; it takes one of the others as its `base`."""
    from exllamav2.cache import ExLlamaV2Cache_TP

    return ExLlamaV2Cache_TP


def read_back(config: Any, attention: str) -> Reading:
    """What an `ExLlamaV2Config` holds after it has read a config.json."""
    language = config.arch.lm
    return Reading(
        attention=attention,
        head_dim=config.head_dim,
        experts=(config.num_experts if language.is_moe else None) or 1,
        windows=tuple(_window(config, layer) for layer in range(config.num_hidden_layers)),
        rope=None if language.rope_style == type(language.rope_style).NONE else _rope(config),
    )


def _window(config: Any, layer: int) -> int:
    """The sliding window of a layer in tokens, 0 for none (ExLlamaV2.__init__)."""
    window = int(config.sliding_window or 0)
    if config.arch.lm.alternating_swa:
        if config.sliding_window_pattern > 1:
            return window if (layer + 1) % config.sliding_window_pattern else 0
        return window if layer % 2 == 0 else 0
    return window if config.arch.lm.swa else 0


def _rope(config: Any) -> Rope:
    """What `rope.get_rope_params` and the positions' scale are made of."""
    scaling, numbers = "default", {}
    if config.alt_rope_method is not None:
        scaling = {"su": "longrope"}.get(config.alt_rope_method, config.alt_rope_method)
    elif config.scale_pos_emb != 1.0:
        scaling, numbers = "linear", {"factor": config.scale_pos_emb}
    prefix = {"yarn": "yarn_rope_", "llama3": "l3_rope_"}.get(scaling)
    if prefix is not None:
        numbers = {name.removeprefix(prefix): value for name, value in vars(config).items() if name.startswith(prefix)}
    return Rope(
        base=float(config.rotary_embedding_base),
        window_base=config.rotary_embedding_base_alt and float(config.rotary_embedding_base_alt),
        scaling=scaling,
        numbers={name: float(value) for name, value in numbers.items()},
        rotary_factor=float(config.partial_rotary_factor),
    )
