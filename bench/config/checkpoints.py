"""What a table of quantisations is about: branches of a repository, folders of a folder, or bits of a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.config.bits import head_bits
from bench.config.compose import names
from bench.config.models import engine_of_weights
from bench.config.settings import ModelSettings
from bench.config.typed import quoted
from bench.core.case import ModelSpec
from bench.core.errors import BadInput, nearest
from bench.tensor_files import read_header

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_USUAL_BITS = "3.0,4.0,5.0,6.0,8.0"


@dataclass(frozen=True)
class Checkpoints:
    """The keys that name them all, as one would type them, and the engine; `labels` are their names, by their place.

    A place is that of a model's directory, or for a model without weights nothing: its bits tell it from others.
    `left_out` are branches and folders without weights.
    """

    title: str
    overrides: list[str]
    engine: str | None
    labels: dict[str, str]
    left_out: list[str]
    is_hub: bool = False


def files_of(model: ModelSpec) -> tuple[int | None, float | None]:
    """The bytes of the files of weights, and the bits of the output layer; None where there are none."""
    if model.path is None or not model.has_weights:
        return None, None
    files = sorted(Path(model.path).glob("*.safetensors"))
    entries = {name: entry for file in files for name, entry in read_header(file).items()}
    return sum(file.stat().st_size for file in files), head_bits(entries)


def checkpoints_of(source: str, typed: Sequence[str]) -> Checkpoints:
    """Those that `source` names: a folder, a name of the catalogue, or ORG/NAME of a hub. Raises `BadInput`."""
    if source.startswith((".", "/", "~")) or Path(source).is_dir():
        return _of_folder(source)
    if source in names("model") and source not in ("local", "hub"):
        asks_for_bits = any(text.startswith("bpw=") for text in typed)
        return Checkpoints(
            source, [f"model={source}", *([] if asks_for_bits else [f"bpw={_USUAL_BITS}"])], None, {}, []
        )
    if _REPOSITORY.fullmatch(source):
        return _of_hub(source, typed)
    raise BadInput(
        f"{source}: give ORG/NAME of a hub, a folder of checkpoints (./DIR), or a name of the catalogue. "
        f"{nearest(source, [name for name in names('model') if name not in ('local', 'hub')])}"
    )


def _of_folder(source: str) -> Checkpoints:
    folder = Path(source).expanduser().absolute()
    if not folder.is_dir():
        raise BadInput(f"{source}: no such folder")
    inside = (
        [folder] if (folder / "config.json").is_file() else sorted(each for each in folder.iterdir() if each.is_dir())
    )
    found = [each for each in inside if (each / "config.json").is_file() and any(each.glob("*.safetensors"))]
    if not found:
        raise BadInput(
            f"{source}: no folder in it has a config.json and *.safetensors; give such a folder, or the one above"
        )
    engine = _one_engine(source, {each.name: ModelSettings(name="local", path=str(each)) for each in found})
    paths = ",".join(quoted(str(each)) for each in found)
    labels = {str(each.resolve()): each.name for each in found}
    left_out = [each.name for each in inside if each not in found]
    return Checkpoints(folder.name, ["model=local", f"model.path={paths}"], engine, labels, left_out)


def _of_hub(repo: str, typed: Sequence[str]) -> Checkpoints:
    from bench.config import hub

    asked = [text.partition("=")[2] for text in typed if text.startswith("model.revision=")]
    branches = hub.checkpoints(repo, asked[-1].split(",") if asked else ())
    found = [name for name, is_there in branches.items() if is_there]
    if not found:
        told = ", ".join(branches) or "none"
        raise BadInput(
            f"{repo}: none of its branches ({told}) has a config.json and weights; give a model's own repository"
        )
    engine = _one_engine(repo, {name: ModelSettings(name="hub", repo=repo, revision=name) for name in found})
    labels = {str(hub.resolve(repo, name).directory.resolve()): name for name in found}
    overrides = ["model=hub", f"model.repo={repo}", f"model.revision={','.join(map(quoted, found))}"]
    left_out = [name for name, is_there in branches.items() if not is_there]
    return Checkpoints(repo, overrides, engine, labels, left_out, is_hub=True)


def _one_engine(source: str, checkpoints: dict[str, ModelSettings]) -> str:
    """The engine of the weights of them all. Raises `BadInput` where they are of several."""
    engines: dict[str, list[str]] = {}
    for name, settings in checkpoints.items():
        engines.setdefault(engine_of_weights(settings), []).append(name)
    if len(engines) > 1:
        told = "; ".join(f"{engine}: {', '.join(those)}" for engine, those in engines.items())
        raise BadInput(
            f"{source}: weights of several engines ({told}), and a table is of one; name branches by "
            "model.revision=a,b, or give the folders of one"
        )
    return next(iter(engines))
