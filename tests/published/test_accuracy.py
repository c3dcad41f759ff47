"""A figure that agreed with a published one agrees: what is kept, the page that is made of it, and some run again."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench.commands import validate_published
from bench.commands.validate_published import COMMAND, KEPT, PAGE, TABLE, causes, lost_since, simulated_by
from bench.published.compare import compare_table
from bench.published.compared import Compared, Section, as_csv, read_csv
from bench.published.runs import with_runner
from bench.published.table import read_table
from bench.report.tables.accuracy import as_markdown
from tests.conftest import Program
from tests.published.test_table import LINE, written
from tests.servers import KeptServers

# Of every kind of figure but speeds, which are computed anew for all: quick ones.
AGAIN = {"nb52-nemo-6.0", "nbgood-nemo-2.5", "nyun-2", "nyun-8-file", "readme-f3ef397-Llama2-7B-EXL23.0bpw-3090Ti"}


@pytest.fixture(scope="module")
def kept() -> list[Compared]:
    return read_csv(KEPT)


def test_the_page_is_made_of_what_is_kept(kept: list[Compared]) -> None:
    picture = PAGE.with_suffix(".png")
    text = as_markdown(kept, read_table(TABLE), simulated_by(), COMMAND, picture.name)
    assert PAGE.read_text() == text
    assert picture.is_file()
    assert as_csv(kept) == KEPT.read_text()


def test_every_line_of_the_table_is_compared_or_listed(kept: list[Compared]) -> None:
    assert {each.line for each in kept} == {entry.line for entry in read_table(TABLE)}
    assert all(each.not_comparable or each.agrees or (each.cause and each.words) for each in kept)


def test_what_agreed_agrees_when_it_is_run_again(
    kept: list[Compared], servers: KeptServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each figure of these is the same, and so what agreed does; the command itself runs all of them."""
    monkeypatch.setattr("bench.launch.launchers.ForkServer", servers)
    table = read_table(TABLE)
    some = [entry for entry in table if entry.id in AGAIN]
    with ExitStack() as stack:
        again = compare_table(some, table, with_runner(stack, predicts=False), causes(), lambda done, total: None)
    before = {each.key: each for each in kept}
    assert {each.section for each in again} == set(Section) - {Section.DELTA, Section.VERDICT}
    assert lost_since([before[each.key] for each in again], again) == []
    for each in again:
        assert each.ours == (None if each.ours is None else pytest.approx(before[each.key].ours, rel=1e-6)), each.key
        assert each.our_text == before[each.key].our_text, each.key


def test_a_figure_that_agreed_and_does_not_is_named(kept: list[Compared]) -> None:
    agreed = next(each for each in kept if each.is_compared and each.agrees and each.ours)
    worse = Compared(**{**vars(agreed), "ours": 2 * (agreed.ours or 0)})
    gone = Compared(**{**vars(agreed), "ours": None, "not_comparable": "some reason"})
    assert lost_since([agreed], [agreed]) == []
    assert lost_since([agreed], [worse]) == lost_since([agreed], [gone]) == lost_since([agreed], []) == [agreed.key]
    assert lost_since([worse], [gone]) == []


def test_other_tables_are_read_the_same_way(in_process: Program, tmp_path: Path) -> None:
    """Lines that need no run: nothing is skipped without a word, and nothing of the project's own is written."""
    lines = [{**LINE, "id": "unheard", "base_arch": "unheard-of-3b"}, {**LINE, "id": "cardless", "gpu": "Riva 128"}]
    lines += [{**LINE, "id": "quick", "kind": "speed", "phase": "generation", "value": "150", "unit": "tokens/s"}]
    written(tmp_path / "others.csv", *lines)
    before = PAGE.stat().st_mtime_ns, KEPT.stat().st_mtime_ns
    done = in_process("validate", "--published", "others.csv")
    assert done.returncode == 0, done.stderr
    assert re.search(r"shape unknown[^\n]*\n?[^\n]*\[unheard\]", done.stdout)
    assert re.search(r"Riva 128: card without a file[^-]*\[cardless\]", done.stdout)
    assert "| [quick](https://example.org/figure) |" in done.stdout
    assert in_process("validate", "--published", "others.csv", "--out", "page.md").stdout == "page.md\n"
    assert "# Accuracy" in (tmp_path / "page.md").read_text()
    assert (PAGE.stat().st_mtime_ns, KEPT.stat().st_mtime_ns) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "say what: rows, record, replay, or --published"),
        (("--out", "page.md"), "it goes with --published"),
        (("--published", "nowhere.csv"), "nowhere.csv: cannot be read"),
    ],
)
def test_what_is_wrong_with_a_command_is_said(in_process: Program, words: tuple[str, ...], said: str) -> None:
    done = in_process("validate", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_an_installed_program_has_no_table_of_its_own(
    in_process: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(validate_published, "TABLE", tmp_path / "figures.csv")
    done = in_process("validate", "--published")
    assert done.returncode == 2
    assert "name a table: --published FILE.csv" in done.stderr
