"""Whether the positions that an engine computes are those that config.json describes.

transformers 5 writes `rope_parameters`, and moves into it what engines may look for elsewhere: `rope_theta`,
`rope_scaling`, `partial_rotary_factor` (seen with `save_pretrained` of 5.24.0).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.engines.reading import Rope, as_number, find, find_number

# The numbers of a scaling that decide, and what is taken where one is not told.
_NUMBERS: dict[str, dict[str, float | None]] = {
    "linear": {"factor": None},
    "yarn": {"factor": None, "original_max_position_embeddings": None, "beta_fast": 32.0, "beta_slow": 1.0},
    "llama3": dict.fromkeys(("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")),
    "longrope": {},
}
_SAME = {"su": "longrope", "mrope": "default"}  # of text alone, mrope's three positions are one


@dataclass(frozen=True)
class _Described:
    """What config.json says; None where it says nothing."""

    base: float | None
    window_base: float | None
    scaling: str
    numbers: dict[str, float]
    rotary_factor: float | None
    attention_factor: float | None


def positions_note(
    config: Mapping[str, Any], rope: Rope | None, max_seq_len: int, engine: str, reads_rope_parameters: bool = False
) -> str | None:
    """What `engine` computes otherwise than config.json (parsed) describes, in a context of `max_seq_len` tokens.

    None where both are the same, as far as config.json says.
    """
    described = _described(config)
    if rope is None or described is None:
        return None
    differences = list(_differences(described, rope, max_seq_len, _trained_length(config)))
    if not differences:
        return None
    remedy = ""
    if _rope_parameters(config) is not None and not reads_rope_parameters:
        remedy = "; it reads rope_theta and rope_scaling, not rope_parameters: save config.json as transformers 4 did"
    return (
        f"{engine} does not compute the positions that config.json describes ({', '.join(differences)}): "
        f"memory is right, outputs are not{remedy}"
    )


def _rope_parameters(config: Mapping[str, Any]) -> dict[str, Any] | None:
    found = find(config, "rope_parameters")
    return found if isinstance(found, dict) and found else None


def _described(config: Mapping[str, Any]) -> _Described | None:
    """As transformers reads it: `rope_scaling` before `rope_parameters`, which may have one for each kind of layer."""
    scaling = find(config, "rope_scaling")
    told = scaling if isinstance(scaling, dict) and scaling else _rope_parameters(config) or {}
    per_kind = {kind: own for kind, own in told.items() if isinstance(own, dict)}
    window_base = find_number(config, "rope_local_base_freq")
    if per_kind:
        told = per_kind.get("full_attention", next(iter(per_kind.values())))
        window_base = as_number(per_kind.get("sliding_attention", {}).get("rope_theta"))
    if not isinstance(told, dict):
        return None
    name = str(told.get("rope_type") or told.get("type") or "default")
    base = as_number(told.get("rope_theta"))
    factor = as_number(told.get("partial_rotary_factor"))
    return _Described(
        base=find_number(config, "rope_theta") if base is None else base,
        window_base=window_base,
        scaling=_SAME.get(name, name),
        numbers={key: number for key in told if (number := as_number(told[key])) is not None},
        rotary_factor=find_number(config, "partial_rotary_factor") if factor is None else factor,
        attention_factor=as_number(told.get("attention_factor")),
    )


def _differences(described: _Described, rope: Rope, max_seq_len: int, trained: float | None) -> list[str]:
    said = []
    if described.base is not None and not math.isclose(described.base, rope.base):
        said.append(f"base {rope.base:,.10g} for {described.base:,.10g}")
    if None not in (described.window_base, rope.window_base) and described.window_base != rope.window_base:
        said.append(f"base of windowed layers {rope.window_base:,.10g} for {described.window_base:,.10g}")
    if described.rotary_factor is not None and not math.isclose(described.rotary_factor, rope.rotary_factor):
        said.append(f"{rope.rotary_factor:g} of each head rotated for {described.rotary_factor:g}")
    scaling = _SAME.get(rope.scaling, rope.scaling)
    if described.scaling != scaling:
        if described.scaling == "default":
            said.append(f"{scaling} scaling for none")
        elif _matters(described, max_seq_len, trained):
            said.append(f"no {described.scaling} scaling" if scaling == "default" else f"{scaling} scaling")
    elif described.scaling == "yarn" and not _matters(described, max_seq_len, trained):
        pass  # the engine computes plain positions in contexts that need no scaling
    else:
        said += _other_numbers(described, rope)
    return said


def _matters(described: _Described, max_seq_len: int, trained: float | None) -> bool:
    """Whether a scaling changes positions in so short a context, were it read by the engine."""
    if described.scaling == "yarn":
        return max_seq_len > described.numbers.get("original_max_position_embeddings", 0)
    return described.scaling != "dynamic" or trained is None or max_seq_len > trained


def _other_numbers(described: _Described, rope: Rope) -> list[str]:
    said = []
    for key, usual in _NUMBERS.get(described.scaling, {}).items():
        wanted, used = described.numbers.get(key, usual), rope.numbers.get(key, usual)
        if wanted is not None and used is not None and not math.isclose(wanted, used):
            said.append(f"{described.scaling} with {key} {used:g} for {wanted:g}")
    if described.scaling == "yarn" and described.attention_factor is not None:
        used = 0.1 * math.log(rope.numbers.get("factor", 1.0)) + 1.0
        if not math.isclose(described.attention_factor, used, rel_tol=1e-3):
            said.append(f"yarn with attention_factor {used:.4g} for {described.attention_factor:.4g}")
    return said


def _trained_length(config: Mapping[str, Any]) -> float | None:
    return find_number(config, "max_position_embeddings")
