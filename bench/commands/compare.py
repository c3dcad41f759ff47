"""`vram-bench compare`: what became better or worse between two result sets, and whether that may pass."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from bench.comparison.compare import Comparison, Gates, ResultSet, Slack
from bench.comparison.compare import compare as compare_rows
from bench.comparison.matching import family
from bench.config.units import MissingUnit, parse_size
from bench.core.columns import CARD, LIMIT, MODEL, SETTING, WEIGHTS, BoundaryRow, CaseRow, label
from bench.core.errors import BadInput, ExitCode
from bench.core.identity import key_of
from bench.report.comparison.content import ComparisonReport, Side
from bench.report.comparison.document import document
from bench.report.comparison.names import card_text
from bench.report.comparison.render import as_markdown, show
from bench.report.comparison.sections import refusal_text
from bench.report.naming.cards import texts_of
from bench.report.text.console import console_for
from bench.report.text.units import exact_size, size
from bench.store.schema import ANSWERS, Kind
from bench.store.store import as_rows, read_boundaries, read_cases, to_be_shown

# In this order it is told what differs: the card, the model by its name, how it was run, and last the model itself.
_IDENTIFYING = (*CARD, "model", *LIMIT, *SETTING, "max_seq_len", "model_fingerprint")
_MODEL_REMEDY = "; --allow-model-change compares two quantisations of one model"
_MOST_LISTED = 3
# Of these it is told where all rows of both have the same.
_COMMON = ("device_name", "model", "bpw", "cache", "max_seq_len")


def run(arguments: argparse.Namespace) -> int:
    """`vram-bench compare BASE HEAD [--out FILE.md] [gates] [--json]`."""
    gates = partial(
        gates_of,
        arguments.max_vram_growth,
        arguments.max_boundary_loss,
        arguments.max_slowdown,
        arguments.allow_missing,
        arguments.allow_driver_change,
        arguments.allow_model_change,
    )
    return compare(arguments.base, arguments.head, gates, arguments.out, arguments.json)


def compare(base: Path, head: Path, gates: Callable[[], Gates], out: Path | None, as_json: bool) -> int:
    """Shows how `head` differs from `base`, each a directory or a parquet file; returns the exit code.

    With `as_json` there is a document on stdout even where nothing can be compared.
    """
    try:
        return _compare(base, head, gates(), out, as_json)
    except BadInput as error:
        if as_json:
            print(json.dumps({"passed": False, "error": str(error)}, indent=2))
        raise


def _compare(base: Path, head: Path, gates: Gates, out: Path | None, as_json: bool) -> int:
    (old, problems), (new, others) = _read(base, "BASE"), _read(head, "HEAD")
    skipped = list(dict.fromkeys(problems + others))
    for problem in skipped:
        print(f"vram-bench: skipped {problem}", file=sys.stderr)
    # A file has rows of one kind, and so only that kind is compared.
    kinds = [kind for kind in ANSWERS if _may_have(base, old, kind) and _may_have(head, new, kind)]
    if not kinds:
        raise BadInput(f"BASE {base} and HEAD {head}: one has cases, the other boundaries; name files of one kind")
    old, new = (Side(side.name, {kind: side.rows[kind] for kind in kinds}) for side in (old, new))
    comparison = compare_rows(_result_set(old), _result_set(new), gates)
    if comparison.empty:
        raise BadInput(_nothing_in_common(comparison, base, head))
    report = ComparisonReport(comparison, old, new, skipped)
    if out is not None:
        _write(out, as_markdown(report))
    if as_json:
        print(json.dumps(document(report), indent=2))
    else:
        show(report, console_for())
        if out is not None:
            console_for().print(f"\n{out}", highlight=False, soft_wrap=True, markup=False)
    return ExitCode.DONE if comparison.passed and not skipped else ExitCode.PROBLEMS


def gates_of(
    vram_growth: str,
    boundary_loss: str,
    slowdown: str,
    allow_missing: bool,
    allow_driver_change: bool,
    allow_model_change: bool = False,
) -> Gates:
    """The gates as they were typed. Raises `BadInput`."""
    slower = _slack("--max-slowdown", slowdown if slowdown.endswith("%") else f"{slowdown}%", "5%")
    return Gates(
        vram_growth=_slack("--max-vram-growth", vram_growth, "64MiB, 1% or 0", is_size=True),
        boundary_loss=_slack("--max-boundary-loss", boundary_loss, "2 (pages of 256 tokens), 1% or 0"),
        slowdown_percent=slower.percent,
        allow_missing=allow_missing,
        allow_driver_change=allow_driver_change,
        allow_model_change=allow_model_change,
    )


def _slack(option: str, text: str, allowed: str, is_size: bool = False) -> Slack:
    try:
        if text.endswith("%"):
            return Slack(percent=_not_negative(text.removesuffix("%")))
        return Slack(parse_size(text, is_small=True) if is_size and text.strip("0 ") else _not_negative(text))
    except MissingUnit as error:
        raise BadInput(f"{option} {error}") from None
    except ValueError:
        raise BadInput(f"{option} {text}: not an amount; allowed are {allowed}") from None


def _not_negative(text: str) -> float:
    number = float(text)
    if not math.isfinite(number) or number < 0:
        raise ValueError(text)
    return number


def _read(path: Path, name: str) -> tuple[Side, list[str]]:
    """What is stored at `path`, and a line for each file that could not be read."""
    if not path.exists():
        raise BadInput(f"{name} {path}: no such file or directory; name a folder of results, or a parquet file")
    (cases, problems), (boundaries, others) = (to_be_shown(read(path)) for read in (read_cases, read_boundaries))
    problems = list(dict.fromkeys(problems + others))  # both name a file that neither can read
    side = Side(str(path), {Kind.CASES: as_rows(cases, CaseRow), Kind.BOUNDARIES: as_rows(boundaries, BoundaryRow)})
    if not any(side.rows.values()):
        more = f"; {len(problems) - 1} more files cannot be read" if len(problems) > 1 else ""
        raise BadInput(
            f"{name} {problems[0]}{more}" if problems else f"{name} {path}: no rows in it; run a sweep first"
        )
    return side, problems


def _may_have(path: Path, side: Side, kind: Kind) -> bool:
    return path.is_dir() or bool(side.rows[kind])


def _result_set(side: Side) -> ResultSet:
    cases, boundaries = side.rows.get(Kind.CASES, []), side.rows.get(Kind.BOUNDARIES, [])
    return ResultSet(cast(Sequence[CaseRow], cases), cast(Sequence[BoundaryRow], boundaries))


def _nothing_in_common(comparison: Comparison, base: Path, head: Path) -> str:
    refused = [refusal for joined in comparison.joined.values() for refusal in joined.refused]
    report = f"\n`vram-bench report --results {head}` shows what one of them has, with nothing compared"
    if not refused:
        difference = _first_difference(comparison, base, head)
        return f"nothing can be compared: no case is in both; {difference}{_common(comparison)}{report}"
    reason = refusal_text(refused[0])
    more = f" ({len(refused)} rows)" if len(refused) > 1 else ""
    remedy = {
        "driver_version": "; --allow-driver-change compares them all the same",
        "model_fingerprint": _MODEL_REMEDY,
    }.get(refused[0].column, "")
    return f"nothing can be compared: {reason}{more}{remedy}{report}"


def _common(comparison: Comparison) -> str:
    """What both have in common, of what tells rows apart: `; both have model tiny, cache FP16`."""
    sides = (comparison.missing, comparison.new)
    if not all(sides):
        return ""
    told = []
    for column in _COMMON:
        values = {key_of(row, [column])[0] for rows in sides for row in rows}
        if len(values) == 1 and (value := values.pop()) is not None:
            told.append(f"{label(column)} {value}")
    return f"; both have {', '.join(told)}" if told else ""


def _first_difference(comparison: Comparison, base: Path, head: Path) -> str:
    """The first column in which the two have no value in common, and the values."""
    sides = (comparison.missing, comparison.new)
    if not all(sides):
        old, new = (", ".join(sorted({card_text(row) for row in rows})) or "no row of its own" for rows in sides)
        return f"BASE {base} has {old}, HEAD {head} has {new}"
    for column in _IDENTIFYING:
        old_values, new_values = ({key_of(row, [column]) for row in rows} for rows in sides)
        if not old_values & new_values:
            break
    else:
        return f"BASE {base} and HEAD {head} have other combinations of the same values"
    named = _named({value for (value,) in old_values | new_values}, column)
    old, new = (
        _listed(card_text(row) if column == "device_name" else named[key_of(row, [column])[0]] for row in rows)
        for rows in sides
    )
    models, heads = ({family(row["model"]) for row in rows} for rows in sides)
    of_weights = column in (*MODEL, *WEIGHTS) and models & heads
    allowed = comparison.gates.allow_model_change
    return (
        f"{column} is {old} in BASE {base}, {new} in HEAD {head}{_MODEL_REMEDY if of_weights and not allowed else ''}"
    )


def _named(values: Collection[Any], column: str) -> dict[Any, str]:
    """What each of a column's `values` is called, no two of them alike."""
    ways = (size, exact_size) if column.endswith("_bytes") else (str,)
    return {None: "null", **texts_of((value for value in values if value is not None), ways)}


def _listed(texts: Iterable[str]) -> str:
    """The first few of them, each once."""
    few = list(dict.fromkeys(texts))
    return ", ".join(few[:_MOST_LISTED]) + (f" and {len(few) - _MOST_LISTED} more" if few[_MOST_LISTED:] else "")


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"--out {path}: cannot be written ({error.strerror}); choose another file") from None
