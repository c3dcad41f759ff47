"""A table of published figures against simulated cards: each line is compared, or listed with the reason why not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from bench.core.case import UNQUANTISED_BPW
from bench.core.outcome import Phase
from bench.engines.registry import NAMES, engine_of
from bench.forecast.speed import estimated_speed
from bench.launch.versions import installed_versions
from bench.published.asked import (
    MESSAGE_FIGURES,
    Asked,
    cause_of,
    held_after,
    of_message,
    peak,
    phase_of_failure,
    verdict,
)
from bench.published.compared import Cause, Compared, Section
from bench.published.deltas import deltas_between, steps_within
from bench.published.figures import Size, sizes_of
from bench.published.models import Models
from bench.published.refused import NotComparable
from bench.published.runs import Runner
from bench.published.runs import sizes_of as tensor_sizes
from bench.published.settings import Setting, setting_of, version_of, weights_of
from bench.published.table import Entry, Kind

_SPEED_LENGTH = 2048  # where a source tells none: short, as its words have it
_NO_FORWARD = "a forward pass without a cache: no scenario does it"
_OTHER_PROMPT = "a short prompt, after which the context is not filled: every scenario here fills it"
# The moments of a run that sources name, and what of ours is that.
_MOMENTS = {"load": held_after(Phase.LOAD), "cache": held_after(Phase.CACHE), "speed": peak}
_PHASE = "phase"  # of a message, of which each line tells one figure
_LOADED = ("load", "cache")  # moments at which a model is loaded and nothing was run
_NOT_RUN = {"perplexity": _NO_FORWARD, "generation": _OTHER_PROMPT}
_PARTS = {"gate": ".gate_proj", "up": ".up_proj", "down": ".down_proj", "layers": "model.layers."}


def compare_table(
    entries: Sequence[Entry],
    shapes: Iterable[Entry],
    runner: Runner,
    causes: Mapping[str, tuple[Cause, str]],
    tell: Callable[[int, int], None],
) -> list[Compared]:
    """Every figure of `entries`, in their order; those of `shapes` say what sizes models have that a line leaves out.

    `causes` are those that somebody has looked into, by the key of the figure.
    """
    models = Models([*shapes, *entries])
    asked = [each for entry in entries for each in _asked(entry, models)]
    asked += deltas_between(entries, models)
    ran = runner.run_all([case for each in asked for case in each.cases], tell)
    layouts = runner.layouts([each.layout_of for each in asked if each.layout_of is not None])
    by_line = {entry.line: entry for entry in entries}
    answered = [each.answered(ran, layouts) for each in asked]
    return [_with_cause(each, by_line[each.line], causes) for each in _told_once(answered)]


def _told_once(compared: Iterable[Compared]) -> Iterator[Compared]:
    """The phase that each line of a message leads to, once."""
    seen: set[tuple[str, int, bool]] = set()
    for each in compared:
        key = each.key, 0 if each.figure == _PHASE else each.line, each.is_compared
        if key not in seen:
            seen.add(key)
            yield each


def _with_cause(compared: Compared, entry: Entry, causes: Mapping[str, tuple[Cause, str]]) -> Compared:
    if not compared.is_compared or compared.agrees:
        return compared
    engine, _, told = entry["engine_version"].partition(" ")
    version = installed_versions().get(f"{engine}_version") if engine in NAMES else None
    made_up = compared.section in (Section.OOM, Section.FILE) and not entry["bpw"].startswith(f"{UNQUANTISED_BPW:.0f}")
    by_rule = cause_of(compared, told.split(" ")[0].lstrip("~") or None, made_up, version)
    cause, words = causes.get(compared.key, by_rule)
    return replace(compared, cause=cause, words=words)


def _asked(entry: Entry, models: Models) -> Iterator[Asked]:
    """What one line asks for. A line that nothing can be held against asks for nothing, and says why."""
    section = _section(entry)
    try:
        if section is Section.FILE:
            yield from _of_file(entry, models)
        elif section is Section.OOM:
            yield from _of_message(entry, setting_of(entry, models))
        elif section is Section.BOARD:
            yield from _of_board(entry, setting_of(entry, models))
        elif section is Section.VERDICT:
            yield _of_verdict(entry, setting_of(entry, models))
        else:
            yield _of_speed(entry, setting_of(entry, models, length=_SPEED_LENGTH))
    except NotComparable as reason:
        yield Asked(replace(_bare(entry, section), not_comparable=str(reason)))


def _section(entry: Entry) -> Section:
    if entry["phase"] == "file size":
        return Section.FILE
    by_kind = {Kind.VRAM: Section.BOARD, Kind.OOM: Section.OOM, Kind.FIT: Section.VERDICT, Kind.SPEED: Section.SPEED}
    return by_kind[entry.kind]


def _bare(entry: Entry, section: Section, figure: str | None = None) -> Compared:
    by = {Section.BOARD: "driver", Section.OOM: "PyTorch", Section.FILE: "file"}.get(section, "author")
    name = figure or entry["figure"].split(";")[0] or section
    return Compared(entry.line, entry.id, section, name, by, None, None, published_text=None)


def _sized(entry: Entry, section: Section, size: Size, setting: Setting | None, figure: str | None = None) -> Compared:
    bare = _bare(entry, section, figure or size.of or None)
    unknown = "; ".join(setting.unknown) if setting else ""
    must = setting is not None and not unknown and is_promised(entry)
    return replace(bare, published=size.size_bytes, off=size.off_bytes, unknown=unknown or None, must_agree=must)


def is_promised(entry: Entry) -> bool:
    """Whether it is of one GPU under Linux, and its source is trusted."""
    linux = entry["os"].startswith("Linux") and "ROCm" not in entry["os"]
    return entry["n_gpu"] == "1" and linux and entry["trust"][:1] in ("A", "B")


def _of_file(entry: Entry, models: Models) -> Iterator[Asked]:
    case = weights_of(entry, models)
    for size in sizes_of(entry):
        part = size.of if size.of != "file size" else ""
        names = [_PARTS.get(part, f".{part}_proj." if len(part) == 1 else f"{part}.")] if part else []
        compared = _sized(entry, Section.FILE, size, None, part or "file")
        yield Asked(compared, layout_of=case, size_of=partial(tensor_sizes, parts=names))


def _of_message(entry: Entry, setting: Setting) -> Iterator[Asked]:
    name = entry["figure"].split(";")[0].strip()
    if name not in MESSAGE_FIGURES:
        raise NotComparable(f"{name or 'a figure without a name'}: no figure of PyTorch's message")
    size = sizes_of(replace(entry, text={**entry.text, "phase": ""}))[0]
    case = setting.case
    if "free at idle" in entry["value"]:
        compared = replace(_sized(entry, Section.OOM, size, setting, "total (what is free at idle)"), by="driver")
        yield Asked(replace(compared, ours=float(case.device.total_memory_bytes)))
        return
    if name == "total":
        yield Asked(replace(_sized(entry, Section.OOM, size, setting), ours=float(case.device.total_memory_bytes)))
    else:
        yield Asked(_sized(entry, Section.OOM, size, setting, name), (case,), of_message(name))
    if entry["phase"] in list(Phase):
        told = _sized(entry, Section.OOM, size, setting, _PHASE)
        text = "fits" if entry["phase"] == Phase.DONE else entry["phase"]
        yield Asked(replace(told, published=None, off=None, published_text=text), (case,), phase_of_failure)


def _of_board(entry: Entry, setting: Setting) -> Iterator[Asked]:
    if "computed" in entry["figure"] or entry["cache_type"] == "none":
        raise NotComparable("computed, and of one part: no measurement of a board")
    sizes = sizes_of(entry)
    for size in sizes:
        moment = size.of or _moment(entry)
        compared = _sized(entry, Section.BOARD, size, setting, moment)
        if moment in _NOT_RUN:
            yield Asked(replace(compared, not_comparable=_NOT_RUN[moment]))
        else:
            yield Asked(_of_version(compared, entry, setting), (setting.case,), _MOMENTS.get(moment, peak))
    yield from steps_within(entry, sizes, setting, lambda size, name: _sized(entry, Section.DELTA, size, setting, name))


def _of_version(compared: Compared, entry: Entry, setting: Setting) -> Compared:
    """With what that version is known to hold more when a model is loaded; a peak has other parts."""
    version = version_of(entry)
    if compared.figure not in _LOADED or not any(version):
        return compared
    more = engine_of(setting.case.engine).more_after_loading_bytes(setting.case, version)
    return replace(compared, known_bytes=float(more) if more else None)


def _moment(entry: Entry) -> str:
    return "cache" if re.search("after loading", entry["figure"], re.IGNORECASE) else "peak"


def _of_verdict(entry: Entry, setting: Setting) -> Asked:
    value = entry["value"].lower()
    text = "fits" if value.startswith("fits") else "does not fit" if value in ("oom", "does not fit") else None
    if text is None:
        raise NotComparable(f"{entry['value']}: neither that it fits nor that it does not")
    compared = replace(
        _bare(entry, Section.VERDICT, "verdict"), published_text=text, unknown="; ".join(setting.unknown) or None
    )
    return Asked(compared, (setting.case,), verdict)


def _of_speed(entry: Entry, setting: Setting) -> Asked:
    if not entry["phase"].startswith("generation"):
        raise NotComparable(f"{entry['phase'] or 'which speed is not told'}: the speed of a prompt is not estimated")
    if entry["unit"] != "tokens/s":
        raise NotComparable(f"a speed in {entry['unit']}: ours are tokens/s")
    found = re.search(r"\d+(?:\.\d+)?", entry["value"])
    assert found is not None  # the table has refused it
    ours = estimated_speed(setting.case)
    compared = replace(
        _bare(entry, Section.SPEED, "generation"),
        published=float(found[0]),
        off=0.0,
        ours=ours,
        unknown="; ".join(setting.unknown) or None,
    )
    return Asked(compared if ours else replace(compared, not_comparable="the card's bandwidth is not known"))
