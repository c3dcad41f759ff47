"""From a command line to settings: what Hydra composes, composed here where that is usual, and by Hydra elsewhere.

What most people type is composed without Hydra (usual_compose.py), all else by it (hydra_compose.py). Either checks the
names of keys, pydantic the values, for each combination.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from bench.config import drafts, explain, usual_compose
from bench.config.catalogue import NODES, Catalogue, config_dir, user_dir
from bench.config.conf_files import read
from bench.config.settings import DeviceSettings, ModelSettings, Settings
from bench.core.errors import BadInput

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["config_dir"]

_SEARCHPATH = "hydra.searchpath"
_DRAFT = "draft_model"  # which is composed apart (`drafts.py`)


@cache
def _adapter(schema: type) -> TypeAdapter[Any]:
    """What checks values by a schema; making it takes 50 ms of CPU."""
    return TypeAdapter(schema)


def names(group: str) -> list[str]:
    """The names of a group of the program's own catalogue, `model` or `device`."""
    return Catalogue().names(group)


def listed(group: str, overrides: Sequence[str]) -> list[str]:
    """The names of one model or one card each, also those in the folders that `overrides` name."""
    if not overrides:
        return Catalogue([user_dir()] if user_dir().is_dir() else []).listed(group)
    from bench.config import hydra_compose

    return hydra_compose.listed(group, overrides)


def device_settings(name: str) -> DeviceSettings:
    """One file of conf/device, without composing anything."""
    found: DeviceSettings = _adapter(DeviceSettings).validate_python(read(config_dir() / "device" / f"{name}.yaml"))
    return found


def model_settings(name: str) -> ModelSettings:
    """One file of conf/model, in the same way."""
    found: ModelSettings = _adapter(ModelSettings).validate_python(read(config_dir() / "model" / f"{name}.yaml"))
    return found


def combinations(overrides: Sequence[str]) -> list[dict[str, Any]]:
    """Every combination of a sweep's overrides, as plain data in the shape of `Settings`, `hydra.*` left out.

    Combinations of the same model or device share its data; they are not to be changed.
    Raises `BadInput` for what Hydra refuses.
    """
    mine, of_draft = drafts.taken_out(_last_of_each(overrides))
    found, by_experiment = _combinations(mine)
    given = {text.partition("=")[0] for text in of_draft}
    _, of_experiment = drafts.taken_out(by_experiment)
    of_draft += [text for text in of_experiment if text.partition("=")[0] not in given]
    searched = [text for text in mine if text.lstrip("+").startswith(f"{_SEARCHPATH}=")]
    drafted = drafts.drafts_of(of_draft, lambda asked: _combinations([*asked, *searched])[0])
    is_asked = any(text.startswith("draft=") for text in (*mine, *by_experiment))
    return drafts.with_drafts(found, drafted, is_asked)


def _last_of_each(overrides: Sequence[str]) -> list[str]:
    """Without what is said once more further on: the last word counts, as Hydra has it, also of several values and one.

    What adds to a key or takes it away (`+`, `~`) stays, as does what Hydra has for itself.
    """
    last = {text.partition("=")[0]: number for number, text in enumerate(overrides)}
    return [
        text
        for number, text in enumerate(overrides)
        if last[key := text.partition("=")[0]] == number or key.startswith(("+", "~", "hydra"))
    ]


def _combinations(overrides: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """The combinations without draft models, and what an experiment makes an axis, as it would be typed."""
    if (found := usual_compose.combinations(overrides)) is not None:
        return found
    from bench.config import hydra_compose

    return hydra_compose.combinations(overrides)


def composed(overrides: Sequence[str]) -> str:
    """The first combination of `overrides` as YAML, with a line that says how many there are. Raises `BadInput`."""
    found = combinations(overrides)
    validate(found[0])
    from omegaconf import OmegaConf

    return f"# the first of {len(found):,} combinations\n{OmegaConf.to_yaml(OmegaConf.create(found[0]))}"


def validate(settings: dict[str, Any]) -> Settings:
    """The settings of one combination, within their ranges; raises `BadInput`."""
    try:
        found: Settings = _adapter(Settings).validate_python(settings)
    except ValidationError as error:
        raise BadInput(explain.invalid(error)) from error
    return found


def validate_all(combinations: Sequence[dict[str, Any]]) -> list[Settings]:
    """`validate` for each. Combinations that share the data of a model or a device share its settings, too.

    Each key is validated by itself, so a combination of values that were all seen in others needs no second look.
    """
    validated = defaultdict[str, dict[int, Any]](dict)  # by the identity of what was given
    found = []
    for plain in combinations:
        if any(id(value) not in validated[key] for key, value in plain.items()):
            # pydantic takes an instance as it is, so each model and each device is validated only once.
            nodes = {key: validated[key].get(id(plain[key]), plain[key]) for key in (*NODES, _DRAFT) if key in plain}
            settings = validate({**plain, **nodes})
            for key, value in plain.items():
                validated[key].setdefault(id(value), getattr(settings, key))
        found.append(Settings(**{key: validated[key][id(value)] for key, value in plain.items()}))
    return found


def launcher_override(overrides: Sequence[str]) -> str | None:
    """The name of the Hydra launcher that was asked for, here or by an experiment, if one was."""
    mine, of_draft = drafts.taken_out(overrides)
    if usual_compose.is_usual(mine):
        return None
    from bench.config import hydra_compose

    return hydra_compose.launcher_override(mine, bool(of_draft))


def hydras_own(overrides: Sequence[str]) -> DictConfig:
    """What Hydra composes of its own part, `hydra`, with all that was said of a launcher. Raises `BadInput`."""
    from bench.config import hydra_compose

    mine, _ = drafts.taken_out(overrides)
    return hydra_compose.hydras_own(mine)
