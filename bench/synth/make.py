"""Makes synthetic checkpoints: a worker finds out what is in one, and it is filled here, file by file."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bench.core.case import Case
from bench.core.device import SIMULATED
from bench.core.errors import BadInput
from bench.core.files import replaced
from bench.core.messages import Failure, last
from bench.core.requests import LayOut
from bench.engines.registry import engine_of
from bench.launch.inspection import require_whole
from bench.launch.launchers import make_launcher
from bench.launch.supervise import run_isolated
from bench.launch.versions import installed_versions
from bench.synth.clone import CannotClone, lay_out_like
from bench.synth.layout import SYNTHETIC, Layout, Tensor
from bench.synth.shards import index, split, tables_only, write_shard
from bench.synth.values import Values

MANIFEST = "synthetic.json"  # says what is in the directory; real checkpoints have no such file
_MAKER = "vram-bench synth"
_LOCK = ".lock"
_TIMEOUT_S = 600.0
_GIB = 1 << 30


@dataclass(frozen=True)
class Recipe:
    """All that the bytes of a checkpoint depend on; of `case` these are the model, `bpw` and `head_bits`.

    A sparse one has no values but the group tables.
    """

    case: Case
    seed: int
    shard_bytes: int
    sparse: bool

    def manifest(self, layout: Layout) -> dict[str, Any]:
        """The content of `MANIFEST`, which marks the directory as synthetic."""
        versions = installed_versions()
        column = engine_of(self.case.engine).version_column
        what = "all zeros" if self.sparse else "random"
        return {
            "weights": f"made up ({what}): for measuring memory and speed; what the model says means nothing",
            "made_by": _MAKER,
            "model": self.case.model.name,
            "architecture": self.case.model.architecture,
            "model_fingerprint": self.case.model.fingerprint,
            "bpw": self.case.bpw,
            "head_bits": self.case.head_bits,
            "seed": None if self.sparse else self.seed,
            "shard_bytes": self.shard_bytes,
            "layout_sha256": hashlib.sha256(layout.to_json().encode()).hexdigest(),
            "harness_version": versions["harness_version"],
            column: versions[column],
        }


def lay_out(case: Case) -> Layout:
    """The checkpoint of `case`'s model: as its weights have it, and without any as the engine would load it.

    Raises `BadInput` for a model that the engine refuses, and for weights that there are no random values of.
    """
    require_whole([case], to_be_read=case.model.has_weights)
    if case.model.has_weights and case.model.path is not None:
        try:
            return lay_out_like(Path(case.model.path))
        except CannotClone as error:
            raise BadInput(f"model={case.model.name}: {error}") from None
    return _ask_worker(case)


def _ask_worker(case: Case) -> Layout:
    with tempfile.TemporaryDirectory(prefix="vram-bench-") as folder:
        path = Path(folder) / "layout.json"
        launcher = make_launcher(SIMULATED, case.engine)
        try:
            ending = run_isolated(launcher, LayOut(case, path), Path(folder) / "log", _TIMEOUT_S)
        finally:
            launcher.close()
        if path.exists():
            return Layout.from_json(path.read_text())
    failure = last(ending.messages, Failure)
    if failure is not None:
        raise BadInput(f"model={case.model.name}: {failure.message}")
    raise RuntimeError(f"the worker that lays out the checkpoint died: {ending.log_tail.strip() or 'it said nothing'}")


def make(
    recipe: Recipe, layout: Layout, directory: Path, wrote: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, list[Tensor]]:
    """Makes `directory`, which must not exist, and returns the tensors of each of its files.

    It appears complete or not at all: until then it is `directory` with `.partial` added, and the same recipe goes on
    there with the files that are missing. `wrote` is called with the bytes written so far, and all. Raises `BadInput`
    for a directory that is there, a beginning of something else, and a disk that is too small.
    """
    require_free(directory)
    shards = split(layout.tensors, recipe.shard_bytes)
    documents = {
        **layout.documents,
        "config.json": {**layout.documents["config.json"], SYNTHETIC: _MAKER},
        **({"model.safetensors.index.json": index(shards)} if len(shards) > 1 else {}),
    }
    partial = directory.with_name(f"{directory.name}.partial")
    if not recipe.sparse:
        _require_room(partial, _missing(partial, shards))
    with _begun(partial, recipe.manifest(layout)):
        for name, document in documents.items():
            (partial / name).write_text(json.dumps(document, indent=2))
        _fill(partial, _missing(partial, shards), recipe, layout.size_bytes, wrote)
        partial.rename(directory)
        (directory / _LOCK).unlink(missing_ok=True)
    return shards


def require_free(directory: Path) -> None:
    """Raises `BadInput` where `directory` is already there."""
    if directory.exists() or directory.is_symlink():
        raise BadInput(f"--out={directory} is there already; give another directory, or delete it")


def _missing(partial: Path, shards: Mapping[str, list[Tensor]]) -> dict[str, list[Tensor]]:
    return {name: tensors for name, tensors in shards.items() if not (partial / name).exists()}


def _size_bytes(shards: Mapping[str, list[Tensor]]) -> int:
    return sum(tensor.size_bytes for tensors in shards.values() for tensor in tensors)


def _fill(
    partial: Path,
    shards: Mapping[str, list[Tensor]],
    recipe: Recipe,
    total_bytes: int,
    wrote: Callable[[int, int], None],
) -> None:
    done = total_bytes - _size_bytes(shards)
    chunks_of = tables_only if recipe.sparse else Values(recipe.seed).chunks

    def more(size_bytes: int) -> None:
        nonlocal done
        done += size_bytes
        wrote(done, total_bytes)

    for name, tensors in shards.items():
        with replaced(partial / name, sync=True, exclusive=True) as path:
            write_shard(path, tensors, chunks_of, {"weights": "made up", "made_by": _MAKER}, more)


@contextmanager
def _begun(partial: Path, manifest: dict[str, Any]) -> Iterator[None]:
    """Takes a directory that is being made, new or begun by the same recipe, for this process alone."""
    try:
        partial.mkdir(parents=True, exist_ok=True)
        lock = FileLock(partial / _LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        raise BadInput(f"{partial} is being written by another process; wait for it") from None
    except OSError as error:
        raise BadInput(f"{partial} cannot be made ({error.strerror}); give another directory with --out") from None
    try:
        path = partial / MANIFEST
        if not path.exists():
            path.write_text(json.dumps(manifest, indent=2))
        elif path.read_text() != json.dumps(manifest, indent=2):
            raise BadInput(f"{partial} is the beginning of another checkpoint; delete it, or give another --out")
        yield
    finally:
        lock.release()


def _require_room(partial: Path, shards: Mapping[str, list[Tensor]]) -> None:
    existing = next(path for path in partial.absolute().parents if path.exists())
    size_bytes, free_bytes = _size_bytes(shards), shutil.disk_usage(existing).free
    if size_bytes > free_bytes:
        raise BadInput(
            f"{size_bytes / _GIB:.2f} GiB are to be written to {existing}, where {free_bytes / _GIB:.2f} GiB are free; "
            "give another disk with --out, a smaller bpw, or --sparse"
        )
