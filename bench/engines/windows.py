"""Whether an engine's layers look back as far as config.json describes.

An engine may know which layers have a window from the architecture and `sliding_window_pattern`, without reading
`layer_types`, which transformers writes in its place; and it may give some architectures no window at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.engines.reading import find, find_number

# Models whose layers all have the window that config.json names (transformers 5.24.0, their configurations).
_ALL_WINDOWED = ("mistral", "mixtral", "phi3", "starcoder2")
# Those of which only some have it: every nth layer, from the first on, has none.
_PATTERNS = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4}


def windows_note(
    config: Mapping[str, Any], windows: tuple[int, ...], max_seq_len: int, engine: str, reads_pattern: bool = True
) -> str | None:
    """Where layers look further back, or less far, than config.json (parsed) describes, in a context of `max_seq_len`.

    None where they do not, or where config.json does not say.
    """
    described = _described(config, len(windows))
    if described is None:
        return None

    def within(window: int) -> int:
        """A window as long as the context is none."""
        return window if 0 < window < max_seq_len else 0

    if all(_is_same(within(one), within(other)) for one, other in set(zip(windows, described, strict=True))):
        return None
    seen, wanted = ([within(window) for window in each] for each in (windows, described))
    from_tokens = min(w for w in (*seen, *wanted) if w)
    remedy = _remedy(config, seen, wanted) if reads_pattern else ""
    return (
        f"{engine} gives {_layers(seen)} a sliding window where config.json has {_layers(wanted)}: "
        f"memory is right, outputs beyond {from_tokens:,} tokens are not{remedy}"
    )


def _is_same(one: int, other: int) -> bool:
    """An engine may count the token itself, or not."""
    return bool(one) == bool(other) and abs(one - other) <= 1


def _described(config: Mapping[str, Any], num_layers: int) -> list[int] | None:
    """The window of each layer, 0 for none."""
    window = find_number(config, "sliding_window")
    kinds = find(config, "layer_types")
    if isinstance(kinds, list) and len(kinds) == num_layers:
        if window is None and "sliding_attention" in kinds:
            return None
        return [int(window or 0) if kind == "sliding_attention" else 0 for kind in kinds]
    if window is None:
        return None
    family = _family(config)
    if family in _ALL_WINDOWED:
        return [int(window)] * num_layers
    if family.startswith(("qwen2", "qwen3")):
        first = find_number(config, "max_window_layers")
        if not find(config, "use_sliding_window"):
            return [0] * num_layers
        return None if first is None else [int(window) if i >= first else 0 for i in range(num_layers)]
    told = find_number(config, "sliding_window_pattern") or find_number(config, "_sliding_window_pattern")
    pattern = int(told or _PATTERNS.get(family, 0))
    if pattern < 1 or family not in _PATTERNS:
        return None
    return [int(window) if (i + 1) % pattern else 0 for i in range(num_layers)]


def _family(config: Mapping[str, Any]) -> str:
    text = config.get("text_config")
    kind = text.get("model_type") if isinstance(text, dict) else None
    return str(kind or config.get("model_type") or "")


def _layers(windows: list[int]) -> str:
    count = sum(map(bool, windows))
    return "no layer" if not count else f"{count} layer{'' if count == 1 else 's'}"


def _remedy(config: Mapping[str, Any], seen: list[int], wanted: list[int]) -> str:
    """What to write into config.json, where that would help: the engine alternates, so it can be told a pattern."""
    if not any(seen) or find(config, "sliding_window_pattern") is not None:
        return ""
    full = [i + 1 for i, window in enumerate(wanted) if not window]
    step = full[0] if full else 0
    regular = step > 1 and all(bool((i + 1) % step) == bool(window) for i, window in enumerate(wanted))
    return f"; add sliding_window_pattern: {step} to it" if regular else ""
