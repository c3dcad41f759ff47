"""A stand-in for Triton. Kernels write into tensors that the engine's Python code made: a launch allocates nothing.

What decides memory is the tile that a kernel is launched with (exllamav3/modules/attention_fn/smem.py tries smaller
ones until one fits). The stand-in says that the first fits the shared memory of the card, as it does from Ampere on.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any


class Kernel:
    """A function under `@triton.jit`. `kernel[grid](...)` launches it."""

    def __init__(self, fn: Any) -> None:
        self.fn = fn
        self.__name__ = getattr(fn, "__name__", "kernel")
        code = getattr(fn, "__code__", None)
        self.arg_names = list(code.co_varnames[: code.co_argcount]) if code else getattr(fn, "arg_names", [])
        self.cache: dict[Any, Any] = {}

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return _launch

    def run(self, *args: Any, grid: Any = None, warmup: bool = False, **kwargs: Any) -> Any:
        """A launch, or with `warmup` a compilation: of no shared memory, so that the first tile fits."""
        return _compiled(self.__name__, 4)

    def warmup(self, *args: Any, **kwargs: Any) -> Any:
        """A compilation."""
        return self.run()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """On the host it cannot be called."""
        raise RuntimeError(f"{self.__name__} runs on the card alone")


def _launch(*args: Any, **kwargs: Any) -> None: ...


def _nothing(*args: Any, **kwargs: Any) -> None: ...


def _compiled(name: str, num_warps: int) -> Any:
    metadata = SimpleNamespace(shared=0, num_warps=num_warps, name=name)
    return SimpleNamespace(metadata=metadata, asm={"cubin": b""})


def _jit(fn: Any = None, **kwargs: Any) -> Any:
    return Kernel if fn is None else Kernel(fn)


def _unchanged(*args: Any, **kwargs: Any) -> Callable[[Any], Any]:
    return lambda kernel: kernel


def _compile(src: Any, options: dict[str, Any] | None = None, **kwargs: Any) -> Any:
    return _compiled(src.name, (options or {}).get("num_warps", 4))


class _Source:
    """triton.compiler.ASTSource."""

    def __init__(self, fn: Any, signature: Any, constexprs: Any = None, attrs: Any = None) -> None:
        self.name = fn.__name__


class _Config:
    """triton.Config."""

    def __init__(self, kwargs: Any, num_warps: int = 4, num_stages: int = 2, **rest: Any) -> None:
        self.kwargs, self.num_warps, self.num_stages = kwargs, num_warps, num_stages


class _ConstExpr:
    """triton.language.constexpr."""

    def __init__(self, value: Any = None) -> None:
        self.value = value


class _Names(ModuleType):
    """A module in which every name is a class: signatures and decorators of kernels read them, nothing calls them."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(name, (), {})
        setattr(self, name, made)
        return made


def modules() -> dict[str, ModuleType]:
    """What to put in `sys.modules` before the engine is imported."""
    names = ("language", "language.extra", "language.extra.libdevice", "compiler", "runtime", "runtime.autotuner")
    found: dict[str, ModuleType] = {f"triton.{name}": _Names(f"triton.{name}") for name in (*names, "runtime.driver")}
    triton = found["triton"] = ModuleType("triton")
    vars(triton).update(
        __version__="3.7.1",
        jit=_jit,
        autotune=_unchanged,
        heuristics=_unchanged,
        compile=_compile,
        set_allocator=_nothing,  # of scratch that a compiled kernel may ask for
        Config=_Config,
        KernelInterface=Kernel,
        cdiv=lambda a, b: -(-a // b),
        next_power_of_2=lambda n: 1 << (n - 1).bit_length() if n > 0 else 0,
    )
    vars(found["triton.language"])["constexpr"] = _ConstExpr
    vars(found["triton.compiler"])["ASTSource"] = _Source
    for name, module in found.items():
        module.__spec__ = ModuleSpec(name, None, is_package=True)
        module.__path__ = []
        parent, _, own = name.rpartition(".")
        if parent:
            setattr(found[parent], own, module)
    return found
