"""What is installed beside the engine and cannot be imported: ExLlamaV2 0.3.2 ends over more than it catches.

`import exllamav2` catches only modules that are not there. A `flash_attn` without a version (flash-attn 4 alone), or
one that was built for another torch, would end it; so would an xformers of that kind.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from importlib.util import find_spec

from bench.worker.interfaces.engine import EngineBroken

_UNDEFINED = "undefined symbol"


def switch_off_broken() -> list[str]:
    """Tells the engine, before it is imported, to leave alone what it could not import; returns a note for each."""
    notes = []
    for name, error in broken_back_ends().items():
        os.environ[_SWITCHES[name]] = "1"
        notes.append(f"{name} is installed and cannot be imported ({error}): switched off with {_SWITCHES[name]}")
    return notes


def broken_back_ends() -> dict[str, str]:
    """The attention packages over which `import exllamav2` would end, and the error of each in a line."""
    errors = {}
    for name, (attempt, caught) in _ATTEMPTS.items():
        try:
            attempt()
        except caught:
            pass  # the engine goes on without it
        except Exception as error:
            errors[name] = one_line(error)
    return errors


def import_engine() -> None:
    """Imports exllamav2. Raises `EngineBroken` with a remedy where that fails."""
    try:
        importlib.import_module("exllamav2")
    except Exception as error:
        raise EngineBroken(f"exllamav2 cannot be imported ({one_line(error)}): {remedy(error)}") from error


def broken_extension() -> str | None:
    """Why the extension that is installed cannot be imported, in a line; None where it can, or is none."""
    if find_spec("exllamav2_ext") is None:
        return None
    try:
        importlib.import_module("torch")  # whose libraries it needs
        importlib.import_module("exllamav2_ext")
    except Exception as error:
        return one_line(error)
    return None


def remedy(error: Exception) -> str:
    """What helps against an error of the engine's import."""
    text = str(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"install {error.name}"
    if _UNDEFINED in text or "DLL load failed" in text:
        return "its extension was built for another torch; install the wheel of exllamav2 that is for this one"
    if "CUDA_HOME" in text or "inja" in text or "building extension" in text:
        return "its extension cannot be built here; install nvcc, ninja and a C++ compiler, or a wheel that has it"
    if isinstance(error, IndexError):  # torch's builder found no card to build for
        return "its extension is not built, and torch sees no GPU to build it for; set TORCH_CUDA_ARCH_LIST"
    return "run vram-bench doctor; a package beside exllamav2 is broken"


def one_line(error: Exception) -> str:
    """Type and text of an error, cut to 200 characters."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def _import_flash_attn() -> None:
    """What exllamav2/attn.py does with it."""
    package = importlib.import_module("flash_attn")
    numbers = [int(part) for part in package.__version__.split(".") if part.isdigit()]
    if numbers >= [2, 2, 1]:
        _ = package.flash_attn_func, package.flash_attn_varlen_func
    if numbers >= [2, 5, 7]:
        _ = package.flash_attn_with_kvcache
        importlib.import_module("flash_attn_2_cuda")


def _import_xformers() -> None:
    importlib.import_module("xformers.ops")
    _ = importlib.import_module("xformers.ops.fmha.attn_bias").LowerTriangularFromBottomRightMask


_SWITCHES = {"flash_attn": "EXLLAMA_NO_FLASH_ATTN", "xformers": "EXLLAMA_NO_XFORMERS"}
# How the engine imports each, and what it catches.
_ATTEMPTS: dict[str, tuple[Callable[[], None], tuple[type[Exception], ...]]] = {
    "flash_attn": (_import_flash_attn, (ModuleNotFoundError, NameError)),
    "xformers": (_import_xformers, (ModuleNotFoundError,)),
}
