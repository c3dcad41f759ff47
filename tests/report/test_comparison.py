"""A comparison as it is read: on a pull request, and in a terminal."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pytest
from rich.console import Console

from bench.comparison.compare import Gates, ResultSet, Slack, compare
from bench.comparison.pairing import Row
from bench.report.comparison.content import ComparisonReport, Side
from bench.report.comparison.document import document
from bench.report.comparison.render import as_markdown, show
from bench.store.schema import Kind
from tests.comparison.rows_to_compare import GIB, MIB, boundary, case, grown, real_case

GOLDEN = """\
**✗ vram-bench failed (simulated): 1 verdict worse, 1 boundary lower, 1 peak of VRAM higher, 1 case missing**

1 boundary and 4 cases compared; 1 let pass, 1 better, 1 new.
All simulated: rtx_4090, tiny, 4 bpw, head_bits 6, load, attention auto, batch_size 1, max_input_len 2048.

<details>
<summary>Verdicts (simulated): 1 worse</summary>

|  | cache | max_seq_len | BASE | HEAD | why |
| --- | --- | ---: | --- | --- | --- |
| worse | FP16 | 8,192 | fits | oom in cache | CUDA out of memory |

</details>

<details>
<summary>Missing (simulated): 1 in BASE only</summary>

| cache | max_seq_len | verdict |
| --- | ---: | --- |
| Q4 | 8,192 | fits |

</details>

<details>
<summary>New (simulated): 1 in HEAD only</summary>

| cache | max_seq_len | verdict |
| --- | ---: | --- |
| Q8 | 4,096 | oom |

</details>

<details>
<summary>Boundaries (simulated): 1 worse</summary>

|  | cache | max_seq_len | BASE | HEAD | change | note |
| --- | --- | ---: | --- | --- | ---: | --- |
| worse | FP16 | auto | 8,192 | 7,680 | -512 (-6.2 %) | -2 pages |

</details>

<details>
<summary>VRAM (simulated): 1 worse, 1 let pass, 1 better</summary>

|  | cache | max_seq_len | peak | BASE | HEAD | change | with it |
| --- | --- | ---: | --- | --- | --- | ---: | --- |
| worse | FP16 | 4,096 | allocated | 5.00 GiB | 5.12 GiB | +128.0 MiB (+2.5 %) | \
reserved +128.0 MiB, device +128.0 MiB; of it cache +128.0 MiB |
| let pass | FP16 | 2,048 | allocated | 5.00 GiB | 5.02 GiB | +16.0 MiB (+0.31 %) | \
reserved +16.0 MiB, device +16.0 MiB |
| better | FP16 | 1,024 | allocated | 5.00 GiB | 5.00 GiB | -512 B (<0.01 %) | reserved -512 B, device -512 B |

</details>

<details>
<summary>What was compared; changed: vram-bench</summary>

|  | BASE | HEAD |
| --- | --- | --- |
| from | old | new |
| rows | 6 in 1 run | 6 in 1 run |
| measured | 2026-01-01 00:00 UTC | 2026-01-01 00:00 UTC |
| vram-bench (changed) | 0.1.0 | 0.2.0 |
| exllamav2 | 0.3.2 | 0.3.2 |

</details>

<details>
<summary>Gates</summary>

- VRAM may grow by 16.0 MiB
- a boundary may fall by 0 pages of 256 tokens
- a speed may fall until it takes 5 % longer; it counts where p < 0.05
- a verdict may not become worse
- cases and boundaries may not be missing
- the driver may not be another
- a model may not be another quantisation

</details>
"""


def _report(
    base: Sequence[Row],
    head: Sequence[Row],
    gates: Gates | None = None,
    ends: tuple[Sequence[Row], Sequence[Row]] = ((), ()),
    skipped: Sequence[str] = (),
) -> ComparisonReport:
    comparison = compare(ResultSet(base, ends[0]), ResultSet(head, ends[1]), gates or Gates())
    sides = [
        Side(name, {Kind.CASES: cases, Kind.BOUNDARIES: boundaries})
        for name, cases, boundaries in (("old", base, ends[0]), ("new", head, ends[1]))
    ]
    return ComparisonReport(comparison, sides[0], sides[1], skipped)


def _everything() -> ComparisonReport:
    base = [case(1024), case(2048), case(4096, cache_bytes=GIB), case(8192), case(8192, cache="Q4")]
    head: list[dict[str, Any]] = [
        grown(case(1024), -512),
        grown(case(2048), 16 * MIB),
        grown(case(4096, cache_bytes=GIB + 128 * MIB), 128 * MIB),
        case(8192, "oom", phase="cache", error="CUDA out of memory\nand more"),
        case(4096, "oom", cache="Q8"),
    ]
    new = {"harness_version": "0.2.0"}
    ends = ([boundary(8192)], [boundary(7680, **new)])
    return _report(base, [{**row, **new} for row in head], Gates(Slack(16 * MIB)), ends)


def _shown(report: ComparisonReport, width: int) -> str:
    stream = io.StringIO()
    show(report, Console(file=stream, width=width))
    return stream.getvalue()


def test_everything_that_can_change_reads_as_expected() -> None:
    assert as_markdown(_everything()) == GOLDEN


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_says_the_same_without_breaking_a_number(width: int) -> None:
    text = _shown(_everything(), width)
    assert max(map(len, text.splitlines())) <= width
    joined = " ".join(text.split())
    for said in (
        "✗ failed (simulated): 1 verdict worse",
        "FP16 8,192: fits → oom in cache, CUDA out of memory",
        "FP16 boundary: 8,192 → 7,680, -512 (-6.2 %), -2 pages",
        "FP16 4,096: allocated 5.00 GiB → 5.12 GiB, +128.0 MiB (+2.5 %), reserved +128.0 MiB",
        "vram-bench (changed): 0.1.0 → 0.2.0",
    ):
        assert said in joined


def test_where_nothing_changed_nothing_but_the_origin_is_shown() -> None:
    report = _report([case()], [case()])
    assert as_markdown(report).startswith("**✓ vram-bench passed (simulated): nothing worse**\n\n1 case compared.\n")
    assert report.sections == []


def test_measured_and_simulated_rows_never_share_a_table() -> None:
    base = [case(), real_case()]
    head = [grown(row, MIB) for row in base]
    titles = [section.title for section in _report(base, head).sections]
    assert titles == ["VRAM (measured): 1 worse", "VRAM (simulated): 1 worse"]
    assert _report(base, head).headline.startswith("failed (measured and simulated)")


def test_a_speed_shows_its_basis() -> None:
    slow, fast = [1.0, 1.1, 1.2, 1.3, 1.4], [0.5, 0.51, 0.52, 0.53, 0.54]
    text = as_markdown(_report([real_case(slow)], [real_case(fast)]))
    assert "| better | 4,096 | decode tok/s | 107 | 246 | +131 % | p = 0.0079, 5 and 5 samples |" in text
    few = _report([real_case(slow[:3])], [real_case(fast[:3])])
    assert "3 and 3 samples are too few to tell" in as_markdown(few)
    assert few.headline == "passed (measured): nothing worse, 1 unclear"


def test_the_worst_comes_first() -> None:
    base = [case(length) for length in (1024, 2048, 4096)]
    head = [grown(row, size) for row, size in zip(base, (-GIB, MIB, 2 * MIB), strict=True)]
    (section,) = _report(base, head).sections
    assert [(line.mark, line.name[-1]) for line in section.lines] == [
        ("worse", "4,096"),
        ("worse", "2,048"),
        ("better", "1,024"),
    ]


def test_a_refused_card_and_a_skipped_file_are_named() -> None:
    base, head = [case(), case(8192)], [case(), case(8192, device_name="l4")]
    text = as_markdown(_report(base, head, skipped=["old/x.parquet: not a readable parquet file"]))
    assert "1 not comparable" in text.splitlines()[0]
    assert "| another card | rtx_4090 (simulated) | l4 (simulated) | 1 row |" in text
    assert "- old/x.parquet: not a readable parquet file" in text


def test_what_rows_bring_along_has_no_meaning_in_markdown() -> None:
    head = case(outcome="crash", error="a|b <script> `x` @somebody **bold**")
    text = as_markdown(_report([case()], [head]))
    assert "a\\|b &lt;script> 'x' @\u2060somebody \\*\\*bold\\*\\*" in text


def test_a_comment_stays_below_what_github_takes() -> None:
    error = "x" * 500
    lengths = range(1, 400)
    base = [case(n, cache=cache, model="m" * 60) for n in lengths for cache in ("FP16", "Q4", "Q6")]
    head = [
        {**grown(row, MIB), "outcome": "crash", "error": error} if row["cache"] == "Q4" else grown(row, MIB)
        for row in base
        if row["cache"] != "Q6"
    ]
    text = as_markdown(_report(base, head))
    assert len(text) < 65_536
    assert "… and 369 more; `--json` has all" in text


def test_rows_that_know_nothing_can_be_shown() -> None:
    bare = dict.fromkeys(case()) | {
        name: case()[name] for name in ("run_id", "started_at", "device_name", "device_kind", "model", "bpw", "cache")
    }
    bare |= {"lazy": False, "max_seq_len": 256, "outcome": "fits"}
    report = _report([bare], [{**bare, "outcome": "error", "phase": "load"}])
    assert "error in load" in as_markdown(report)
    assert "error in load" in _shown(report, 80)


def test_the_document_is_raw() -> None:
    found = document(_everything())
    assert (found["passed"], found["compared"]) == (False, {"boundaries": 1, "cases": 4})
    (worse,) = [
        f for f in found["findings"] if f["column"] == "peak_allocated_bytes" and f["change"] == "worse" and f["fails"]
    ]
    assert (worse["head"] - worse["base"], worse["max_seq_len"], worse["kind"]) == (128 * MIB, 4096, "cases")
    assert [row["cache"] for row in found["missing"]] == ["Q4"]
    assert found["gates"]["vram_growth"] == {"units": 16 * MIB, "percent": 0}
