"""How the model of memory is compiled."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
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


def _compiled(function: Function, forceinline: bool) -> Function:
    # Told for each: where it is not, a function has it from the one that is compiled when it is first called.
    options = _OPTIONS | {"forceinline": forceinline}
    try:
        return cast(Function, _njit(**options, _nrt=False)(function))
    except (KeyError, TypeError):
        return cast(Function, _njit(**options)(function))


def forget_stale(package: Path) -> None:
    """Deletes what numba keeps of the functions below `package` from before the newest of its sources was written.

    numba compiles a function again when the function's own file has changed, not when a file has that it calls.
    """
    newest = max((path.stat().st_mtime for path in package.rglob("*.py")), default=0.0)
    for index in package.rglob("__pycache__/*.nbi"):
        with suppress(OSError):  # another process was faster, or the package cannot be written
            if index.stat().st_mtime < newest:
                index.unlink()


forget_stale(Path(__file__).parent.parent)
