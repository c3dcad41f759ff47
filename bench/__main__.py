"""vram-bench: what fits on a GPU, measured on a real one or computed on a simulated one.

Each command imports what it needs and no more: help, reports and the parent of a sweep never import torch.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Protocol

from bench.commands.command_line import parse
from bench.core.encoding import fall_back
from bench.core.errors import BadInput, ExitCode
from bench.core.extras import missing
from bench.core.left_readers import outlive_readers
from bench.core.printable import printable

_LINE = "\n"  # of which an explanation may have two
# After so many it is looked for garbage, of which imports make none: by default, after 700, a tenth of a plan's time.
_NEW_OBJECTS = 50_000


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    gc.set_threshold(_NEW_OBJECTS)
    outlive_readers()
    fall_back()
    arguments = parse(argv)
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, _interrupt)
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:
        if arguments.debug or os.environ.get("HYDRA_FULL_ERROR") == "1":
            traceback.print_exc()
        if isinstance(error, BadInput):
            print(f"vram-bench: {printable(str(error), keep=_LINE)}", file=sys.stderr)
            return ExitCode.BAD_INPUT
        said = printable(str(error), keep=_LINE)
        print(f"vram-bench: {type(error).__name__}: {said}\n(--debug shows where)", file=sys.stderr)
        return ExitCode.PROBLEMS


def _interrupt(*_: object) -> None:
    """Being told to end is like Ctrl-C: what is finished is kept."""
    raise KeyboardInterrupt


def _run(arguments: argparse.Namespace) -> int:
    if "overrides" in arguments and arguments.config_dir is not None:
        from bench.config.typed import searched

        arguments.overrides.append(searched(arguments.config_dir))
    arguments.setup = None
    if getattr(arguments, "tabby", None) is not None or getattr(arguments, "webui", None) is not None:
        from bench.setups.read import read_setup

        arguments.setup = read_setup(arguments.tabby, arguments.webui, arguments.overrides)
        arguments.overrides = arguments.setup.overrides
    if getattr(arguments, "cfg", None):
        from bench.config.compose import composed

        print(composed(arguments.overrides), end="")
        return ExitCode.DONE
    try:
        command: Command = importlib.import_module(arguments.module)
        return command.run(arguments)
    except ModuleNotFoundError as error:
        raise missing(error, arguments.command) or error from error


class Command(Protocol):
    """A file of `bench.commands`."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Does what was asked for and returns the exit code. Raises `BadInput`."""


if __name__ == "__main__":
    sys.exit(main())
