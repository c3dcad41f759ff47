"""Names of people, machines and folders, and what stands for each of them: the same wherever it is written.

What stands for a card's UUID follows from it, so that a card is the same one in all packs; a UUID cannot be guessed.
A host's name can, so what stands for it follows from its cards' UUIDs too, or from chance where it has none.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from functools import cached_property

_DIGITS = 8
# What tells nothing of anybody: folders that every system has.
_ROOTS = {"/root", "/tmp", "/home", "/opt", "/mnt", "/data", "/var", "/srv"}
_PUBLIC = ("/usr/", "/lib/", "/lib64/", "/bin/", "/sbin/", "/proc/", "/sys/", "/dev/", "/etc/")
# From here on a path is the same on all machines, and says what has failed.
_PACKAGES = re.compile(r"/(?:site-packages|dist-packages)/|/python3\.\d+/")
_PATH = re.compile(r"(?<![\w.~])~?(?:/[^\s/:;,'\"<>|()\[\]{}\\]+)+/?")
_UUID = re.compile(r"\b((?:GPU|MIG)-)([0-9A-Za-z][0-9A-Za-z-]*)")
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_ADDRESS = re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}\b")
_LEAST_LETTERS = 2  # of a name that is looked for in texts: `a` is in all of them
_NO_NAMES = {"root", "user", "localhost", "unknown", "none", "simulated", "cuda"}


class Hidden:
    """What is hidden in the texts of some rows: `hosts`, each with the UUIDs of its cards, `users`, paths and UUIDs."""

    def __init__(self, hosts: Mapping[str, Iterable[str]], users: Iterable[str]) -> None:
        self._names = {
            host: f"host-{_mark(host, *sorted(uuids) or [secrets.token_hex()])}" for host, uuids in hosts.items()
        }
        for host in list(self._names):  # a log may have either form of it
            self._names.setdefault(host.partition(".")[0], self._names[host])
        self._names |= {user: "user" for user in users if user not in _NO_NAMES and len(user) >= _LEAST_LETTERS}
        self._salt = secrets.token_hex()
        self.paths: set[str] = set()

    def host(self, name: str) -> str:
        """What stands for a host."""
        return self._names[name]

    def text(self, text: str) -> str:
        """A text without any of them."""
        text = _UUID.sub(lambda found: uuid(found[0]), text)
        text = _EMAIL.sub("EMAIL", text)
        text = _ADDRESS.sub(lambda found: found[0] if _is_version(text, found) else "ADDRESS", text)
        text = _PATH.sub(lambda found: self._path(found[0]), text)
        return self._any_name.sub(lambda found: self._names[found[0]], text) if self._names else text

    def left_in(self, text: str) -> str | None:
        """A name that is still there; None where there is none."""
        found = self._any_name.search(text) if self._names else None
        return found[0] if found else None

    @cached_property
    def _any_name(self) -> re.Pattern[str]:
        longest_first = sorted((name for name in self._names if len(name) >= _LEAST_LETTERS), key=len, reverse=True)
        names = "|".join(map(re.escape, longest_first)) or r"(?!)"
        return re.compile(rf"(?<![A-Za-z0-9])(?:{names})(?![A-Za-z0-9])")

    def _path(self, path: str) -> str:
        if f"{path}/".startswith(_PUBLIC) or path.rstrip("/") in _ROOTS:
            return path
        self.paths.add(path)
        package = _PACKAGES.search(path)
        tail = path[package.start() :] if package else ""
        return f"PATH-{_mark(path[: package.start()] if package else path, self._salt)}{tail}"


def uuid(text: str) -> str:
    """What stands for a card's UUID, or for each of several in one text."""
    return _UUID.sub(lambda found: f"{found[1]}{_mark(found[2])}", text)


def users_here(texts: Iterable[str]) -> set[str]:
    """The user who asks, and those whose home is named in `texts`."""
    own = {os.environ.get(name, "") for name in ("USER", "LOGNAME", "SUDO_USER")}
    homes = {os.path.basename(os.path.expanduser("~"))}
    found = {name for text in texts for name in re.findall(r"/(?:home|Users|scratch|users)/([^/\s:\"',]+)", text)}
    return {name for name in own | homes | found if name}


def _is_version(text: str, found: re.Match[str]) -> bool:
    """Whether what looks like an address is the number of a version: `12.8.93.1` of a package."""
    before = text[max(0, found.start() - 12) : found.start()].lower()
    return before.rstrip().endswith(("version", "driver", "cuda", "==", "v"))


def _mark(*values: str) -> str:
    return hashlib.sha256("\0".join(values).encode()).hexdigest()[:_DIGITS]
