"""docs/accuracy.md: published figures beside ours, a table for each kind, and what is held against nothing."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from bench.published.compared import AGREES_WITHIN, Compared, Section
from bench.published.peers import PEERS
from bench.published.table import Entry
from bench.report.text.markdown import list_item, markdown_table, paragraph, plain_text
from bench.report.text.units import percent_change

_MIB = 1 << 20
_ABOUT = {
    Section.BOARD: "What the driver says the whole board holds (nvidia-smi), against what the simulated card holds at "
    "that moment: PyTorch's reserved bytes and the CUDA context. `load` and `cache` are when those are done, `peak` is "
    "the most of the whole run, `speed` the same of a run with other passes, before which its source had run another "
    "test: where it agrees, the sums do, and not each part. *Of that version* is what the version that was measured is "
    "known, by its source, to hold more than the simulated one when a model is loaded; the difference has it in it.",
    Section.OOM: "The figures of PyTorch's out-of-memory message, against those of the simulated card's own message.",
    Section.DELTA: "Of two figures of one source that differ in one thing, or of two phases of a run. What is the same "
    "in both is not in it: neither the context nor a card that is not told. Where a source tells no card, ours is "
    "any that is never full.",
    Section.FILE: "Checkpoints as they lie on a hub, against those that are laid out here for the same mean of bits.",
    Section.SPEED: "Tokens/s of decoding, against the estimate from bandwidth and bytes ([speed.md](speed.md)), which "
    "is no simulation. Where a source tells no context, ours is at 2,048 tokens.",
    Section.VERDICT: "Whether it fits, as people have said it.",
}
_GOALS = (
    ("allocated at an OOM within 0.2 %", Section.OOM, "allocated"),
    ("the same phase", Section.OOM, "phase"),
    ("whole boards within 2.5 %, the median within 1 %", Section.BOARD, None),
)


def as_markdown(
    compared: Sequence[Compared], entries: Iterable[Entry], simulated: str, command: str, picture: str | None
) -> str:
    """The document. `simulated` says which software ours are of, `command` what writes it, `picture` is a file's name
    beside it.
    """
    by_line = {entry.line: entry for entry in entries}
    lines = ["# Accuracy", "", *_introduction(compared, simulated, command), ""]
    lines += ["## What is reached", "", *_goals(compared, by_line)]
    if picture:
        lines += ["", f"![Ours over what was published]({picture})", "", *_peers()]
    for section in Section:
        shown = [each for each in compared if each.section is section and each.is_compared]
        if shown:
            lines += ["", f"## {section.capitalize()}", "", paragraph(_ABOUT[section]), ""]
            lines += [paragraph(_tally(shown, section)), "", *_table(shown, section, by_line)]
        if shown and section is Section.OOM:
            lines += ["", *_views(shown)]
    lines += ["", "## Not comparable", "", *_left_out(compared, by_line)]
    return "\n".join(lines) + "\n"


def _introduction(compared: Sequence[Compared], simulated: str, command: str) -> list[str]:
    told = len({each.line for each in compared})
    number = sum(each.is_compared for each in compared)
    text = (
        f"Figures that others have published of real cards, and what this program says of the same cases. {told} "
        f"lines of the table give {len(compared)} figures; {number} are compared, and the others are listed with the "
        f"reason why not. Nothing here was measured by this program: *published* is a source's, *predicted* a "
        f"forecast, *simulated* a run of {simulated} on a simulated card. A card's GB are read as GiB."
    )
    return [paragraph(text), "", paragraph(f"This page is written by `{command}`; edit nothing in it.")]


def _goals(compared: Sequence[Compared], by_line: Mapping[int, Entry]) -> list[str]:
    """What is asked of lines of one GPU under Linux with trusted sources and all settings told."""
    lines = [
        paragraph(
            "Asked of figures of one GPU under Linux, of sources with the trust A or B, where the settings are told. "
            "The others are tracked below, and asked nothing of."
        ),
        "",
    ]
    rows, missed = [], []
    for words, section, figure in _GOALS:
        asked = [each for each in compared if each.section is section and each.must_agree and each.is_compared]
        asked = [each for each in asked if figure in (None, each.figure)]
        if not asked:
            rows.append([words, "0", "–", "–", "no such figure"])
            continue
        shares = [abs(each.share) for each in asked if each.share is not None]
        good = sum(each.agrees for each in asked)
        worst, middle = (f"{100 * max(shares):.2f} %", f"{100 * median(shares):.2f} %") if shares else ("–", "–")
        reached = good == len(asked) and (section is not Section.BOARD or median(shares) <= 0.01)
        rows.append([words, f"{good} of {len(asked)}", worst, middle, "yes" if reached else "no"])
        missed += [each for each in asked if not each.agrees]
        alone = [abs(each.share_as_simulated) for each in asked if each.share_as_simulated is not None]
        if alone != shares:
            within = sum(share <= AGREES_WITHIN[section] for share in alone)
            cells = [f"{within} of {len(asked)}", f"{100 * max(alone):.2f} %", f"{100 * median(alone):.2f} %"]
            rows.append(["– without what is known of the versions that were measured", *cells, ""])
    lines += markdown_table(["goal", "agree", "worst", "median", "reached"], rows, {"goal", "reached"})
    if missed:
        lines += ["", "Not reached, and why:", ""]
        lines += [list_item(f"{_what(each, by_line)}: {_difference(each)}; {_cause(each)}") for each in missed]
    return lines


def _what(each: Compared, by_line: Mapping[int, Entry]) -> str:
    entry = by_line.get(each.line)
    return plain_text(f"{each.id}, {each.figure}" + (f" ({entry['engine_version']})" if entry else ""))


def _tally(shown: Sequence[Compared], section: Section) -> str:
    good = sum(each.agrees for each in shown)
    if section is Section.VERDICT:
        return f"{good} of {len(shown)} agree."
    shares = [abs(each.share) for each in shown if each.share is not None]
    within = f"{100 * AGREES_WITHIN[section]:g} %, or as exactly as the source tells it"
    return (
        f"{good} of {len(shown)} agree (within {within}); the median is {100 * median(shares):.2f} % off, the worst "
        f"{100 * max(shares):.1f} %."
    )


def _table(shown: Sequence[Compared], section: Section, by_line: Mapping[int, Entry]) -> list[str]:
    unit = {Section.SPEED: "tokens/s", Section.VERDICT: ""}.get(section, "MiB")
    ours = "estimated" if section is Section.SPEED else "laid out" if section is Section.FILE else "simulated"
    has_predictions = any(each.predicted is not None for each in shown)
    header = ["id", "settings", "trust", "figure", "reported by", _with_unit("published", unit)]
    header += [_with_unit("predicted", unit)] if has_predictions else []
    has_versions = any(each.known_bytes is not None for each in shown)
    header += [_with_unit(ours, unit), *(["of that version, MiB"] if has_versions else [])]
    header += ["difference", "agrees", "cause"]
    rows = []
    for each in shown:
        entry = by_line[each.line]
        row = [_source(entry), _settings(entry), plain_text(entry["trust"]), plain_text(each.figure), each.by]
        row += [_value(each.published, each.published_text, section)]
        row += [_value(each.predicted, None, section)] if has_predictions else []
        row += [_value(each.ours, each.our_text, section)]
        row += [_value(each.known_bytes, None, section)] if has_versions else []
        row += [_difference(each)]
        rows.append([*row, "yes" if each.agrees else "no", "" if each.agrees else _cause(each)])
    return markdown_table(header, rows, {"id", "settings", "trust", "figure", "reported by", "agrees", "cause"})


def _with_unit(name: str, unit: str) -> str:
    return f"{name}, {unit}" if unit else name


def _source(entry: Entry) -> str:
    address = entry["source_url"].split(" ")[0].replace("(", "%28").replace(")", "%29")
    return f"[{plain_text(entry.id)}]({address})"


def _settings(entry: Entry) -> str:
    told = [entry["model"]]
    told += [f"{entry['bpw']} bpw"] if entry["bpw"] else []
    told += [text for name in ("cache_type", "max_seq_len", "attention", "gpu") if (text := entry[name])]
    told += [entry["engine_version"], entry["date"]]
    return plain_text(re.sub(r" ?\([^()]*\)", "", ", ".join(filter(None, told))))


def _value(value: float | None, text: str | None, section: Section) -> str:
    if text is not None:
        return text
    if value is None:
        return "–"
    return f"{value:,.1f}" if section is Section.SPEED else f"{value / _MIB:,.2f}".removesuffix(".00")


def _difference(each: Compared) -> str:
    if each.published_text is not None:
        return "" if each.agrees else f"{each.our_text} instead of {each.published_text}"
    if each.share is None or each.ours is None or each.published is None:
        return "–"
    ours = each.ours + (each.known_bytes or 0.0)
    share = percent_change(each.published, ours)
    if each.section is Section.SPEED:
        return share
    return f"{(ours - each.published) / _MIB:+,.1f} MiB ({share})"


def _cause(each: Compared) -> str:
    return plain_text(": ".join(filter(None, [each.cause, each.words])))


def _views(shown: Sequence[Compared]) -> list[str]:
    """Of each message: what was predicted, what is simulated, what PyTorch told and what the driver."""
    by_id: dict[str, dict[str, Compared]] = defaultdict(dict)
    for each in shown:
        by_id[each.id][each.figure] = each
    rows = []
    for name, figures in by_id.items():
        allocated, total, free = (figures.get(figure) for figure in ("allocated", "total", "free"))
        if allocated is None or total is None or free is None:
            continue
        used = (total.published or 0) - (free.published or 0)
        held = (total.ours or 0) - (free.ours or 0)
        phase = figures.get("phase")
        cells = [_value(size, None, Section.OOM) for size in (allocated.ours, allocated.published, held, used)]
        rows.append([plain_text(name), phase.predicted_text or "–" if phase else "–", *cells])
    if not rows:
        return []
    header = ["id", "predicted", "allocated, simulated", "allocated, PyTorch", "held, simulated", "held, driver"]
    text = "The views side by side, in MiB. *Held* is the card's total less what is free: with the CUDA context."
    return [paragraph(text), "", *markdown_table(header, rows, {"id", "predicted"})]


def _peers() -> list[str]:
    text = "The bands are errors that others have published of their own estimates, of their own cases: "
    told = [f"{peer.name}, {peer.words} ([source]({peer.source}))" for peer in PEERS]
    return [paragraph(text + "; ".join(told) + ".")]


def _left_out(compared: Sequence[Compared], by_line: Mapping[int, Entry]) -> list[str]:
    left = [each for each in compared if not each.is_compared]
    if not left:
        return ["Nothing."]
    groups: dict[str, list[Compared]] = defaultdict(list)
    for each in left:
        groups[f"{each.section}: {each.not_comparable}"].append(each)
    lines = [paragraph(f"{len(left)} figures, by what they are of and the reason."), ""]
    for reason, members in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        named = list(dict.fromkeys(f"{_source(by_line[each.line])} (line {each.line})" for each in members))
        lines.append(list_item(f"{plain_text(reason)}: " + ", ".join(named)))
    return lines
