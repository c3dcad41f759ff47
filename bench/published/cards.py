"""The card of a line: a file of the catalogue, by the name that its source gives it."""

from __future__ import annotations

import re
from functools import cache

from bench.config.compose import device_settings, names
from bench.config.devices import resolve_devices
from bench.core.device import DeviceSpec
from bench.published.refused import NotComparable

_MAKERS = re.compile(r"^(nvidia|geforce|tesla)_")
_INFERRED = re.compile(r"\b((?:rtx|gtx|a|h|l|t|v) ?\d+\w*(?: ti| super)?)", re.IGNORECASE)
_NOT_TOLD = "not told"
_WAYS = ("auto", "cuda")


def card_of(gpu: str) -> tuple[DeviceSpec, list[str]]:
    """The card that `gpu` names, and what is assumed of it. Raises `NotComparable`."""
    if not gpu or gpu.startswith(_NOT_TOLD):
        hint = _INFERRED.search(gpu.removeprefix(_NOT_TOLD))
        named = hint and _named(hint[1])
        if not named:
            raise NotComparable("card not told: neither its total nor what its CUDA context takes is known")
        return _spec(named), [f"card not told; {hint[1] if hint else named} by its author's other posts"]
    if "rocm" in gpu.lower():
        raise NotComparable(f"{gpu}: an AMD card, which is not simulated")
    if re.search(r"\d+ ?x |\+", gpu):
        raise NotComparable(f"{gpu}: several cards; how the model was split over them is not told")
    named = _named(re.split(r"[,(]| with ", gpu)[0])
    if named is None:
        raise NotComparable(f"{gpu}: card without a file in conf/device: neither its total nor its context is known")
    return _spec(named), ["card inferred"] if "inferred" in gpu else []


@cache
def _spec(name: str) -> DeviceSpec:
    return resolve_devices(device_settings(name))[0]


@cache
def _named(text: str) -> str | None:
    """The card that a name begins with; one of several memory sizes only where there is no other."""
    slug = _MAKERS.sub("", re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_"))
    known = [name for name in names("device") if name not in _WAYS]
    laptops = "laptop" in slug
    begins = [name for name in known if f"{slug}_".startswith(f"{name}_") and ("laptop" in name) == laptops]
    if begins:
        return max(begins, key=len)
    sizes = [name for name in known if re.fullmatch(rf"{re.escape(slug)}_\d+gb", name)]
    return sizes[0] if len(sizes) == 1 else None
