"""`vram-bench validate --published`: published figures of real cards against simulated ones, as a page."""

from __future__ import annotations

import csv
import sys
from contextlib import ExitStack
from pathlib import Path

from bench.commands.display import display_for
from bench.core.errors import BadInput, ExitCode
from bench.core.files import replaced
from bench.engines.registry import engines
from bench.launch.versions import installed_versions
from bench.published.compare import compare_table
from bench.published.compared import Cause, Compared, as_csv, read_csv
from bench.published.runs import with_runner
from bench.published.table import read_table
from bench.report.tables.accuracy import as_markdown

ROOT = Path(__file__).resolve().parents[2]
OWN = ROOT / "tests" / "published"
TABLE, CAUSES, KEPT = (OWN / name for name in ("figures.csv", "causes.csv", "compared.csv"))
PAGE = ROOT / "docs" / "accuracy.md"
PICTURE = "accuracy.png"
COMMAND = "vram-bench validate --published"


def publish(table: Path | None, out: Path | None) -> int:
    """The exit code: 1 where a figure that agreed disagrees.

    Without a `table` it is the project's own: the page is written to docs/ with its picture, and what was compared to
    tests/published, unless something that agreed does not any more. Of another table the page goes to `out`, a picture
    beside it, or to standard output without one.
    """
    if table is None and not TABLE.is_file():
        raise BadInput(f"{TABLE}: not there; in an installed program, name a table: --published FILE.csv")
    entries = read_table(table or TABLE)
    shapes = read_table(TABLE) if table is not None and TABLE.is_file() else []
    with display_for(sys.stderr) as display, ExitStack() as stack:
        display.begin("running published cases on simulated cards")
        compared = compare_table(
            entries,
            shapes,
            with_runner(stack),
            causes(),
            lambda done, total: display.reach(done, f"{done}/{total} cases"),
        )
    lost = lost_since(read_csv(KEPT), compared) if table is None and KEPT.is_file() else []
    for key in lost:
        print(f"agreed, and does not any more: {key}", file=sys.stderr)
    page = out or (PAGE if table is None else None)
    has_picture = page is not None and _draw(compared, page.with_suffix(".png"))
    picture = page.with_suffix(".png").name if page is not None and has_picture else None
    text = as_markdown(compared, entries, simulated_by(), COMMAND, picture)
    if page is None:
        sys.stdout.write(text)
    else:
        _write(page, text)
        print(page)
    if table is None and not lost:
        _write(KEPT, as_csv(compared))
    return ExitCode.PROBLEMS if lost else ExitCode.DONE


def lost_since(before: list[Compared], now: list[Compared]) -> list[str]:
    """The figures that agreed, and now do not, or are not compared at all."""
    agree = {each.key for each in now if each.is_compared and each.agrees}
    return [each.key for each in before if each.is_compared and each.agrees and each.key not in agree]


def causes() -> dict[str, tuple[Cause, str]]:
    """Why figures disagree, as far as somebody has looked into it: by the key of the figure."""
    if not CAUSES.is_file():
        return {}
    with CAUSES.open(encoding="utf-8", newline="") as file:
        return {row["key"]: (Cause(row["cause"]), row["words"]) for row in csv.DictReader(file)}


def simulated_by() -> str:
    """The engines and PyTorch that ours are of."""
    versions = installed_versions()
    told = [f"{engine.name} {versions[f'{engine.name}_version']}" for engine in engines()]
    return f"{' and '.join(told)} with PyTorch {(versions['torch_version'] or 'unknown').partition('+')[0]}"


def _draw(compared: list[Compared], png: Path) -> bool:
    from bench.report.plots.accuracy import write_accuracy  # with matplotlib

    return write_accuracy(compared, png) is not None


def _write(path: Path, text: str) -> None:
    try:
        with replaced(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error.strerror or error}); choose another file") from None
