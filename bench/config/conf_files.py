"""Files of conf, as plain data: those that come with the program are read by libyaml, in a twentieth of the time.

OmegaConf reads YAML in pure Python, by rules of its own: 1e5 is a number, and a date is text. The program's own files
mean the same by either, which a test says of each; any other file is left to OmegaConf.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from bench.config.catalogue import config_dir

Reader = Callable[[Path | None, str], dict[str, Any] | None]  # as `read_alone`, which may remember

_EXPONENT = re.compile(r"[-+]?[0-9]+(_[0-9]+)*(\.[0-9_]*)?[eE][-+]?[0-9]+$")  # 1e5, which is text to PyYAML
_FLOAT_TAG, _DATE_TAG = "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp"


def read(path: Path) -> Any:
    """What a file says, references as they are written.

    Raises OSError, `yaml.YAMLError`, ValueError or OmegaConf's errors for a file that is no such document.
    """
    if path.is_relative_to(config_dir()):
        import yaml

        return yaml.load(path.read_text(encoding="utf-8"), Loader=_loader())
    from omegaconf import OmegaConf

    content = OmegaConf.load(path)
    return OmegaConf.to_container(content)


def unreadable() -> tuple[type[Exception], ...]:
    """What `read` raises."""
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    return (OSError, ValueError, YAMLError, OmegaConfBaseException)


def read_alone(path: Path | None, package: str) -> dict[str, Any] | None:
    """A file of conf that speaks of `package`, and refers to nothing outside itself; None for any other."""
    if path is None:
        return None
    text = path.read_text(encoding="utf-8")
    content = read(path)
    elsewhere = set(re.findall(r"@package\s+(\S+)", text)) - {package}
    if elsewhere or "${" in text or not isinstance(content, dict) or "defaults" in content:
        return None
    return content


@cache
def _loader() -> Any:
    """Libyaml's loader with OmegaConf's rules; PyYAML's own where it was built without libyaml."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        pass

    Loader.add_implicit_resolver(_FLOAT_TAG, _EXPONENT, list("-+0123456789"))
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in known if tag != _DATE_TAG]
        for first, known in Loader.yaml_implicit_resolvers.items()
    }
    return Loader
