"""`bench.api`, docs/library.md and the notebook beside it, run as they stand there."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench import api
from bench.answers.frames import unit_of
from bench.core.column import declared
from bench.core.columns import DOCUMENTS, BoundaryRow, CaseRow
from tests.servers import KeptServers

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
STORED = json.loads((ROOT / "docs" / "library.ipynb").read_text(encoding="utf-8"))


def _cells_run(notebook: dict[str, Any]) -> dict[str, Any]:
    """As scripts/renew/notebook.py runs them."""
    spec = importlib.util.spec_from_file_location("notebook", ROOT / "scripts" / "renew" / "notebook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    run: dict[str, Any] = module.executed(notebook)
    return run


@pytest.fixture(scope="module")
def folder(servers: KeptServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory in which the notebook is run first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.launch.launchers.ForkServer", servers)
        yield tmp_path_factory.mktemp("library")


@pytest.fixture(scope="module")
def executed(folder: Path) -> dict[str, Any]:
    with contextlib.chdir(folder):
        return _cells_run(STORED)


@pytest.fixture(scope="module")
def names(folder: Path, executed: dict[str, Any]) -> dict[str, Any]:
    """What the blocks of docs/library.md leave behind, run one after the other."""
    left: dict[str, Any] = {}
    with contextlib.chdir(folder):
        for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
            exec(block, left)
    return left


def test_the_notebook_shows_what_its_cells_show_now(executed: dict[str, Any]) -> None:
    assert executed == STORED
    assert [cell["outputs"] for cell in STORED["cells"] if cell["cell_type"] == "code"].count([]) == 1  # what is asked


def test_a_plan_and_a_sweep_say_the_same_of_a_boundary(names: dict[str, Any]) -> None:
    foreseen, found = names["foreseen"], names["found"].boundaries
    assert foreseen["cache"].tolist() == found["cache"].tolist() == ["FP16", "Q4"]
    assert foreseen["stored"].all()  # by the notebook, in the same folder
    assert found["certified"].all()
    assert foreseen["predicted_fits_at"].tolist() == found["fits_at"].tolist()
    parts = foreseen.filter(regex=r"^predicted_(weights|cache|logits|activations)_bytes$")
    assert (parts.sum(axis=1) < foreseen["predicted_peak_device_bytes"]).all()
    assert (names["again"]["boundary_id"].isin(found["boundary_id"])).all()
    assert (names["peaks"] > 0).all()


def test_null_stays_null_and_whole_numbers_whole(names: dict[str, Any], folder: Path) -> None:
    cases, boundaries = api.read_rows(folder / "results"), names["again"]
    for frame, row in ((cases, CaseRow), (boundaries, BoundaryRow)):
        for column in declared(row):
            if column.name in frame:
                kind = {int: "Int64", bool: "boolean"}.get(column.type)
                assert kind is None or frame[column.name].dtype == kind, column.name
    assert cases["prefill_tokens_per_s"].isna().all()
    assert boundaries["fails_at"].isna().tolist().count(True) == 1
    assert not DOCUMENTS & set(cases.columns)
    assert set(api.read_rows(folder / "results", documents=True)) == {column.name for column in declared(CaseRow)}


def test_columns_have_the_units_of_the_docs(names: dict[str, Any]) -> None:
    units = names["found"].cases.attrs["units"]
    assert units == {column.name: column.about.unit for column in declared(CaseRow) if column.about.unit}
    foreseen = names["foreseen"]
    numbers = [name for name in foreseen if pd.api.types.is_float_dtype(foreseen[name]) or str(name).endswith("_at")]
    without = {name for name in numbers if not unit_of(str(name))}
    assert without <= {"bpw", "draft_bpw"}
    assert foreseen.columns.is_unique


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("model=tinyllama_1_1b", "give a list"),
        (["model=nobody"], "unknown model 'nobody'"),
        (["model=tinyllama_1_1b", "device=t4", "hydra/launcher=basic"], "hydra/launcher"),
    ],
)
def test_wrong_overrides_are_bad_input(overrides: Any, said: str, tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path), pytest.raises(api.BadInput, match=said):
        api.sweep(overrides)
    assert not any(tmp_path.iterdir())


def test_folders_that_are_not_there_or_hold_other_files(tmp_path: Path) -> None:
    for read in (api.read_rows, api.boundaries):
        with pytest.raises(api.BadInput, match="no such directory"):
            read(tmp_path / "nowhere")
    (tmp_path / "other.parquet").write_bytes(b"none")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert api.read_rows(tmp_path).empty
    assert [str(each.message).split(":")[0] for each in told] == [f"skipped {tmp_path / 'other.parquet'}"]


def test_the_page_has_every_name_of_the_library() -> None:
    documented = set(re.findall(r"^\| `(\w+)\(", PAGE, re.MULTILINE))
    assert documented == {name for name in api.__all__ if name[0].islower()}
    assert all(name in PAGE for name in api.__all__)


def test_the_library_imports_no_torch() -> None:
    script = "import sys, bench.api; assert not {'torch', 'exllamav2', 'exllamav3'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
