"""Every command of README.md and docs/ in bash, as it stands there.

A command that is not named below is run: with the project's programs first on PATH, in a home that has the models and
results that the pages speak of. One that needs a GPU, a network, a build or minutes is named in `INSTEAD`, with the
reason and with what is run in its place; such an entry that no page needs any more is an error. A command that is words
and nothing else, to bash too, is called in the tests' own process: to start one takes longer than most of them.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.config.hub_server import Hub
from tests.config.test_hub import LLAMA
from tests.conftest import Program

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = (
    "sweep",
    "plan",
    "card",
    "recommend",
    "report",
    "share",
    "compare",
    "doctor",
    "synth",
    "validate",
    "list",
    "completion",
)


@dataclass(frozen=True)
class Instead:
    """What is run in place of a command, and what must come of it."""

    because: str
    run: str
    code: int = 0
    says: str = ""


def no_gpu(command: str) -> Instead:
    """It is read to the end, and refused for the one thing that lacks."""
    return Instead("needs an NVIDIA GPU", command, code=2, says="no NVIDIA GPU")


def parsed(command: str, because: str) -> Instead:
    """A shell script that is read, not run."""
    return Instead(because, f"bash -n {shlex.split(command)[0]}")


_FRESH = "is an alternative to the line above it, and wants a folder of its own"
_70B = "vram-bench sweep model=llama_3_1_70b bpw=2.5,4.0 cache=FP16,Q4 device=rtx_4090,a100_40gb"
_BOTH = "vram-bench sweep model=llama_3_1_8b engine=exllamav2,exllamav3"
_TWO_CARDS = (
    "vram-bench sweep device=2xrtx_4090 model=llama_3_1_70b bpw=4.0 cache=FP16 max_seq_len=8192 "
    "'split=auto,[20,24],tensor_parallel'"
)
_WHEEL = ".venv/bin/python -m pip wheel --wheel-dir wheels --no-deps"
_FREEZE = ".venv/bin/python -m pip freeze --all --exclude-editable | grep -Ev '^(torch|triton|cuda-|nvidia-[^m])' > "
_AGREEMENT = "vram-bench validate rows results/gpu_check/rows --models checkpoints --out agreement.md"
_NEW_GPU = "vram-bench validate rows results/new-gpu --models . --out agreement.md --cards cards"
_SHARE = "vram-bench share results/new-gpu --out new-gpu.zip"
_HUB_TWIN = "vram-bench synth model=hub model.repo=ORG/NAME-exl2 model.revision=4.0bpw --out twin"
_ONE_MODEL = "vram-bench recommend device=rtx_4060_8gb model=smollm2_135m min_tokens=1k bpw=4.0 cache=Q4"


def _of_the_least_model(command: str) -> str:
    """The same of a model that is quickly recorded, as long as it may be, on little of the card: caches stay small."""
    small = re.sub(r"model=(llama_3_[12]|qwen2_5)_\w+", "model=tinyllama_1_1b", command)
    return re.sub(r"max_seq_len=\S+", "max_seq_len=1k,2k", small) + " vram_limit=1GiB"


INSTEAD: dict[str, Instead] = {
    "pip install .": Instead("is no part of a suite: test_light_core.py runs what it installs", "true"),
    "vram-bench COMMAND --help": Instead(
        "names no command", "\n".join(f"vram-bench {command} --help" for command in COMMANDS)
    ),
    _70B: Instead("takes minutes; the plan of it stands in the next line", f"{_70B} --cfg job", says="llama_3_1_70b"),
    **{
        command: Instead("takes minutes", f"{command} --cfg job", says="exllamav")
        for command in (
            f"{_BOTH} bpw=3.0,4.0,5.0,6.0 cache=FP16,Q8,Q6,Q4 device=rtx_3060_12gb",
            f"{_BOTH} cache=FP16,Q4 device=rtx_3060_12gb",
            "vram-bench sweep model=qwen3_8b engine=exllamav3 cache=Q8,k8v5 load=single,autosplit device=rtx_3060_12gb",
        )
    },
    _TWO_CARDS: Instead(
        "takes half a minute", _TWO_CARDS.replace("llama_3_1_70b", "tinyllama_1_1b"), says="tensor_parallel"
    ),
    **{
        command: Instead("makes recordings for minutes", _ONE_MODEL, says="smollm2_135m")
        for command in (
            "vram-bench recommend device=rtx_3060_12gb min_tokens=16384",
            "vram-bench recommend device=2xrtx_3090 min_tokens=32k engine=exllamav3 --top 5",
            "vram-bench recommend device=all model=qwen3_14b,phi_4 --out wiki.md",
        )
    },
    **{
        command: Instead("records larger models", _of_the_least_model(command))
        for command in (
            "vram-bench sweep model=llama_3_1_8b bpw=4.0 device=rtx_4090 scenario=generator batch_size=1,4,16",
            "vram-bench sweep model=llama_3_1_8b bpw=4.0 cache=FP16,Q6 device=rtx_3090,rtx_3060_12gb "
            "scenario=generator max_seq_len=8k,32k batch_size=1,4 cache_size=auto",
            "vram-bench plan model=qwen2_5_14b bpw=4.0 cache=Q6 device=rtx_3090 scenario=generator "
            "batch_size=8,11,12 max_seq_len=16k",
            "vram-bench plan model=llama_3_1_8b bpw=4.0 device=rtx_3060_12gb scenario=generator draft=none,model "
            "draft.model=llama_3_2_1b draft.cache=FP16,Q4",
        )
    },
    **{
        command: Instead("records a larger model", command.replace("phi_3_medium_128k", "tinyllama_1_1b"))
        for command in (
            "vram-bench plan model=phi_3_medium_128k bpw=2.5 cache=FP16,Q4 device=rtx_3060_12gb",
            "vram-bench plan model=phi_3_medium_128k bpw=2.5 cache=Q4 device=rtx_3060_12gb vram_limit=11GiB",
            "vram-bench sweep model=phi_3_medium_128k bpw=2.5 cache=FP16 device=rtx_3060_12gb",
        )
    },
    _HUB_TWIN: Instead(_FRESH, f"{_HUB_TWIN}-of-a-hub"),
    **{
        command: Instead("writes 20 GiB", f"{command} --sparse")
        for command in (
            "vram-bench synth model=llama_3_1_70b bpw=2.4 --out ~/models/made-up-70b",
            "vram-bench synth model=llama_3_1_70b bpw=2.4 --out made-up-70b",
        )
    },
    **{
        command: no_gpu(command)
        for command in (
            "vram-bench sweep model=local model.path=made-up-70b device=cuda",
            "vram-bench plan model=local model.path=llama-8b-4.0bpw device=cuda cache=FP16,Q8,Q6,Q4",
            "vram-bench sweep model=local model.path=llama-8b-4.0bpw device=cuda cache=FP16,Q8,Q6,Q4 "
            "results_dir=results/new-gpu",
            "vram-bench sweep model=local model.path=~/models/my-exl2 device=cuda",
            "vram-bench sweep model=local model.path=~/models/made-up-70b device=cuda",
        )
    },
    "scripts/gpu_check.sh --dry-run": Instead(
        "needs an NVIDIA GPU", "scripts/gpu_check.sh --dry-run", code=2, says="missing: an NVIDIA GPU"
    ),
    **{
        command: parsed(command, "needs an NVIDIA GPU, and takes minutes")
        for command in ("scripts/gpu_check.sh --quick results/quick", "scripts/gpu_check.sh")
    },
    _AGREEMENT: Instead("needs rows of a GPU", "vram-bench validate rows --help"),
    _NEW_GPU: Instead("needs rows of a GPU", "vram-bench validate rows --help"),
    _SHARE: Instead(
        "needs rows of a GPU", "vram-bench share results --out new-gpu.zip && vram-bench report new-gpu.zip --out shown"
    ),
    "vram-bench validate replay results/gpu_check/recordings": Instead(
        "needs recordings of a GPU",
        "mkdir recordings && vram-bench validate replay recordings",
        code=2,
        says="no recordings in it",
    ),
    **{
        command: parsed(command, "builds for minutes, with 3 to 10 GB of packages")
        for command in (
            "./scripts/oracle.sh build allocator",
            "./scripts/oracle.sh allocator --operations 1000000",
            "./scripts/oracle.sh expandable --operations 120000",
            "./scripts/oracle.sh build",
            "./scripts/oracle.sh engine",
            "./scripts/oracle.sh machines",
            "./scripts/oracle.sh served",
            "./scripts/oracle.sh exllamav3_served",
        )
    },
    "./scripts/quickstart.sh": parsed("./scripts/quickstart.sh", "installs, and sweeps for minutes"),
    "./scripts/test.sh": parsed("./scripts/test.sh", "runs this test"),
    ".venv/bin/python scripts/renew/update_baseline.py": Instead(
        "overwrites the baseline after minutes",
        """.venv/bin/python -c 'compile(open("scripts/renew/update_baseline.py").read(), "baseline", "exec")'""",
    ),
    f"{_WHEEL} .": Instead("needs packages of a registry", ".venv/bin/python -m pip wheel --help"),
    f"{_FREEZE}/tmp/others.txt": Instead("writes outside of the folder", f"{_FREEZE}others.txt"),
    f"{_WHEEL} -r /tmp/others.txt": Instead("needs packages of a registry", ".venv/bin/python -m pip wheel --help"),
}


def paragraphs(page: Path) -> list[list[str]]:
    """The commands of a page's shell blocks, without comments; a line that ends in a backslash goes on in the next.

    An empty line ends a paragraph, and so does the end of a block.
    """
    found = []
    for language, block in re.findall(
        r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    ):
        if language in ("sh", "bash", "console", "shell") or (not language and block.startswith(("./", "vram-bench "))):
            for paragraph in block.replace("\\\n", " ").split("\n\n"):
                lines = (re.sub(r"(^|\s)#.*$", "", line.removeprefix("$ ")) for line in paragraph.splitlines())
                found.append([line.strip() for line in lines if line.strip()])
    return [commands for commands in found if commands]


WRITTEN = {page: [command for commands in paragraphs(page) for command in commands] for page in PAGES}
# Of these pages each paragraph stands for itself, and all of them take long: others may be run meanwhile.
_IN_PARAGRAPHS = ("README.md", "scenarios.md")
PARTS = [
    pytest.param(page, commands, id=page.name + (f"-{number}" if len(parts) > 1 else ""))
    for page in PAGES
    for parts in [paragraphs(page) if page.name in _IN_PARAGRAPHS else [WRITTEN[page]]]
    for number, commands in enumerate(parts)
    if commands
]


@pytest.fixture(scope="module")
def home(called: Program, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of somebody who has done what the pages presuppose: models, rows of two runs, a hub."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "bin").mkdir()
    programs = {
        "vram-bench": f'exec "{sys.executable}" -m bench "$@"',
        "python": f'exec "{sys.executable}" "$@"',
        "nvidia-smi": "exit 9",  # no GPU, also where there is one
    }
    for name, line in programs.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / "bin" / name).chmod(0o755)
    (folder / "config").mkdir()
    (folder / "config" / "config.json").write_text(json.dumps(LLAMA))
    hub = Hub()
    environment = {
        **os.environ,
        "HOME": str(folder),
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "80",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "hub"),
    }
    for bpw in ("3.0", "4.0"):
        synth = ("synth", "model=local", "model.path=config", f"bpw={bpw}", "--out", f"models/{bpw}")
        assert called(*synth, cwd=folder).returncode == 0
        files = {path.name: path for path in (folder / "models" / bpw).iterdir()}
        hub.repository("ORG/NAME-exl2").commit(f"{bpw}bpw", dict(files))
    (folder / "models" / "my-exl2").symlink_to(folder / "models" / "4.0")
    (folder / "models" / "mine").symlink_to(folder / "models" / "4.0")
    sweep = ("sweep", "model=local", "model.path=models/mine", "device=rtx_4090", "cache=FP16", "results_dir=results")
    assert called(*sweep, cwd=folder).returncode == 0
    yield environment
    hub.close()


def bash(command: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs it as a script would that stops at the first failure."""
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def plain_calls(command: str) -> list[list[str]] | None:
    """The arguments of each line, where all lines call the program with words that bash would hand on as they are.

    What it expands is left to it, and so is a hub: huggingface_hub reads its environment when it is imported.
    """
    lines = [shlex.split(line) for line in command.splitlines()]
    unquoted = re.sub(r"'[^']*'", "", command)
    if (
        re.search(r"[^\w\s.,=/:%+-]", unquoted)
        or any(line[0] != "vram-bench" for line in lines)
        or _names_a_hub(command)
    ):
        return None
    return [line[1:] for line in lines]


def _names_a_hub(command: str) -> bool:
    return "hub" in command or "ORG/" in command


def run_command(
    called: Program, command: str, folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """As `bash` runs it."""
    calls = plain_calls(command)
    if calls is None:
        return bash(command, folder, environment)
    own = {name: value for name, value in environment.items() if os.environ.get(name) != value}
    said = ""
    for arguments in calls:
        ended = called(*arguments, cwd=folder, **own)
        said += ended.stdout + ended.stderr
        if ended.returncode:
            break
    return subprocess.CompletedProcess(command, ended.returncode, said, "")


@pytest.mark.parametrize(("page", "commands"), PARTS)
def test_every_command_of_a_page_does_what_it_says(
    page: Path, commands: list[str], home: dict[str, str], called: Program, tmp_path: Path
) -> None:
    _prepare(tmp_path, Path(home["HOME"]))
    for name, text in re.findall(
        r"^```yaml\n# (\w+\.yaml)\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL
    ):
        (tmp_path / name).write_text(text)
    wrong = []
    for command in commands:
        instead = INSTEAD.get(command, Instead("", command))
        ended = run_command(called, instead.run, tmp_path, home)
        said = ended.stdout + ended.stderr
        if ended.returncode != instead.code or instead.says not in said:
            wrong.append(f"{command}\nexit code {ended.returncode}, expected {instead.code}\n{said[-2000:]}")
    assert wrong == []


def test_what_is_not_run_as_it_stands_stands_in_a_page() -> None:
    written = {command for of_page in WRITTEN.values() for command in of_page}
    assert sorted(INSTEAD.keys() - written) == []
    assert all(instead.because for instead in INSTEAD.values())


def test_every_part_is_run() -> None:
    run = [command for part in PARTS for command in part.values[1]]
    assert sorted(run) == sorted(command for of_page in WRITTEN.values() for command in of_page)


def test_blocks_are_read_as_bash_would() -> None:
    assert "vram-bench report" in WRITTEN[ROOT / "README.md"]  # its comment is gone
    assert [command for of_page in WRITTEN.values() for command in of_page if command.startswith("#")] == []


def test_what_bash_would_change_is_left_to_it() -> None:
    assert plain_calls("vram-bench sweep device=2xrtx_4090 'split=auto,[20,24]'\nvram-bench list") == [
        ["sweep", "device=2xrtx_4090", "split=auto,[20,24]"],
        ["list"],
    ]
    for command in ("vram-bench list | head", "vram-bench plan model.path=~/m", "vram-bench list *", "python -m bench"):
        assert plain_calls(command) is None
    plain = [command for of_page in WRITTEN.values() for command in of_page if plain_calls(command)]
    assert len(plain) > 10


def _prepare(folder: Path, home: Path) -> None:
    """A folder like a clone in which some work was done: what the pages name relative to it is there."""
    for name in ("scripts", "tests", "bench", "conf", "docs", ".venv"):
        (folder / name).symlink_to(Path(sys.prefix) if name == ".venv" else ROOT / name)
    for name in ("BASE", "HEAD", "baseline", "results"):
        shutil.copytree(home / "results", folder / name)
    (folder / "models").symlink_to(home / "models")
    (folder / "REAL").symlink_to(home / "models" / "4.0")
    (folder / "my.csv").write_text("model,bpw,cache,quality\n4.0,4.0,FP16,6.5\n")
    (folder / "config.yml").write_text("model:\n  model_name: '4.0'\n  max_seq_len: 1024\n  cache_size: 2048\n")
