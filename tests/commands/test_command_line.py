"""Options, help and lists: what a user meets before anything is measured."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Program

COMMANDS = ["plan", "sweep", "synth", "report", "compare", "list", "doctor", "completion", "validate"]
VALIDATE = [["validate", what] for what in ("rows", "record", "replay")]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_help_is_as_wide_as_the_terminal(in_process: Program, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for command in ([], *([name] for name in COMMANDS), *VALIDATE):
        done = in_process(*command, "--help")
        assert done.returncode == 0
        assert "example: " in done.stdout
        assert max(map(len, done.stdout.splitlines())) <= width
    assert len(max(in_process("sweep", "--help").stdout.splitlines(), key=len)) > width - 8


def test_an_example_can_be_copied_whole(in_process: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    example = in_process("sweep", "--help").stdout.rpartition("example: vram-bench")[2]
    words = subprocess.run(["bash", "-c", f"printf '%s\\n' {example}"], capture_output=True, text=True, check=True)
    assert words.stdout.split()[:2] == ["sweep", "model=llama_3_1_8b"]
    assert "max_seq_len=8k,32k" in words.stdout.split()


def test_the_bare_program_prints_its_help(in_process: Program) -> None:
    done = in_process()
    assert (done.returncode, done.stderr) == (2, "")
    assert "regenerate the tables and plots" in done.stdout


def test_the_version_is_told(in_process: Program) -> None:
    done = in_process("--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "vram-bench")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["-x"], "unrecognized argument: -x"),
        (["--info"], "--info: `plan` says"),
        (["--config-name", "mine"], "--config-name: the configuration is the program's own"),
        (["--hydra-help"], "--hydra-help: `vram-bench COMMAND --help`"),
        (["--cfg", "hydra"], "only `--cfg job` is shown"),
        (["-c", "hydra"], "only `--cfg job` is shown"),
        (["-r"], "-r: a sweep of one combination"),
    ],
)
def test_the_one_option_that_is_wrong_is_named(in_process: Program, option: list[str], said: str) -> None:
    done = in_process("plan", "model=tinyllama_1_1b", *option, "bpw=3,4")
    assert done.returncode == 2
    assert said in done.stderr
    assert "usage: vram-bench plan" in done.stderr
    assert "model=tinyllama_1_1b" not in done.stderr


def test_what_is_composed_is_shown_and_nothing_is_run(in_process: Program, tmp_path: Path) -> None:
    done = in_process("sweep", "-m", "--cfg", "job", "model=tinyllama_1_1b", "device=l4", "bpw=3,4", "cache=q4")
    assert done.returncode == 0
    assert done.stdout.startswith("# the first of 2 combinations\n")
    assert "name: tinyllama_1_1b" in done.stdout
    assert "bpw: 3" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_lists_say_what_is_known(in_process: Program, tmp_path: Path) -> None:
    (tmp_path / "device").mkdir()
    (tmp_path / "device" / "mine.yaml").write_text("total_memory_bytes: 10GiB\n")
    document = json.loads(in_process("list", "--json", "--config-dir", str(tmp_path)).stdout)
    cards = {card["name"]: card for card in document["devices"]}
    assert cards["mine"]["total_memory_bytes"] == 10 << 30
    assert cards["mine"]["memory_bandwidth_bytes_per_s"] is None
    assert cards["rtx_3090"]["memory_bandwidth_bytes_per_s"] == 936e9
    models = {model["name"]: model for model in document["models"]}
    assert models["llama_3_1_8b"]["layers"] == 32
    assert [models[name]["supported"] for name in ("llama_3_1_8b", "kimi_k2_thinking", "spark_formalizer_x1_7b")] == [
        True,
        False,
        None,
    ]
    assert not {"local", "hub", "auto", "cuda"} & {*cards, *models}
    assert [models[name]["engines"] for name in ("llama_3_1_8b", "kimi_k2_thinking", "hunyuan_ocr")] == [
        ["exllamav2", "exllamav3"],
        ["exllamav3"],
        [],
    ]
    text = in_process("list", "models").stdout
    assert "DeepseekV3 1" in text
    assert "1: not with ExLlamaV2, but with engine=exllamav3" in text
    assert "HunYuanVL *" in text
    assert "*: no engine here (ExLlamaV2 and exllamav3) supports this architecture" in text
    text = in_process("list", "devices").stdout
    assert max(map(len, text.splitlines())) <= 80
    assert "936 GB/s" in text


def test_synth_wants_a_model(in_process: Program, tmp_path: Path) -> None:
    done = in_process("synth", "--out", "made")
    assert done.returncode == 2
    assert "which model?" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_simulated_card_in_place_of_a_gpu_is_told(in_process: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.config.devices.find_gpus", lambda: ([], "no driver"))
    monkeypatch.setattr("bench.commands.plan.plan_sweep", _planned_only)
    assert "device=auto: no NVIDIA GPU (no driver), so rtx_4090 is simulated" in in_process("plan").stderr
    assert "device=auto" not in in_process("plan", "device=l4").stderr


def _planned_only(overrides: list[str]) -> None:
    from bench.config.cases import plan_sweep
    from bench.core.errors import BadInput

    plan_sweep(overrides)
    raise BadInput("enough")


def test_results_are_named_with_an_option_or_without(in_process: Program) -> None:
    assert "--results nowhere: no such directory" in in_process("report", "nowhere").stderr
    assert "name them in one way" in in_process("report", "a", "--results", "b").stderr
