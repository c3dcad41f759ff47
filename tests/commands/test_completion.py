"""The scripts of `vram-bench completion`, in real shells at a terminal: what stands there after a TAB."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.commands.completion import _values
from tests.conftest import Program

_PROMPT = "READY> "
_START = {
    "bash": (
        ["bash", "--norc", "--noprofile", "-i"],
        f"PS1='{_PROMPT}'; bind 'set bell-style none'; eval \"$(cat script)\"",
    ),
    "zsh": (["zsh", "-f", "-i"], f"autoload -Uz compinit; compinit -u -D; eval \"$(cat script)\"; PS1='{_PROMPT}'"),
    "fish": (["fish", "--no-config", "-i"], "source ./script; function fish_prompt; echo -n '" + _PROMPT + "'; end"),
}
_MARK = re.compile(r"<([^<>\n]*)>\r?\n")
_PATIENCE_S = 20.0


class Shell:
    """A shell at a terminal that has loaded its script."""

    def __init__(self, name: str, folder: Path) -> None:
        command, start = _START[name]
        self._is_fish = name == "fish"  # its lists are drawn for a terminal that can more
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "TERM": "dumb", "LC_ALL": "C.UTF-8"}
        self._terminal, slave = pty.openpty()
        self._process = subprocess.Popen(
            ["setsid", "--ctty", *command], stdin=slave, stdout=slave, stderr=slave, cwd=folder, env=environment
        )
        os.close(slave)
        self._said = ""
        self.send(f"{start}\r")
        self.send("printf '<%s>\\n' loaded\r")
        self._until(lambda: "loaded" in _MARK.findall(self._said))

    def send(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def after_tab(self, typed: str) -> str:
        """The words of the line, with a blank at its end where there is one, after `typed` and a TAB."""
        self._said = ""
        self.send(f"{typed}\t")
        self._settle()
        self.send("Z\x01printf '<%s>\\n' '\x05'\r")  # the line in quotes, and where it ended
        self._until(lambda: _MARK.search(self._said) is not None)
        return _MARK.findall(self._said)[-1].removesuffix("Z")

    def listed(self, typed: str) -> set[str]:
        """What is offered where several words are possible."""
        self._said = ""
        self.send(f"complete -C '{typed}'\r" if self._is_fish else f"{typed}\t\t\t")
        self._settle()
        said = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", " ", self._said)
        self.send("\x03")
        self._settle()
        return set(said.split())

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)

    def _read(self, wait_s: float) -> bool:
        if not select.select([self._terminal], [], [], wait_s)[0]:
            return False
        self._said += os.read(self._terminal, 65536).decode("utf-8", "replace")
        return True

    def _settle(self) -> None:
        """Until nothing more has come for a moment."""
        while self._read(0.4):
            pass

    def _until(self, reached: Callable[[], bool]) -> None:
        end = time.monotonic() + _PATIENCE_S
        while not reached():
            assert time.monotonic() < end, self._said
            self._read(0.2)


@pytest.fixture(scope="module", params=["bash", "zsh", "fish"])
def shell(request: pytest.FixtureRequest, called: Program, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    if shutil.which(request.param) is None:
        pytest.skip(f"no {request.param} here")
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "models").mkdir()
    done = called("completion", request.param, cwd=folder)
    assert done.returncode == 0
    (folder / "script").write_text(done.stdout)
    opened = Shell(request.param, folder)
    yield opened
    opened.end()


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("vram-bench pla", "vram-bench plan "),
        ("vram-bench plan bp", "vram-bench plan bpw="),
        ("vram-bench plan model=tinyl", "vram-bench plan model=tinyllama_1_1b "),
        ("vram-bench sweep bpw=4 cache=FP16,Q8,FP", "vram-bench sweep bpw=4 cache=FP16,Q8,FP16 "),
        ("vram-bench plan --config-dir models device=a100_4", "vram-bench plan --config-dir models device=a100_40gb "),
        ("vram-bench plan lazy=t", "vram-bench plan lazy=true "),
        ("vram-bench plan +experiment=quick", "vram-bench plan +experiment=quickstart "),
        ("vram-bench plan model.path=mod", "vram-bench plan model.path=models/"),
        ("vram-bench validate record models atten", "vram-bench validate record models attention="),
        ("vram-bench plan bpw=4 --config-d", "vram-bench plan bpw=4 --config-dir "),
    ],
)
def test_a_tab_completes(shell: Shell, typed: str, completed: str) -> None:
    assert shell.after_tab(typed) == completed


def test_keys_come_before_values(shell: Shell) -> None:
    offered = shell.listed("vram-bench plan mo")
    assert {"model=", "model.path=", "model.repo="} <= offered
    assert not any("tinyllama" in word for word in offered)
    offered = shell.listed("vram-bench plan cache=FP16,Q")
    assert {"Q4", "Q6", "Q8"} <= {word.rpartition(",")[2] for word in offered}


def test_completions_are_keys_and_names() -> None:
    values = _values()
    assert {"bpw", "model.path", "device.index", "vram_limit_by", "hydra/launcher"} <= values.keys()
    assert "llama_3_8b" in values["model"]
    assert {"rtx_3090", "all", "cuda"} <= set(values["device"])
    assert (values["lazy"], values["engine"]) == (
        ["true", "false"],
        ["exllamav2", "exllamav3", "auto"],
    )
    assert values["load"] == ["single", "autosplit", "tabbyapi"]
    assert {"FP16", "Q4", "k8v5"} <= set(values["cache"])
