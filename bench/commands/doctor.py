"""`vram-bench doctor`: what this machine has, and for each problem its remedy. All warnings of the program are here."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import shutil
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from bench import nvml
from bench.commands.self_test import self_test
from bench.config.devices import DEFAULT_SIMULATED
from bench.core.case import DEFAULT_ENGINE
from bench.core.errors import BadInput
from bench.core.extras import install
from bench.engines.base import EngineSpec
from bench.engines.registry import engines, titles
from bench.launch.fork_server import can_fork
from bench.launch.packages import broken_packages
from bench.launch.versions import installed_version
from bench.report.text.console import console_for
from bench.report.text.units import size

_MIN_FLASH_ATTN = (2, 5, 7)


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis. `remedy` is None where nothing is wrong; `blocks` says what cannot be done."""

    what: str
    found: str
    remedy: str | None = None
    blocks: str | None = None


def run(arguments: argparse.Namespace) -> int:
    """`vram-bench doctor [--json]`, or `vram-bench doctor --self-test [KEY=VALUE…] [--json]`."""
    if arguments.self_test:
        return self_test(arguments.overrides, arguments.json)
    if arguments.overrides:
        raise BadInput(f"{' '.join(arguments.overrides)}: `doctor` takes keys with --self-test alone")
    return doctor(arguments.json)


def doctor(as_json: bool) -> int:
    """Prints the diagnosis; the exit code is 0: a machine without a GPU is a machine that simulates."""
    findings = examine()
    if as_json:
        print(json.dumps({"findings": [asdict(finding) for finding in findings]}, indent=2))
        return 0
    table = Table(box=None, padding=(0, 1), pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        mark = Text("✓", "green") if finding.remedy is None else Text("✗", "red" if finding.blocks else "yellow")
        text = Text(finding.found)
        if finding.remedy is not None:
            text.append(f"\n→ {finding.remedy}", "bright_black")
        table.add_row(mark, finding.what, text)
    console_for().print(table)
    return 0


def examine() -> list[Finding]:
    """Every finding, in the order in which they matter."""
    gpus, findings = _gpus()
    broken = _broken()
    findings += [*_nvml(), _torch(bool(gpus)), *map(_engine, engines())]
    installed = [engine for engine in engines() if installed_version(engine.name) is not None]
    findings += [_extension(engine, bool(gpus)) for engine in installed if engine.extension not in broken]
    findings += [finding for finding in _attention(gpus) if finding.what.replace("-", "_") not in broken]
    findings += [*broken.values(), *_environment(gpus)]
    findings += [_processes(gpu) for gpu in gpus]
    findings += [_link(*pair) for pair in itertools.combinations(gpus, 2)]
    findings += [_allocator(), _isolation(), _disk()]
    return findings


def _gpus() -> tuple[list[nvml.Gpu], list[Finding]]:
    try:
        gpus = nvml.gpus()
    except nvml.NoDriver as error:
        remedy = f"simulated cards need none (device={DEFAULT_SIMULATED}); for a real one install NVIDIA's driver"
        return [], [Finding("GPU", str(error), remedy, "measuring")]
    if not gpus:
        return [], [Finding("GPU", "the driver lists none", "check nvidia-smi and the container's GPUs", "measuring")]
    return gpus, [
        Finding(
            f"GPU {gpu.index}",
            f"{gpu.name}, {size(gpu.total_bytes)}, compute capability {gpu.compute_capability}, "
            f"driver {gpu.driver_version}, CUDA {gpu.cuda_driver_version}",
        )
        for gpu in gpus
    ]


def _nvml() -> list[Finding]:
    """The old package of NVML has a module of the same name, which hides the one that is used here."""
    installed = installed_version("pynvml")
    if installed is None or int(installed.split(".")[0]) >= 12:  # from then on it is no more than a name
        return []
    remedy = "pip uninstall pynvml, then pip install --force-reinstall nvidia-ml-py: it hides that package's module"
    return [Finding("pynvml", f"{installed}, beside nvidia-ml-py", remedy, "measuring")]


def _broken() -> dict[str, Finding]:
    """What is installed and cannot be imported, by the name of its module."""
    packages = {module: package for engine in engines() for module, package in engine.packages.items()}
    if not any(_is_there(module) for module in packages):
        return {}  # and no worker needs to import torch
    extensions = {engine.extension: _extension_of(engine) for engine in engines()}
    return {
        module: Finding(
            extensions.get(module, module.replace("_", "-")),
            error,
            packages[module].remedy,
            packages[module].blocks,
        )
        for module, error in broken_packages().items()
    }


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _environment(gpus: list[nvml.Gpu]) -> list[Finding]:
    """Variables that people set, and that mean something else here."""
    findings = []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and gpus:
        remedy = "cases do not see it: choose the GPU with device=cuda device.index=N, as nvidia-smi counts"
        findings.append(Finding("environment", f"CUDA_VISIBLE_DEVICES={visible} is set", remedy))
    built_for = os.environ.get("TORCH_CUDA_ARCH_LIST")
    missed = [gpu for gpu in gpus if built_for and gpu.compute_capability not in built_for]
    if missed and not any(_is_there(engine.extension) for engine in engines()):
        remedy = f"add {missed[0].compute_capability}, or unset it: the extension is built for what it lists"
        findings.append(Finding("environment", f"TORCH_CUDA_ARCH_LIST={built_for} is set", remedy, "measuring"))
    return findings


def _torch(has_gpu: bool) -> Finding:
    installed = installed_version("torch")
    if installed is None:
        return Finding("torch", "not installed", _for_runs(DEFAULT_ENGINE), "sweep")
    # The version file is read, not imported: importing torch takes seconds.
    cuda = _torch_cuda()
    if has_gpu and cuda is None:
        remedy = "install a CUDA build of torch that suits the driver: https://pytorch.org/get-started"
        return Finding("torch", f"{installed}, a CPU build", remedy, "measuring")
    return Finding("torch", f"{installed}, " + (f"CUDA {cuda}" if cuda else "a CPU build: enough for simulated cards"))


def _torch_cuda() -> str | None:
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    values: dict[str, Any] = {}
    exec((Path(spec.origin).parent / "version.py").read_text(encoding="utf-8"), values)
    cuda = values.get("cuda")
    return None if cuda is None else str(cuda)


def _engine(engine: EngineSpec) -> Finding:
    installed = installed_version(engine.name)
    if installed is None and engine.name != DEFAULT_ENGINE:
        return Finding(engine.name, "not installed", _for_runs(engine.name), f"engine={engine.name}")
    if installed is None:
        return Finding(engine.name, "not installed", _for_runs(engine.name), "sweep")
    return Finding(engine.name, installed)


def _for_runs(engine: str) -> str:
    return f"`plan` predicts without it; to run {engine}: {install(engine)}"


def _extension_of(engine: EngineSpec) -> str:
    """What a finding of the engine's extension is called: the default engine's had its name before others came."""
    return "extension" if engine.name == DEFAULT_ENGINE else f"{engine.name} extension"


def _extension(engine: EngineSpec, has_gpu: bool) -> Finding:
    what = _extension_of(engine)
    if _is_there(engine.extension):
        return Finding(what, f"{engine.extension} is built and importable")
    if not has_gpu:
        return Finding(what, f"{engine.extension} is not built; simulated cards do not use it")
    missing = [tool for tool in ("nvcc", "ninja", "c++") if shutil.which(tool) is None]
    if missing:
        remedy = f"install {', '.join(missing)}, or a wheel of {engine.name} that has the extension built in"
        return Finding(what, f"{engine.extension} is not built, and cannot be built here", remedy, "measuring")
    cache = Path(os.environ.get("TORCH_EXTENSIONS_DIR", Path.home() / ".cache" / "torch_extensions"))
    locks = [str(path) for path in cache.glob(f"**/{engine.extension}/lock")]
    if locks:
        remedy = "if no build is running, one was cut off and every import waits for it for ever: delete the file"
        return Finding(what, f"{engine.extension} is being built: {', '.join(locks)}", remedy, "measuring")
    if list(cache.glob(f"**/{engine.extension}.so")):
        return Finding(what, f"{engine.extension} is built, in {cache}")
    remedy = f'build it before the first sweep, or raise timeout_s: python -c "import torch, {engine.name}.ext"'
    return Finding(what, f"{engine.extension} is not built yet: the first import takes minutes", remedy)


def _attention(gpus: list[nvml.Gpu]) -> list[Finding]:
    flash, xformers = installed_version("flash-attn"), installed_version("xformers")
    old = [gpu.name for gpu in gpus if float(gpu.compute_capability) < 8.0]
    users = titles(engine.name for engine in engines() if "flash" in engine.attentions)
    findings = []
    if flash is None:
        remedy = "long contexts take more memory without it, and there is no paged attention: pip install flash-attn"
        findings.append(Finding("flash-attn", "not installed", remedy if gpus else None))
    elif tuple(int(n) for n in flash.split(".")[:3] if n.isdigit()) < _MIN_FLASH_ATTN:
        findings.append(Finding("flash-attn", flash, "paged attention needs 2.5.7 or newer: pip install -U flash-attn"))
    elif old:
        remedy = f"{users} by itself would pick it on {', '.join(old)} and fail; cases here switch it off there"
        findings.append(Finding("flash-attn", flash, remedy))
    else:
        findings.append(Finding("flash-attn", flash))
    findings.append(Finding("xformers", xformers or "not installed"))
    if gpus and flash is None and xformers is None:
        remedy = "use attention=matmul, or install flash-attn: the engine's SDPA path applies no causal mask"
        findings.append(Finding("attention", "auto would choose SDPA, whose outputs are wrong", remedy))
    return findings


def _link(one: nvml.Gpu, other: nvml.Gpu) -> Finding:
    """Whether two GPUs copy to each other directly: a model on both is slower where they do not, and hardly larger."""
    what = f"GPU {one.index} and {other.index}"
    try:
        link = nvml.link(one.uuid, other.uuid)
    except nvml.NoDriver as error:
        return Finding(what, str(error), "check nvidia-smi topo -m")
    reach = {True: "reach each other's memory", False: "copy through the host's memory", None: "reach is not told"}
    return Finding(what, reach[link.peer_access] + (f" (nvidia-smi topo -m: {link.path})" if link.path else ""))


def _processes(gpu: nvml.Gpu) -> Finding:
    try:
        reading = nvml.read(gpu.uuid)
    except nvml.NoDriver as error:
        return Finding(f"GPU {gpu.index} load", str(error), "check nvidia-smi", "measuring")
    held = f"{size(reading.used_bytes)} in use"
    if reading.processes is None:
        return Finding(f"GPU {gpu.index} load", f"{held}; the driver does not tell of processes")
    if not reading.processes:
        return Finding(f"GPU {gpu.index} load", f"{held}, no other process")
    pids = ", ".join(str(process.pid) for process in reading.processes)
    remedy = "end them: they shrink the card that is measured"
    return Finding(f"GPU {gpu.index} load", f"{held}, processes {pids}", remedy)


def _allocator() -> Finding:
    for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
        if os.environ.get(name):
            return Finding("allocator", f"{name}={os.environ[name]} is set; cases run with PyTorch's defaults")
    return Finding("allocator", "PyTorch's defaults")


def _isolation() -> Finding:
    if can_fork():
        return Finding("isolation", "fork server: a case starts in milliseconds")
    return Finding("isolation", f"a fresh interpreter for each case ({platform.system()}): seconds more a case")


def _disk() -> Finding:
    free_bytes = shutil.disk_usage(".").free
    remedy = "results are small, but checkpoints are not: free some" if free_bytes < 1 << 30 else None
    return Finding("disk", f"{size(free_bytes)} free here", remedy)
