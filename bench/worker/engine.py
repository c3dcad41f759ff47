"""Choices that exllamav2 leaves to its caller: is the architecture known, which attention, which cache class."""

from __future__ import annotations

import contextlib
import io
from importlib.metadata import version
from typing import Any

from bench.worker.card import Card

SDPA_NOTE = (
    "exllamav2 0.3.2 applies no causal mask in its SDPA path: memory is right, outputs are not; "
    "install flash-attn or use attention=matmul"
)
MADE_UP_NOTE = "weights made up by vram-bench synth"


class Unsupported(Exception):
    """The engine, as installed, cannot run this case on any card of any size."""


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
        raise Unsupported(f"ExLlamaV2 cannot read the configuration of {architectures[0]}: {error!r}") from error
    if "unknown architecture" in said.getvalue().lower():
        raise Unsupported(f"ExLlamaV2 {version('exllamav2')} does not know the architecture {architectures[0]}")


def choose_attention(config: Any, requested: str, card: Card) -> str:
    """Sets the switches of an `ExLlamaV2Config` for `requested` and returns the back end that will run.

    `auto` is the engine's own order. Raises `Unsupported` for one that is not installed or that the model rules out.
    """
    from exllamav2 import attn

    available = {
        "flash": attn.has_flash_attn and card.supports_flash_attention(),
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
