"""How the model of memory is compiled."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., object])

_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True}
_njit: Any = njit  # of whose switches its stubs don't know all


def compiled(function: Function) -> Function:
    """`function` compiled by numba, without counting references to the arrays that it is given.

    The counting is atomic and took six sevenths of the time. Such a function must neither make nor return an array;
    views of those that it was given are fine. Where this numba has no such switch, references are counted.
    """
    return _compiled(function, forceinline=False)


def inlined(function: Function) -> Function:
    """The same, but its code is repeated in every function that calls it.

    A `State` is passed as some 66 numbers: for what each request does, a call costs as much as the work. LLVM repeats
    by itself what is short, and stops when a function gets one more caller.
    """
    return _compiled(function, forceinline=True)


def compiled_with_arrays(function: Function) -> Function:
    """`function` compiled by numba, which may make and return arrays: references to them are counted."""
    return _forgetting(function, _njit(**_OPTIONS)(function))


def _compiled(function: Function, forceinline: bool) -> Function:
    # Told for each: where it is not, a function has it from the one that is compiled when it is first called.
    options = _OPTIONS | {"forceinline": forceinline}
    try:
        return _forgetting(function, _njit(**options, _nrt=False)(function))
    except (KeyError, TypeError):
        return _forgetting(function, _njit(**options)(function))


def _forgetting(function: Function, made: Any) -> Function:
    """`made` of a function; what numba keeps of it is deleted where any source of its package was written since.

    numba compiles a function again when the function's own file has changed, not when a file has that it calls. It
    says itself where it keeps what it has compiled: beside the source, in NUMBA_CACHE_DIR, or in the user's cache.
    """
    stats = getattr(made, "stats", None)  # where numba is switched off there are none
    if stats is not None and stats.cache_path:
        _forget_older(Path(stats.cache_path), _newest_source(_package_of(Path(function.__code__.co_filename))))
    return cast(Function, made)


def _package_of(file: Path) -> Path:
    folder = file.resolve().parent
    while (folder / "__init__.py").exists() and (folder.parent / "__init__.py").exists():
        folder = folder.parent
    return folder


@cache
def _newest_source(package: Path) -> float:
    return max((path.stat().st_mtime for path in package.rglob("*.py")), default=0.0)


@cache
def _forget_older(folder: Path, written: float) -> None:
    """Numba has a folder of its own for each folder of sources."""
    for index in folder.glob("*.nbi"):
        with suppress(OSError):  # another process was faster, or the folder cannot be written
            if index.stat().st_mtime < written:
                index.unlink()
