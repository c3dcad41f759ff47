# ruff: noqa: F811 (fixtures that are imported)
"""`vram-bench card`: the table of a repository, of a folder and of a catalogue's model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from tests.config.hub_server import Hub
from tests.config.test_hub import exl2_dir, served  # noqa: F401 (fixtures)
from tests.conftest import Program

REPO = "some-org/Tiny-exl2"
CARDS = "device=rtx_4060_8gb,rtx_3060_12gb"
GOLDEN = Path(__file__).parent / "card_golden.md"


def rows(text: str) -> list[list[str]]:
    """The cells of the lines of all tables."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


@pytest.fixture
def eight(served: Hub, exl2_dir: Path) -> Hub:
    """A hub with a repository of eight branches, and a main without weights."""
    files = {path.name: path for path in exl2_dir.iterdir()}
    repository = served.repository(REPO)
    repository.commit("main", {"README.md": b"see the branches", "measurement.json": b"{}"})
    for number in range(8):
        repository.commit(f"{number + 1}_0", dict(files))
    return served


def test_a_repository_is_a_table_of_its_branches_without_their_weights(
    in_process: Program,
    eight: Hub,
    exl2_dir: Path,
) -> None:
    made = in_process("card", REPO, CARDS, "cache=FP16", "max_seq_len=1k,4k")
    assert made.returncode == 0, made.stderr
    told = [row for row in rows(made.stdout) if row[0].endswith("_0")]
    assert [row[0] for row in told] == [f"{number}_0" for number in range(1, 9)] * 2
    assert {tuple(row[1:4]) for row in told[:8]} == {tuple(told[0][1:4])}  # the same files in all
    assert "main" in made.stdout.partition("left out: ")[2].splitlines()[0]
    assert f"[{REPO}](https://huggingface.co/{REPO})" in made.stdout
    assert f"vram-bench sweep model=hub model.repo={REPO} model.revision=1_0,2_0" in made.stdout
    weights_bytes = sum(path.stat().st_size for path in exl2_dir.glob("*.safetensors"))
    assert eight.sent_bytes < 8 * weights_bytes / 2  # headers


def test_a_folder_is_a_table_of_the_folders_in_it_and_written_whole(
    in_process: Program,
    exl2_dir: Path,
    tmp_path: Path,
) -> None:
    for name in ("a-4.0bpw", "b-4.0bpw"):
        shutil.copytree(exl2_dir, tmp_path / "all" / name)
    (tmp_path / "all" / "notes").mkdir()
    swept = ("model=local", "model.path=all/a-4.0bpw", "device=rtx_3060_12gb", "cache=Q4")
    assert in_process("sweep", *swept).returncode == 0
    made = in_process("card", "./all", CARDS, "max_seq_len=1k", "cache=Q4", "--out", "table.md")
    assert (made.returncode, made.stdout) == (0, "")
    text = (tmp_path / "table.md").read_text()
    assert [row[0] for row in rows(text) if "4.0bpw" in row[0]] == ["a-4.0bpw", "b-4.0bpw"] * 2
    assert "left out: notes" in text
    assert [row[2:] for row in rows(text)[-2:]] == [["4,096 (all)", "4,096 (all) ✓"], ["4,096 (all)"] * 2]  # certified


@pytest.mark.thorough
@pytest.mark.parametrize("engine", ["exllamav2", "exllamav3"])
def test_a_model_of_the_catalogue_is_a_table_of_bits(in_process: Program, engine: str) -> None:
    """Held against what was written once: `plan` says the same of each cell, in other tests."""
    asked = ("card", "tinyllama_1_1b", f"engine={engine}", "bpw=4.0", CARDS, "max_seq_len=1k,2k", "cache=FP16")
    made = in_process(*asked)
    assert made.returncode == 0, made.stderr
    plan = in_process(
        "plan",
        "model=tinyllama_1_1b",
        f"engine={engine}",
        "bpw=4.0",
        "device=rtx_a6000",
        "max_seq_len=2k",
        "cache=FP16",
        "--json",
    )
    (case,) = json.loads(plan.stdout)["cases"]
    vram, longest = [row for row in rows(made.stdout) if row[0] == "4 bpw"]
    assert vram[-1] == f"{case['predicted_peak_device_bytes'] / (1 << 30):.2f}"
    assert longest[2:] == ["2,048 (all)"] * 2
    assert ("multiprocessors" in made.stdout) == (engine == "exllamav3")


def test_the_whole_text_is_what_it_was(in_process: Program) -> None:
    made = in_process("card", "tinyllama_1_1b", "bpw=2.5,4.0", CARDS, "max_seq_len=1k,2k", "cache=FP16,Q4")
    assert made.stdout == GOLDEN.read_text()


def test_what_nothing_fits_is_said_in_the_table(in_process: Program) -> None:
    made = in_process("card", "tinyllama_1_1b", "bpw=8.0", CARDS, "vram_limit=600MiB", "max_seq_len=1k", "cache=FP16")
    assert made.returncode == 0, made.stderr
    assert rows(made.stdout)[-1] == ["8 bpw", "FP16", "–", "–"]


def add_exl3(hub: Hub) -> None:
    layer = {
        "model.layers.0.mlp.up_proj.trellis": np.zeros((4, 4, 64), np.int16),
        "model.layers.0.mlp.up_proj.suh": np.zeros(64, np.float16),
        "model.layers.0.mlp.up_proj.svh": np.zeros(64, np.float16),
    }
    config = json.dumps({"architectures": ["LlamaForCausalLM"]}).encode()
    hub.repository(REPO).commit("exl3", {"config.json": config, "model.safetensors": save(layer)})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda hub: hub.repository(REPO).branches.clear(),
            "none of its branches (none) has a config.json and weights",
        ),
        (lambda hub: setattr(hub.repository(REPO), "guard", "gated"), "gated; accept its licence"),
        (lambda hub: setattr(hub.repository(REPO), "guard", "private"), "no such repository, or a private one"),
        (add_exl3, "weights of several engines (exllamav2: 1_0, "),
        (lambda hub: hub.repository(REPO).commit("9_0", {"config.json": b"{}", "a.gguf": b"x"}), "GGUF"),
    ],
)
def test_a_repository_that_makes_no_table_is_refused_in_a_line(
    in_process: Program, eight: Hub, tmp_path: Path, change: Callable[[Hub], object], said: str
) -> None:
    change(eight)
    made = in_process("card", REPO, CARDS, "max_seq_len=1k", "cache=FP16", "--out", "table.md")
    assert (made.returncode, made.stdout) == (2, "")
    assert said in made.stderr
    assert made.stderr.count("\n") <= 2
    assert not (tmp_path / "table.md").exists()


def test_what_is_no_source_is_refused_in_a_line(in_process: Program, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, said in (
        ("./empty", "no folder in it has a config.json and *.safetensors"),
        ("./none", "no such folder"),
        ("llama_3_1_8", "Did you mean"),
        ("a b", "give ORG/NAME of a hub"),
    ):
        made = in_process("card", source)
        assert made.returncode == 2
        assert said in made.stderr
