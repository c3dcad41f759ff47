"""The case of a line: what its source tells, what is assumed where it does not, and what is not simulated."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from bench.core.case import DEFAULT_ENGINE, EXPANDABLE, NATIVE, UNQUANTISED_BPW, Case
from bench.core.device import SIMULATED, DeviceSpec
from bench.engines.registry import NAMES, engine_of
from bench.published.cards import card_of
from bench.published.models import Models
from bench.published.refused import NotComparable
from bench.published.table import Entry

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_VERSION = re.compile(r"\b(\d+)\.(\d+)\.(\d+)")
_SDPA_SINCE = (0, 1, 6)  # before, attention without flash-attn was by matmul alone
_MAX_INPUT_LEN = 2048
# A card of which nothing is told: differences between two figures of it are those of any other.
ANY_CARD = DeviceSpec(
    "any", SIMULATED, "any card", 1 << 40, compute_capability="8.6", multi_processor_count=82, context_bytes=0
)


@dataclass(frozen=True)
class Setting:
    """What is run for a line; `unknown` is what its source does not tell, and what is taken instead."""

    case: Case
    unknown: tuple[str, ...]


def setting_of(entry: Entry, models: Models, any_card: bool = False, length: int | None = None) -> Setting:
    """The case of a line; with `any_card` on one that is never full, where none is told.

    A `length` is that of the case, whatever the line says of it. Raises `NotComparable`.
    """
    unknown: list[str] = []
    engine = _engine(entry)
    model = models.of(entry)
    device = _device(entry, unknown, any_card)
    least, most = engine_of(engine).least_bpw, engine_of(engine).most_bpw
    bpw, head_bits = _bits(entry, unknown)
    if bpw != UNQUANTISED_BPW and not least <= bpw <= most:
        raise NotComparable(f"bpw {entry['bpw']}: {engine_of(engine).weights.quantised} has {least:g} to {most:g}")
    case = Case(
        model=model,
        device=device,
        bpw=bpw,
        head_bits=head_bits,
        cache=_cache(entry, engine, unknown),
        lazy=False,
        attention=_attention(entry, engine, unknown),
        max_seq_len=_length(entry, unknown) if length is None else length,
        batch_size=1,
        max_input_len=_chunk(entry, unknown),
        repeats=1,
        engine=engine,
        allocator=NATIVE if engine_of(engine).allocator == NATIVE else EXPANDABLE,
    )
    return Setting(case, tuple(unknown))


def weights_of(entry: Entry, models: Models) -> Case:
    """The case whose checkpoint a line is about: how it is run does not matter. Raises `NotComparable`."""
    named = entry if entry["base_arch"] else _with_base(entry)
    _engine(named)
    bpw, head_bits = _bits(named, [])
    return Case(models.of(named), ANY_CARD, bpw, head_bits, "FP16", False, "auto", 256, 1, _MAX_INPUT_LEN, repeats=1)


# What the names of checkpoints say of their shape, where a line about a file leaves it out.
_BASES = (
    ("mistral-nemo", "nemo-12b"),
    ("llama-3-8b", "llama3-8b"),
    ("llama-2-7b", "llama2-7b"),
    ("llama-2-13b", "llama2-13b"),
    ("qwen2.5-32b", "qwen2-32b"),
    ("qwq-32b", "qwen2-32b"),
    ("qwen2.5-coder-32b", "qwen2-32b"),
)


def _with_base(entry: Entry) -> Entry:
    name = entry["model"].lower().replace("meta-", "").replace(" ", "-")
    base = next((base for text, base in _BASES if text in name), None)
    if base is None:
        raise NotComparable(f"shape unknown: nothing says which sizes {entry['model']} has")
    head = re.search(r"-h(\d)\b", entry["model"])
    return replace(entry, text={**entry.text, "base_arch": base, "head_bits": head[1] if head else ""})


def _engine(entry: Entry) -> str:
    name = entry["engine_version"].split(" ")[0] or DEFAULT_ENGINE
    if name not in NAMES:
        raise NotComparable(f"{name}: no engine of this program")
    quantised = engine_of(name).weights.quantised
    kind = entry["quant_format"]
    if not kind.startswith((quantised, "FP16 safetensors")):
        raise NotComparable(f"{kind or 'format not told'}: weights of that format are not simulated")
    if "aphrodite" in entry["frontend"]:
        raise NotComparable("not run by the engine: another program with its kernels")
    return name


def _device(entry: Entry, unknown: list[str], any_card: bool) -> DeviceSpec:
    count = entry["n_gpu"]
    if count not in ("", "1") and not count.startswith("not told"):
        raise NotComparable(f"several cards ({count}): how the model was split over them is not told")
    try:
        device, assumed = card_of(entry["gpu"])
    except NotComparable:
        if not any_card:
            raise
        return ANY_CARD
    if "split" in entry["frontend"]:
        raise NotComparable("several cards: a split is told")
    if "windows" in entry["os"].lower() and any_card:
        return ANY_CARD
    if "windows" in entry["os"].lower():
        raise NotComparable("Windows: its driver keeps and moves memory by rules of its own, which are not simulated")
    unknown += assumed
    if count != "1":
        unknown.append("number of cards (1 assumed)")
    return device


def _bits(entry: Entry, unknown: list[str]) -> tuple[float, int | None]:
    found = _NUMBER.match(entry["bpw"])
    if not found:
        raise NotComparable(f"bpw {entry['bpw'] or 'not told'}: which weights it is about is not known")
    for word in ("inferred", "not told"):
        if word in entry["bpw"]:
            unknown.append(f"bpw ({found[0]} {word.replace('not told', 'assumed')})")
    bpw = float(found[0])
    if bpw == UNQUANTISED_BPW:
        return bpw, None
    head = _NUMBER.match(entry["head_bits"])
    if not head or "assumed" in entry["head_bits"]:
        unknown.append("head_bits (6 assumed)")
    return bpw, int(head[0]) if head else 6


def _cache(entry: Entry, engine: str, unknown: list[str]) -> str:
    text = entry["cache_type"]
    name = text.split(" ")[0]
    if pair := re.fullmatch(r"([2-8]),([2-8])", name):  # bits of keys and of values, as TabbyAPI writes them
        both = f"k{pair[1]}v{pair[2]}"
        name = engine_of(engine).cache_synonyms.get(both, both)
    if name in engine_of(engine).caches:
        if "not told" in text or "planned" in text:
            unknown.append(f"cache ({text})")
        return name
    if "inferred" in text or name.startswith("FP8"):
        raise NotComparable(f"cache {text}: FP8 is none of those that are simulated")
    if name not in ("", "not", "none", "any"):
        raise NotComparable(f"cache {text}: none of those that are simulated")
    unknown.append("cache (FP16 assumed)")
    return "FP16"


def _attention(entry: Entry, engine: str, unknown: list[str]) -> str:
    if not engine_of(engine).attentions:
        return "auto"
    text = entry["attention"].lower()
    if text.startswith("yes"):
        return "flash"
    if "sdpa or matmul" in text or text.startswith("no ") or text == "no" or "assume no" in text:
        if "assume" in text:
            unknown.append("attention (not in its requirements: no flash-attn assumed)")
        return "sdpa" if version_of(entry) >= _SDPA_SINCE else "matmul"
    if text.startswith("matmul"):
        return "matmul"
    if not text.startswith("not reached"):
        unknown.append("attention (the engine's choice assumed)")
    return "auto"


def version_of(entry: Entry) -> tuple[int, ...]:
    """The engine's version, (0, 0, 0) where it is not told."""
    found = _VERSION.search(entry["engine_version"])
    return tuple(map(int, found.groups())) if found else (0, 0, 0)


def _length(entry: Entry, unknown: list[str]) -> int:
    text = entry["max_seq_len"]
    if found := re.match(r"[1-9]\d{0,7}", text):
        return int(found[0])
    if found := re.search(r"\((\d{2,8}) inferred\)", text):
        unknown.append(f"max_seq_len ({found[1]} inferred)")
        return int(found[1])
    raise NotComparable(f"max_seq_len {text or 'not told'}")


def _chunk(entry: Entry, unknown: list[str]) -> int:
    text = entry["chunk_max_input_len"]
    if found := re.match(r"[1-9]\d{0,5}", text):
        return int(found[0])
    unknown.append(f"max_input_len ({_MAX_INPUT_LEN} assumed)")
    return _MAX_INPUT_LEN
