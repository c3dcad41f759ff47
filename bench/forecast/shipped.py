"""The recordings that come with the program: what it predicts with where no engine is installed.

A file a model and engine, made by `scripts/renew/recordings.py`; in it recordings have the names that the library has
for them (`library.py`). What is damaged or of another version is as if it were not there. Where the engine is
installed, so is what this program's own sources would record otherwise by now.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.case import ModelSpec, version_column
from bench.forecast.packs import Unreadable, packed, read_pack, unpacked, write_pack
from bench.launch.versions import installed_versions, recording_digest
from bench.trace.passes import NoPrediction

if TYPE_CHECKING:
    from bench.trace.template import Array

FOLDER = Path(__file__).parent / "recordings"
_NAMES = "names "  # begins the name of a block that has the names of a checkpoint's tensors, for all bits


@dataclass(frozen=True)
class Origin:
    """What a file was made with: the versions that decide, and a digest of this program's own sources that do."""

    model: str
    fingerprint: str
    engine: str
    engine_version: str | None
    torch_version: str | None
    sources: str

    @staticmethod
    def now(model: ModelSpec, engine: str) -> Origin:
        """That of what would be recorded here."""
        versions = installed_versions()
        torch = versions["torch_version"]
        return Origin(
            model=model.name,
            fingerprint=model.fingerprint,
            engine=engine,
            engine_version=versions[version_column(engine)],
            torch_version=torch and torch.partition("+")[0],  # a build for another CUDA asks for the same
            sources=recording_digest(engine),
        )

    def holds(self, now: Origin) -> bool:
        """Whether it would be recorded so here, or, for want of the engine, nobody can tell."""
        if now.engine_version is None or now.torch_version is None:
            return (self.fingerprint, self.engine) == (now.fingerprint, now.engine)
        return replace(self, model=now.model) == now


class Shipped:
    """The recordings in a folder. Those of a model are known once it was asked for one of them."""

    def __init__(self, folder: Path = FOLDER, any_origin: bool = False) -> None:
        """With `any_origin` also what would be recorded otherwise by now."""
        self._folder = folder
        self._any_origin = any_origin
        self._blocks: dict[str, bytes] = {}
        self._read = cache(self._read_once)

    def has(self, model: ModelSpec, engine: str, name: str) -> bool:
        """Whether a recording of the model's is there and may be used."""
        self.look_for(model, engine)
        return name in self._blocks

    def look_for(self, model: ModelSpec, engine: str) -> None:
        """Has the recordings of a model be known, if there are any."""
        self._read(engine, model)

    def arrays(self, name: str) -> tuple[dict[str, Any], dict[str, Array]]:
        """As `bench.trace.parametric.load_arrays`. Raises FileNotFoundError."""
        about, arrays = unpacked(self._block(name))
        if "reason" in about:
            raise NoPrediction(about["reason"])
        return about, arrays

    def tensor_bytes(self, name: str) -> dict[str, int]:
        """As `bench.trace.parametric.load_tensor_bytes`. Raises FileNotFoundError."""
        about, arrays = self.arrays(name)
        names, _ = unpacked(self._block(about["names"]))
        return dict(zip(names["names"], arrays["sizes"].tolist(), strict=True))

    def _block(self, name: str) -> bytes:
        if name not in self._blocks:
            raise FileNotFoundError(name)
        return self._blocks[name]

    def _read_once(self, engine: str, model: ModelSpec) -> None:
        try:
            told, blocks = read_pack(path_of(self._folder, engine, model.fingerprint))
            if self._any_origin or Origin(**told).holds(Origin.now(model, engine)):
                self._blocks.update(blocks)
        except (OSError, Unreadable, TypeError):
            return


def path_of(folder: Path, engine: str, fingerprint: str) -> Path:
    """Where the recordings of a model are."""
    return folder / f"{engine}-{fingerprint[:16]}.recordings"


def ship(
    folder: Path,
    origin: Origin,
    traces: dict[str, tuple[dict[str, Any], dict[str, Array]]],
    tensors: dict[str, dict[str, int]],
) -> Path:
    """Writes the recordings of a model by their names: traces (a document, and arrays), and tensors' sizes."""
    import numpy as np

    blocks = {name: packed(*trace) for name, trace in sorted(traces.items())}
    known: dict[tuple[str, ...], str] = {}
    for name, sizes in sorted(tensors.items()):
        own = known.setdefault(tuple(sizes), f"{_NAMES}{len(known)} {origin.fingerprint[:16]}")
        blocks[own] = packed({"names": list(sizes)}, {})
        blocks[name] = packed({"names": own}, {"sizes": np.array([*sizes.values()], np.int64)})
    path = path_of(folder, origin.engine, origin.fingerprint)
    write_pack(path, asdict(origin), blocks)
    return path
