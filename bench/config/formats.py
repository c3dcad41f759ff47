"""What kind of weights a checkpoint has: told by its tensors, and by what config.json says of their quantisation.

The tensors come first, because they are what an engine loads: config.json may be left from another checkpoint. Where
several formats have tensors of the same kind, config.json decides between them. Names of tensors are those of the
libraries that write them, values of `quant_method` those of transformers' QuantizationMethod and of each library's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.engines.base import EngineSpec
from bench.engines.registry import engines

Shape = list[int]
Tensors = Mapping[str, tuple[Shape, str]]  # shape and safetensors type, by name

EXL2_PARTS = ("q_weight", "q_invperm", "q_scale", "q_scale_max", "q_groups")
_PLAIN_TYPES = ("F16", "BF16", "F32")
_PLAIN_PARTS = frozenset({"weight", "bias", *EXL2_PARTS})
_REMEDY = "give a model of these, or a directory with its config.json alone to choose the bits with bpw"


@dataclass(frozen=True)
class Format:
    """One way of keeping quantised weights. `methods` are what config.json may call it, `loaded_by` what loads it."""

    name: str
    methods: tuple[str, ...]
    loaded_by: str | None = None


EXL2 = Format("EXL2", ("exl2",))
_EXL3 = Format("EXL3", ("exl3",))
_GPTQ = Format(
    "GPTQ",
    ("gptq", "gptqmodel"),
)
_AWQ = Format("AWQ", ("awq",))
_AUTO_ROUND = Format("AutoRound", ("auto-round", "intel/auto-round", "autoround"))
_MARLIN = Format("Marlin", ("marlin",))
_COMPRESSED = Format("compressed-tensors", ("compressed-tensors", "sparseml"))
_BITSANDBYTES = Format("bitsandbytes", ("bitsandbytes", "bnb"))
_AQLM = Format("AQLM", ("aqlm",))
_HQQ = Format("HQQ", ("hqq",))
_VPTQ = Format("VPTQ", ("vptq",))
_QUIP = Format("QuIP#", ("quip", "quip-sharp"))
_QTIP = Format("QTIP", ("qtip",))
_MXFP4 = Format("MXFP4", ("mxfp4",))
_NVFP4 = Format("NVFP4", ("nvfp4", "modelopt-fp4"))
_MODELOPT = Format("ModelOpt", ("modelopt",))
_QUARK = Format("Quark", ("quark",))
_QUANTO = Format("quanto", ("quanto",))
_TORCHAO = Format("torchao", ("torchao",))
_MLX = Format("MLX", ("mlx",), "MLX, on a Mac")
_FP8 = Format("FP8", ("fp8", "fbgemm-fp8", "finegrained-fp8"))
_INT8 = Format("INT8", ("int8",))
_GGUF = Format("GGUF", ("gguf",), "llama.cpp")
_OTHERS = tuple(Format(name, (name.lower(),)) for name in ("EETQ", "HIGGS", "BitNet", "SpQR", "FP_Quant", "SINQ"))
FORMATS = (
    *(EXL2, _EXL3, _GPTQ, _AWQ, _AUTO_ROUND, _MARLIN, _COMPRESSED, _BITSANDBYTES, _AQLM, _HQQ, _VPTQ, _QUIP, _QTIP),
    *(_MXFP4, _NVFP4, _MODELOPT, _QUARK, _QUANTO, _TORCHAO, _MLX, _FP8, _INT8, _GGUF, *_OTHERS),
)


@dataclass
class _Seen:
    """What a checkpoint has, EXL2 layers left out: its tensors by the last part of their names, and their types."""

    parts: dict[str, list[tuple[Shape, str]]] = field(default_factory=dict)

    def __contains__(self, part: str) -> bool:
        return part in self.parts

    def any_type(self, *beginnings: str) -> bool:
        return any(kind.startswith(beginnings) for tensors in self.parts.values() for _, kind in tensors)

    def types_of(self, *parts: str) -> set[str]:
        return {kind for part in parts for _, kind in self.parts.get(part, [])}


@dataclass(frozen=True)
class _Sign:
    """Tensors that only quantised weights have: those of `format`, or of one of `others` where config.json says so."""

    format: Format
    shown_by: Callable[[_Seen], bool]
    others: tuple[Format, ...] = ()


# In the order in which they are tried: the least ambiguous first.
_SIGNS = (
    _Sign(_EXL3, lambda seen: "trellis" in seen and ("suh" in seen or "svh" in seen)),
    _Sign(_QTIP, lambda seen: "trellis" in seen and "SU" in seen),
    _Sign(_EXL3, lambda seen: "trellis" in seen, (_QTIP,)),
    _Sign(_AWQ, lambda seen: "qweight" in seen and _packs_outputs(seen), (_GPTQ, _AUTO_ROUND)),
    _Sign(_GPTQ, lambda seen: "qweight" in seen, (_AWQ, _AUTO_ROUND, _MARLIN)),
    _Sign(_MARLIN, lambda seen: "B" in seen and "s" in seen),
    _Sign(_COMPRESSED, lambda seen: "weight_packed" in seen or "weight_shape" in seen),
    _Sign(_BITSANDBYTES, lambda seen: any(part in seen for part in ("absmax", "quant_map", "SCB"))),
    _Sign(_BITSANDBYTES, lambda seen: any(part.startswith("bitsandbytes__") for part in seen.parts)),
    _Sign(_AQLM, lambda seen: "codes" in seen and "codebooks" in seen),
    _Sign(_HQQ, lambda seen: "W_q" in seen),
    _Sign(_VPTQ, lambda seen: "centroids" in seen or ("indices" in seen and "perm" in seen)),
    _Sign(_QUIP, lambda seen: "Qidxs" in seen),
    _Sign(_QUANTO, lambda seen: "_data" in seen and "_scale" in seen),
    _Sign(_MXFP4, lambda seen: any(part.endswith("_blocks") for part in seen.parts) and seen.any_type("U8")),
    _Sign(_MLX, lambda seen: seen.any_type("U32")),
    _Sign(
        _NVFP4,
        lambda seen: "U8" in seen.types_of("weight") and "F8_E4M3" in seen.types_of("weight_scale"),
        (_MODELOPT, _COMPRESSED, _QUARK),
    ),
    _Sign(_FP8, lambda seen: seen.any_type("F8_"), (_COMPRESSED, _MODELOPT, _TORCHAO, _QUARK, _QUANTO)),
    _Sign(
        _INT8,
        lambda seen: "I8" in seen.types_of("weight"),
        (_COMPRESSED, _BITSANDBYTES, _TORCHAO, _QUARK, _QUANTO, *_OTHERS),
    ),
)
# Files of weights that no engine here looks at, by what they are named.
_FOREIGN_FILES = ((re.compile(r".*\.gguf$"), _GGUF), (re.compile(r".*\.npz$"), _MLX))
_PICKLES = re.compile(r"((pytorch_)?model|gptq_model|awq_model|qmodel|consolidated)[\w.-]*\.(bin|pt|pth|ckpt)$")


def is_weights_file(name: str) -> bool:
    """Whether a file that is no safetensors file holds weights, by its name."""
    return any(pattern.match(name) for pattern, _ in _FOREIGN_FILES) or _PICKLES.match(name) is not None


def format_of(tensors: Tensors, config: Mapping[str, Any]) -> str | None:
    """The name of the format of quantised weights; None for others, and for those that are not understood."""
    if any(name.rpartition(".")[2] == EXL2_PARTS[0] for name in tensors):
        return EXL2.name
    found = _recognise(tensors, _method(config), _PLAIN_TYPES)
    return found.name if isinstance(found, Format) else None


def refusal(tensors: Tensors, config: Mapping[str, Any], foreign_files: list[str], engine: EngineSpec) -> str | None:
    """Why these weights are not measured with `engine`: which format they are in.

    None for its own format, unquantised ones, and where there are none at all.

    `foreign_files` are weights beside the tensors, in files of other kinds; they count where there are no tensors.
    """
    said = _method(config)
    loads = engine.weights
    found: Format | str | None
    if tensors and loads.quantised != EXL2.name and format_of(tensors, config) == EXL2.name:
        found = EXL2
    else:
        found = _recognise(tensors, said, loads.plain_types) if tensors else _recognise_files(foreign_files, said)
    if found is None or (isinstance(found, Format) and found.name == loads.quantised):
        return None
    if isinstance(found, str):
        return f"{found}; {loads.in_words}; {_REMEDY}"
    if why := loads.why_not.get(found.name):
        return f"{found.name} weights; {why}; {_REMEDY}"
    other = next((each for each in engines() if each.weights.quantised == found.name), None)
    if other is not None:
        return f"{found.name} weights; {loads.in_words}; leave engine out, or give engine={other.name}"
    needs = f", {found.name} needs {found.loaded_by}" if found.loaded_by else ""
    return f"{found.name} weights; {loads.in_words}{needs}; {_REMEDY}"


def _recognise(tensors: Tensors, said: str | None, plain_types: Sequence[str]) -> Format | str | None:
    """The format of weights that are not measured, or in words what is not understood of them."""
    seen = _Seen()
    for name, tensor in tensors.items():
        layer, _, part = name.rpartition(".")
        # What the engine finds first in a layer is EXL2; whatever else lies beside it is never read.
        if f"{layer}.q_weight" not in tensors:
            seen.parts.setdefault(part, []).append(tensor)
            if layer.endswith((".centroids", ".indices")):  # VPTQ's are embeddings
                seen.parts.setdefault(layer.rpartition(".")[2], []).append(tensor)
    told = next((each for each in FORMATS if said in each.methods), None)
    for manifest in _SIGNS:
        if manifest.shown_by(seen):
            return told if told in manifest.others else manifest.format
    odd = sorted(seen.types_of("weight") - set(plain_types))
    packed = any(  # buffers of a plain model may be whole numbers, too; but then config.json speaks of no quantisation
        len(shape) > 1 and part not in _PLAIN_PARTS and kind not in plain_types
        for part, tensors_of in seen.parts.items()
        for shape, kind in tensors_of
    )
    if said is not None and told is not EXL2 and (odd or packed):
        return told or f"weights of quant_method {said}"
    return f"weights of type {', '.join(odd)}" if odd else None


def _recognise_files(names: list[str], said: str | None) -> Format | str | None:
    for name in names:
        for pattern, found in _FOREIGN_FILES:
            if pattern.match(name):
                return found
    told = next((each for each in FORMATS if said in each.methods), None)
    return (told or f"weights of quant_method {said}") if names and said is not None else None


def _packs_outputs(seen: _Seen) -> bool:
    """Whether `qweight` is [inputs, packed outputs], as AWQ has it; GPTQ's is [packed inputs, outputs].

    `qzeros` are [groups, packed outputs] in both, `scales` [groups, outputs].
    """
    widths = [{shape[-1] for shape, _ in seen.parts.get(part, []) if shape} for part in ("qweight", "qzeros", "scales")]
    qweight, qzeros, scales = widths
    return bool(qweight) and "g_idx" not in seen and qweight == qzeros and qweight != scales


def _method(config: Mapping[str, Any]) -> str | None:
    """What config.json calls the quantisation, in small letters and with hyphens; None where it speaks of none."""
    text = config.get("text_config")
    for scope in (config, text if isinstance(text, dict) else {}):
        for key in ("quantization_config", "compression_config", "quantization"):
            about = scope.get(key)
            if not isinstance(about, dict):
                continue
            named = about.get("quant_method") or about.get("quant_algo")
            if named is not None:
                return str(named).lower().replace("_", "-")
            if any(str(name).startswith(("load_in_", "bnb_")) for name in about):
                return "bitsandbytes"  # of before there was a `quant_method`
            if "group_size" in about and "bits" in about:
                return "mlx"
    return None
