"""Environments in which exllamav2 cannot be imported by itself: small packages of the same names, on a path."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.worker.engines.exllamav2.packages import EngineBroken, remedy

BROKEN = 'raise ImportError("flash_attn_2_cuda.so: undefined symbol: _ZN3c104cuda")'
# As the engine's extension, for its import alone.
EXTENSION = "def __getattr__(name):\n    return None\n"
ENGINE = (
    "from bench.worker.engines.exllamav2.packages import import_engine, switch_off_broken\n"
    "print(switch_off_broken())\nimport_engine()\n"
    "from exllamav2 import attn\nprint(attn.has_flash_attn, attn.has_xformers)\n"
)
# What a package of the name consists of, and what is said of it; None where the engine goes on by itself.
PACKAGES = {
    "flash-attn 4 alone": ({"flash_attn/cute/__init__.py": ""}, "flash_attn", "no attribute '__version__'"),
    "no text for a version": ({"flash_attn/__init__.py": "__version__ = None"}, "flash_attn", "AttributeError"),
    "flash-attn of another torch": ({"flash_attn/__init__.py": BROKEN}, "flash_attn", "undefined symbol"),
    "xformers of another torch": (
        {"xformers/__init__.py": "", "xformers/ops/__init__.py": BROKEN},
        "xformers",
        "undefined symbol",
    ),
    "flash-attn that lacks a module": ({"flash_attn/__init__.py": "import no_such_einops"}, "flash_attn", None),
    "too old a flash-attn": ({"flash_attn/__init__.py": "__version__ = '1.0.9'"}, "flash_attn", None),
}


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{Path(__file__).parents[2]}"}
    return subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


# Of packages that are broken in the same way one is tried each time.
_ALIKE = ("flash-attn 4 alone", "no text for a version", "xformers of another torch", "too old a flash-attn")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.thorough] * (name in _ALIKE)) for name in PACKAGES]
)
def test_the_engine_is_imported_beside_packages_that_are_broken(name: str, tmp_path: Path) -> None:
    files, package, said = PACKAGES[name]
    write(tmp_path, {**files, "exllamav2_ext.py": EXTENSION})
    done = run(tmp_path, "-c", ENGINE)
    assert done.returncode == 0, done.stderr
    assert "False False" in done.stdout
    assert (f"{package} is installed and cannot be imported" in done.stdout) == (said is not None)
    assert said is None or said in done.stdout
    alone = run(tmp_path, "-c", "import exllamav2")  # what it is for
    assert (alone.returncode == 0) == (said is None)


def test_doctor_tells_of_them_and_what_to_do(tmp_path: Path) -> None:
    broken_extension = {"exllamav2_ext.py": 'raise ImportError("exllamav2_ext.so: undefined symbol: _ZN2at")'}
    old_pynvml = {"pynvml-11.5.3.dist-info/METADATA": "Metadata-Version: 2.1\nName: pynvml\nVersion: 11.5.3\n"}
    write(tmp_path, {**PACKAGES["flash-attn 4 alone"][0], **broken_extension, **old_pynvml})
    done = run(tmp_path, "-m", "bench", "doctor", "--json")
    assert done.returncode == 0, done.stderr
    findings = {finding["what"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert "__version__" in findings["flash-attn"]["found"]
    assert "EXLLAMA_NO_FLASH_ATTN" in findings["flash-attn"]["remedy"]
    assert "undefined symbol" in findings["extension"]["found"]
    assert findings["extension"]["blocks"] == "measuring"
    assert "exllamav3_ext is not built" in findings["exllamav3 extension"]["found"]
    assert "pip uninstall pynvml" in findings["pynvml"]["remedy"]


def test_doctor_answers_where_nvml_itself_cannot_be_imported(tmp_path: Path) -> None:
    write(tmp_path, {"pynvml/__init__.py": "import no_such_module"})
    done = run(tmp_path, "-m", "bench", "doctor")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "nvidia-ml-py cannot be imported" in " ".join(done.stdout.split())


def test_a_worker_that_cannot_start_is_told_in_a_line(tmp_path: Path) -> None:
    """Here over a torch that is broken: the row is an error with a remedy, and nothing is a traceback."""
    write(tmp_path, {"torch/__init__.py": 'raise ImportError("libtorch_cpu.so: cannot open shared object file")'})
    axes = ("model=tinyllama_1_1b", "device=rtx_3060_12gb", "max_seq_len=256", f"results_dir={tmp_path / 'results'}")
    done = run(tmp_path, "-m", "bench", "sweep", *axes)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    told = " ".join((done.stdout + done.stderr).split())
    assert "cannot open shared object file" in told
    assert "vram-bench doctor" in told


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ImportError("exllamav2_ext.so: undefined symbol: _ZN2at"), "built for another torch"),
        (ModuleNotFoundError("No module named 'safetensors'", name="safetensors"), "install safetensors"),
        (OSError("CUDA_HOME environment variable is not set"), "install nvcc"),
        (RuntimeError("Error building extension 'exllamav2_ext'"), "install nvcc"),
        (IndexError("list index out of range"), "TORCH_CUDA_ARCH_LIST"),
        (ValueError("numpy.dtype size changed"), "vram-bench doctor"),
    ],
)
def test_every_error_of_the_import_has_a_remedy(error: Exception, told: str) -> None:
    assert told in remedy(error)
    assert issubclass(EngineBroken, Exception)
