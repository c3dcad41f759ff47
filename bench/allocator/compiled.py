"""How the model of memory is compiled: by numba where it is installed, and not at all elsewhere.

The functions are written so that they run as they are, too: over lists in place of arrays, which are several times
faster for one number at a time. `as_given` makes of an array what they take. Nothing is imported or compiled before one
of them is called.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

if TYPE_CHECKING:
    from numpy.typing import NDArray

Function = TypeVar("Function", bound=Callable[..., object])
Numbers = TypeVar("Numbers", bound="NDArray[Any]")

_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True}


@cache
def is_compiled() -> bool:
    """Whether there is numba."""
    return find_spec("numba") is not None


def as_given(array: Numbers) -> Numbers:
    """An array as the functions take it: where nothing is compiled, lists of its numbers.

    What is there as lists stays so.
    """
    return array if is_compiled() or isinstance(array, list) else array.tolist()


def compiled(function: Function) -> Function:
    """`function` compiled by numba, without counting references to the arrays that it is given.

    The counting is atomic and took six sevenths of the time. Such a function must neither make nor return an array;
    views of those that it was given are fine. Where this numba has no such switch, references are counted.
    """
    return cast(Function, _Waiting(function, forceinline=False, _nrt=False))


def inlined(function: Function) -> Function:
    """The same, but its code is repeated in every function that calls it.

    A `State` is passed as some 66 numbers: for what each request does, a call costs as much as the work. LLVM repeats
    by itself what is short, and stops when a function gets one more caller.
    """
    return cast(Function, _Waiting(function, forceinline=True, _nrt=False))


def compiled_with_arrays(function: Function) -> Function:
    """`function` compiled by numba, which may make and return arrays: references to them are counted."""
    return cast(Function, _Waiting(function))


class _Waiting:
    """A function of which nobody has called any yet.

    At the first call each takes its place as it is to run, wherever the program has a name for it: what is compiled
    finds the functions that it calls by their names.
    """

    _all: ClassVar[list[_Waiting]] = []
    _lock = threading.RLock()

    def __init__(self, function: Callable[..., object], **options: bool) -> None:
        self.__doc__, self.__name__, self.__module__ = function.__doc__, function.__name__, function.__module__
        self.__wrapped__ = function
        self._options = options
        self._ready: Callable[..., object] | None = None
        self._all.append(self)

    def __call__(self, *arguments: Any) -> Any:
        if self._ready is None:
            with self._lock:
                for each in self._all:
                    each._make_ready()
                _put_in_place({each.__module__.partition(".")[0] for each in self._all})
                self._all.clear()
        assert self._ready is not None
        return self._ready(*arguments)

    def _make_ready(self) -> None:
        if self._ready is None:
            self._ready = _made(self.__wrapped__, self._options) if is_compiled() else self.__wrapped__


def _put_in_place(packages: set[str]) -> None:
    modules = [module for name, module in [*sys.modules.items()] if name.partition(".")[0] in packages]
    for names in map(vars, modules):
        for name, value in [*names.items()]:
            if isinstance(value, _Waiting) and value._ready is not None:
                names[name] = value._ready


def _made(function: Callable[..., object], options: dict[str, bool]) -> Callable[..., object]:
    from numba import njit

    compile_as: Any = njit  # of whose switches its stubs don't know all
    try:
        return _forgetting(function, compile_as(**_OPTIONS, **options)(function))
    except (KeyError, TypeError):
        options = {name: value for name, value in options.items() if name != "_nrt"}
        return _forgetting(function, compile_as(**_OPTIONS, **options)(function))


def _forgetting(function: Callable[..., object], made: Any) -> Callable[..., object]:
    """`made` of a function; what numba keeps of it is deleted where any source of its package was written since.

    numba compiles a function again when the function's own file has changed, not when a file has that it calls. It
    says itself where it keeps what it has compiled: beside the source, in NUMBA_CACHE_DIR, or in the user's cache.
    """
    stats = getattr(made, "stats", None)  # where numba is switched off there are none
    if stats is not None and stats.cache_path:
        _forget_older(Path(stats.cache_path), _newest_source(_package_of(Path(function.__code__.co_filename))))
    return cast(Callable[..., object], made)


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
