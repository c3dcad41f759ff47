"""Text that is typed is the text that is kept, whatever key of text and whatever is in it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.config import compose as config
from bench.config import hydra_compose
from bench.config.cases import plan_sweep
from bench.config.catalogue import Catalogue
from bench.config.overrides import parse
from bench.config.typed import as_override, quoted
from bench.core.errors import BadInput

TEXT_KEYS = [
    "run_id",
    "results_dir",
    "model.name",
    "model.path",
    "model.source",
    "device.name",
    "device.full_name",
    "device.context_basis",
    "device.workspace_basis",
    "device.first_forward_basis",
]
NUMBERS = [
    "2026_11_28",
    "12e5",
    "1e3",
    "123e456",
    "4_25",
    "007",
    "1.0",
    ".5",
    "0x10",
    "inf",
    "nan",
    "true",
    "off",
    "12:30",
]
TEXTS = [
    "模型/phi3",
    "a b",
    "a  b",
    "(x)",
    "a=b",
    "{y}",
    "it's",
    'say "x"',
    "a\\b",
    "a\\",
    "[1]",
    "a:b",
    "~x",
    "$",
    "${",
    "#",
    "é",
]
# Control characters, and those that hide or turn text, are refused (`bench/core/printable.py`).
SHOWN_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf", "Zl", "Zp"], include_characters="\t\n"))
# A comma separates, a quote at the beginning quotes, ${…} asks for another key, and choice(…) is an axis.
ANY_TEXT = SHOWN_TEXT.filter(
    lambda text: (
        text not in ("", "null", "???")
        and "," not in text
        and "${" not in text
        and text.strip()[:1] not in ("'", '"')
        and "(" not in text
    )
)


def _read(override: str) -> Any:
    """The one value that Hydra's parser reads."""
    ((value,),) = (one.values for one in parse([override], Catalogue()))
    return value


@pytest.mark.parametrize("key", TEXT_KEYS)
def test_text_is_kept_as_it_is_typed(key: str) -> None:
    assert [text for text in NUMBERS if _read(f"{key}={text}") != text] == []
    assert [text for text in TEXTS if _read(f"{key}={text}").replace("\\${", "${") != text] == []


@pytest.mark.parametrize("texts", [NUMBERS, TEXTS], ids=["numbers", "texts"])
def test_text_is_kept_through_the_composition(texts: list[str]) -> None:
    given = {key: texts[index % len(texts)] for index, key in enumerate(TEXT_KEYS)}
    del given["model.path"]  # of one key of the model the check would be told first
    (plain,) = config.combinations(["device=rtx_4090", *(f"{key}={text}" for key, text in given.items())])
    assert {key: _at(plain, key) for key in given} == given


def _at(plain: Any, key: str) -> Any:
    for part in key.split("."):
        plain = plain[part]
    return plain


@given(text=ANY_TEXT, key=st.sampled_from(TEXT_KEYS))
def test_any_text_is_kept(text: str, key: str) -> None:
    assert _read(f"{key}={text}") == text


@given(text=SHOWN_TEXT)
def test_any_text_at_all_is_kept_in_quotes(text: str) -> None:
    assert _read(f"device.full_name={quoted(text)}") == text


@given(text=st.text(), key=st.sampled_from([*TEXT_KEYS, "bpw", "model", "max_seq_len"]))
def test_what_was_made_ready_stays_as_it_is(text: str, key: str) -> None:
    once = as_override(f"{key}={text}")
    assert as_override(once) == once


@pytest.mark.parametrize("name", ["模型 (x) = {y}", "m,n", "1e3"])
def test_a_directory_may_be_called_anything(
    name: str, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [name, f"{name} 2"]
    for folder in names:
        shutil.copytree(model_dir, tmp_path / folder)
    both = plan_sweep(["model=local", f"model.path={','.join(names)}"]).searches
    assert [search.longest.model.path for search in both] == [str(tmp_path / folder) for folder in names]
    assert _read(f"model.path={name}") == name


def test_home_is_expanded_where_no_shell_does_it(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(model_dir.parent))
    overrides = ["model=local", f"model.path=~/{model_dir.name}", "results_dir=~/out"]
    sweep = plan_sweep(overrides)
    assert sweep.searches[0].longest.model.path == str(model_dir)
    assert sweep.settings.results_dir == os.path.join(model_dir.parent, "out")


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("'a,b'", ["a,b"]),
        ("'a','b'", ["a", "b"]),
        ('"a", b', ["a", "b"]),
        ("choice(a,b)", ["a", "b"]),
        ("null", [None]),
        ("'null'", ["null"]),
        ("a,null", ["a", None]),
    ],
)
def test_what_hydra_means_goes_on_to_be_meant(typed: str, read: list[str | None]) -> None:
    (override,) = parse([f"model.source={typed}"], Catalogue())
    assert list(override.values) == read


def test_another_key_may_be_asked_for() -> None:
    overrides = ["device=rtx_4090", "model.source=${device.name}, \\${device.name},${x"]
    found = config.combinations(overrides)
    assert [plain["model"]["source"] for plain in found] == ["rtx_4090", "${device.name}", "${x"]


def test_a_job_of_hydra_reads_the_same() -> None:
    typed = ["run_id=2026_11_28", "results_dir=a b", "model.source=模型, 1e3", "max_seq_len=8k,16k"]
    ready = hydra_compose.fold_lengths(typed)
    assert ready == ['run_id="2026_11_28"', 'results_dir="a b"', 'model.source="模型","1e3"', "max_seq_len=[8k,16k]"]
    assert [plain["model"]["source"] for plain in config.combinations(ready)] == ["模型", "1e3"]


@pytest.mark.parametrize("key", ["results_dir", "run_id"])
def test_a_key_with_one_value_takes_no_axis(key: str) -> None:
    with pytest.raises(BadInput, match="give one value"):
        plan_sweep([f"{key}=a,b"])
