"""Where models, cards and experiments are described: in the program's own folder, and in those of the user."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

from platformdirs import user_config_path

from bench.core.errors import BadInput

GROUPS = ("model", "device", "experiment")
NODES = ("model", "device")  # the groups whose files are one node of the configuration
# Files that need other keys, which say what directory, repository or GPU is meant.
WAYS = {"model": ("local", "hub"), "device": ("auto", "cuda")}
_SUFFIXES = (".yaml", ".yml")


def config_dir() -> Path:
    """The `conf` directory: inside an installed package, or beside it in the repository."""
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "conf", package.parent / "conf"):
        if (candidate / "config.yaml").exists():
            return candidate
    raise BadInput(f"no conf directory beside {package}; reinstall vram-bench")


def user_dir() -> Path:
    """The folder of the user's own files, which need not exist: ~/.config/vram-bench on Linux."""
    return user_config_path("vram-bench", appauthor=False)


@dataclass
class Catalogue:
    """Files of the groups, by name. `own_folders` are the user's, laid out like `conf`; `own_files` have been named by
    their paths, and are found by the names that `adopt` gives them. `machines` are devices
    of several cards, as they were asked for.
    """

    own_folders: list[Path] = field(default_factory=list)
    own_files: dict[tuple[str, str], Path] = field(default_factory=dict)
    machines: dict[str, dict[str, object]] = field(default_factory=dict)

    def names(self, group: str) -> list[str]:
        """The names in a group, files that were named by their paths left out."""
        return sorted({file.stem for folder in self._folders() for file in (folder / group).glob("*.yaml")})

    def listed(self, group: str) -> list[str]:
        """The names that stand for one model or one simulated card."""
        return [name for name in self.names(group) if name not in WAYS.get(group, ())]

    def known(self, group: str) -> list[str]:
        """What `all` and `glob(…)` choose from: those of `listed` of which enough is known to plan with them."""
        return [name for name in self.listed(group) if (file := self.find(group, name)) and _is_known(file)]

    def find(self, group: str, name: str) -> Path | None:
        """The file of a name. Raises `BadInput` where two folders have one of that name."""
        if (group, name) in self.own_files:
            return self.own_files[group, name]
        found = [file for folder in self._folders() if (file := folder / group / f"{name}.yaml").is_file()]
        if len(found) > 1:
            raise BadInput(f"{group}={name}: both {found[0]} and {found[1]}; give yours another name")
        return found[0] if found else None

    def adopt(self, group: str, path: Path) -> str:
        """A name for a file that was named by its path."""
        name = f"{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
        self.own_files[group, name] = path
        return name

    def stem(self, group: str, name: str) -> str:
        """The name of a file of the catalogue, or the stem of a file that was named by its path."""
        return self.own_files[group, name].stem if (group, name) in self.own_files else name

    def _folders(self) -> list[Path]:
        return [config_dir(), *self.own_folders]


def _is_known(file: Path) -> bool:
    """Whether a file that describes a model by its config says which architecture it has."""
    text = file.read_text(encoding="utf-8")
    return "architectures:" in text or re.search(r"^config:", text, re.MULTILINE) is None


def own_file(group: str, name: str) -> Path | None:
    """The file that `group=name` names by its path, if it does. Raises `BadInput` where there is none."""
    if not name.endswith(_SUFFIXES):
        return None
    path = Path(name).expanduser()
    if not path.is_file():
        raise BadInput(f"{group}={name}: no such file")
    return path


def folder_of(url: str) -> Path:
    """The folder that an entry of hydra.searchpath names. Raises `BadInput`."""
    folder = Path(url.removeprefix("file://")).expanduser()
    if not folder.is_dir():
        raise BadInput(f"{url}: no such folder; name one with model/, device/ or experiment/ in it, as conf has them")
    return folder.resolve()
