"""The script that measures a GPU, as far as a machine without one can go: a dry run, and its refusals."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bench.engines.exllamav2.spec import SPEC
from bench.scenarios.forward import DECODE_TOKENS, PROMPT_TOKENS
from bench.worker.cuda.machine import CudaMachine
from tests.test_wall import imports

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "gpu_check.sh"
PAGE = (ROOT / "docs" / "gpu-check.md").read_text(encoding="utf-8")
TOOLS = ("nvidia-smi", "nvcc", "ninja", "c++")


def check(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPT), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def tools(tmp_path: Path) -> str:
    """A PATH on which there is a GPU of 12 GiB, and all that builds the extension."""
    for name in TOOLS:
        tool = tmp_path / "bin" / name
        tool.parent.mkdir(exist_ok=True)
        tool.write_text('#!/bin/sh\ncase "$*" in *memory.total*) echo 12288 ;; *) echo "GPU 0: made up" ;; esac\n')
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    # An interpreter for which everything is installed.
    python = tmp_path / "bin" / "my-python"
    python.write_text("#!/bin/sh\nexit 0\n")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return f"{tmp_path / 'bin'}:{os.environ['PATH']}"


def two_gpus(tmp_path: Path, tools: str) -> str:
    """The PATH of `tools`, where there is another GPU."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.write_text(tool.read_text().replace('echo "GPU 0: made up"', 'echo "GPU 0: made up"; echo "GPU 1: made up"'))
    return tools


def steps(said: str) -> list[str]:
    no_steps = ("missing:", "Nothing", "left out:")
    return [line.split()[0] for line in said.splitlines()[1:] if not line.startswith(no_steps)]


def test_a_dry_run_names_what_is_missing_and_touches_nothing(tmp_path: Path) -> None:
    done = check("--dry-run", str(tmp_path / "out"), VRAM_BENCH_WHEELS=str(tmp_path / "none"))
    assert done.returncode == 2
    assert f"missing: {tmp_path / 'none'}/: the packages as wheels" in done.stdout
    assert "missing: an NVIDIA GPU" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_lists_every_step_in_order(tmp_path: Path, tools: str) -> None:
    done = check("--dry-run", str(tmp_path / "out"), PATH=tools, VRAM_BENCH_PYTHON=str(tmp_path / "bin" / "my-python"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("Nothing is missing.")
    names = steps(done.stdout)
    assert names[:3] == ["extension", "doctor", "self-test"]
    assert names[-1] == "pack"
    assert len(names) == len(set(names))
    kinds = {name.partition("-")[0] for name in names}
    assert {"synth", "lengths", "record", "boundaries", "cards", "attention"} <= kinds
    assert "vram_limit=8GiB " in done.stdout  # of a card of 12 GiB, only the smaller ones
    assert not (tmp_path / "out").exists()


def test_every_kind_of_step_is_explained(tmp_path: Path, tools: str) -> None:
    said = check("--dry-run", "--quick", PATH=two_gpus(tmp_path, tools)).stdout
    names = steps(said)
    assert "two-cards-record-tinyllama-4.0" in names
    kinds = {name.removesuffix("-tinyllama-4.0") for name in names}
    assert not [kind for kind in kinds if f"| `{kind}` |" not in PAGE]


def test_without_a_gpu_nothing_is_begun(tmp_path: Path) -> None:
    done = check(str(tmp_path / "out"), VRAM_BENCH_WHEELS=str(tmp_path / "none"))
    assert done.returncode == 2
    assert "missing: an NVIDIA GPU" in done.stderr
    assert not (tmp_path / "out").exists()


def test_time_is_up_before_anything_and_the_same_command_goes_on(tmp_path: Path, tools: str) -> None:
    python = str(tmp_path / "bin" / "my-python")
    environment = {"PATH": tools, "VRAM_BENCH_PYTHON": python}
    late = check("--quick", str(tmp_path / "out"), GPU_CHECK_S="1", **environment)
    assert late.returncode == 3
    assert "the same command goes on" in late.stdout
    done = check("--quick", str(tmp_path / "out"), **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out.tar.gz").exists()
    again = check("--quick", str(tmp_path / "out"), GPU_CHECK_S="1", **environment)
    assert again.returncode == 0, again.stdout  # all is done: nothing is run


def test_two_cards_are_measured_where_there_are_two(tmp_path: Path, tools: str) -> None:
    python = tmp_path / "bin" / "my-python"
    python.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\n')
    environment = {"PATH": tools, "VRAM_BENCH_PYTHON": str(python)}
    one = check("--quick", str(tmp_path / "one"), **environment)
    assert one.returncode == 0, one.stdout + one.stderr
    left_out = "left out: two-cards, two-cards-boundary, two-cards-record (they take two GPUs, and there is 1)\n"
    assert left_out in one.stdout
    assert (tmp_path / "one" / "left_out.txt").read_text() == left_out
    assert "device.index=0+1" not in (tmp_path / "asked").read_text()
    environment["PATH"] = two_gpus(tmp_path, tools)
    two = check("--quick", str(tmp_path / "two"), **environment)
    assert (two.returncode, "left out" in two.stdout) == (0, False), two.stdout + two.stderr
    asked = [line for line in (tmp_path / "asked").read_text().splitlines() if "device.index=0+1" in line]
    assert [" ".join(line.split()[2:4]) for line in asked] == ["sweep device=cuda"] * 2 + ["validate record"]
    assert "split=auto,[0.3,1.5],tensor_parallel vram_limit=[1200MiB,2GiB]" in asked[0]
    assigned = check("--dry-run", "--quick", CUDA_VISIBLE_DEVICES="GPU-1", **environment)
    assert "left out: two-cards" in assigned.stdout


def test_a_step_that_fails_is_named_and_the_others_are_done(tmp_path: Path, tools: str) -> None:
    python = tmp_path / "bin" / "my-python"
    python.write_text('#!/bin/sh\ncase "$*" in *doctor*) exit 1 ;; esac\n')
    done = check("--quick", str(tmp_path / "out"), PATH=tools, VRAM_BENCH_PYTHON=str(python))
    assert done.returncode == 1
    assert (tmp_path / "out" / "problems.txt").read_text() == "doctor: exit code 1\n"
    assert (tmp_path / "out.tar.gz").exists()


@pytest.mark.parametrize("step", ["install", "extension"])
def test_without_the_packages_or_the_extension_nothing_else_is_tried(tmp_path: Path, tools: str, step: str) -> None:
    python = tmp_path / "bin" / "my-python"
    python.write_text('#!/bin/sh\n[ "$1" = - ] && exit 7\nexit 0\n')
    environment = {"VRAM_BENCH_PYTHON": str(python)}
    if step == "install":
        (tmp_path / "bin" / "python3").write_text('#!/bin/sh\n[ "$1" = -c ] && exit 0\nexit 7\n')
        (tmp_path / "bin" / "python3").chmod(0o755)
        environment = {"VRAM_BENCH_WHEELS": str(tmp_path / "bin")}
    for _ in range(2):  # it is tried again
        done = check("--quick", str(tmp_path / "out"), PATH=tools, **environment)
        assert done.returncode == 2, done.stdout + done.stderr
        assert f"{step}: exit code " in done.stderr
        assert not list((tmp_path / "out" / "done").iterdir())


def test_every_process_finds_the_extension_that_was_built(tmp_path: Path, tools: str) -> None:
    """ExLlamaV2 would build it anew in each of them, with other settings."""
    python = tmp_path / "bin" / "my-python"
    python.write_text(f'#!/bin/sh\necho "$PYTHONPATH" >> {tmp_path}/paths\n')
    check("--quick", str(tmp_path / "out"), PATH=tools, VRAM_BENCH_PYTHON=str(python))
    paths = (tmp_path / "paths").read_text().splitlines()
    assert all(f":{tmp_path}/out/extensions/exllamav2_ext" in path for path in paths)


def test_xformers_is_measured_where_it_is_installed(tmp_path: Path, tools: str) -> None:
    python = tmp_path / "bin" / "my-python"
    environment = {"PATH": tools, "VRAM_BENCH_PYTHON": str(python)}
    assert " attention=xformers,sdpa,matmul " in check("--dry-run", str(tmp_path / "out"), **environment).stdout
    python.write_text('#!/bin/sh\n[ "$3" != xformers ]\n')
    said = check("--dry-run", str(tmp_path / "out"), **environment).stdout
    assert " attention=sdpa,matmul " in said
    assert " attention=flash,sdpa,matmul repeats=1 vram_limit=8GiB" in said


def test_the_calls_without_the_harness_are_without_the_harness() -> None:
    source = (ROOT / "scripts" / "cost" / "plain_speed.py").read_text(encoding="utf-8")
    assert "bench" not in {name.split(".")[0] for name in imports(ROOT / "scripts" / "cost" / "plain_speed.py")}
    lengths = f"PROMPT, LAST, WARM_UP, DECODED = {PROMPT_TOKENS}, {DECODE_TOKENS}, "
    assert f"{lengths}{SPEC.warm_up_tokens}, {CudaMachine.decode_tokens} " in source


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "own_cost.py DIR model=local"),
        (("out", "device=rtx_4090", "max_seq_len=2048"), "own_cost: one case on a real GPU is compared"),
        (("out", "bpw=4.1.1"), "own_cost: bpw"),
    ],
)
def test_the_harness_s_own_cost_is_of_a_real_gpu(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "cost" / "own_cost.py"), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_unknown_option_is_refused_with_the_usage() -> None:
    done = check("--fast")
    assert done.returncode == 2
    assert "scripts/gpu_check.sh [--dry-run]" in done.stderr
