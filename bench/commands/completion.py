"""`vram-bench completion`: a script that completes commands, options, keys and names; the only door to shtab."""

from __future__ import annotations

import argparse
from dataclasses import fields

import shtab

from bench.commands.command_line import commands_of, make_parser
from bench.config import compose as config
from bench.config.settings import Attention, Cache, DeviceSettings, ModelSettings, Settings
from bench.core.errors import ExitCode


def run(arguments: argparse.Namespace) -> int:
    """`vram-bench completion SHELL`."""
    return completion(arguments.shell)


def completion(shell: str) -> int:
    """Prints the script for `shell`; returns the exit code."""
    parser = make_parser()
    for command in commands_of(parser).values():
        for action in command._actions:
            if action.dest == "overrides":
                action.choices = _words()
            elif action.metavar == "DIR":
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
            elif action.metavar in ("FILE", "FILE.md", "BASE", "HEAD"):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, shell))
    return ExitCode.DONE


def _words() -> list[str]:
    """The beginnings of overrides, and the whole of those with few values."""
    named = [f"{group}={name}" for group in ("model", "device", "experiment") for name in config.names(group)]
    members = [f"cache={cache.value}" for cache in Cache] + [f"attention={one.value}" for one in Attention]
    flags = [f"{key}={value}" for key in ("lazy", "rerun") for value in ("true", "false")]
    keys = [f"{member.name}=" for member in fields(Settings)]
    keys += [f"model.{member.name}=" for member in fields(ModelSettings) if member.name != "config"]
    keys += [f"device.{member.name}=" for member in fields(DeviceSettings) if member.name != "sources"]
    return sorted({*named, *members, *flags, *keys})
