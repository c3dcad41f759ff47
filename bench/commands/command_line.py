"""The commands and their options, as argparse reads them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.commands import help_texts as texts
from bench.engines.registry import titles

_NO_CONF = "the configuration is the program's own; files of yours are added by --config-dir DIR"
# Options of Hydra's that mean nothing here, and what to do instead.
_OF_HYDRA = {
    **dict.fromkeys(("--info", "-i"), "`plan` says what would be run, --cfg job what is composed"),
    **dict.fromkeys(("--config-path", "-cp", "--config-name", "-cn"), _NO_CONF),
    **dict.fromkeys(("--run", "-r"), "a sweep of one combination is `sweep` with one value for each key"),
    **dict.fromkeys(("--resolve", "--package", "-p"), "--cfg job shows the whole, with all references resolved"),
    **dict.fromkeys(("--shell-completion", "-sc"), "`vram-bench completion SHELL` prints a script"),
    "--hydra-help": "`vram-bench COMMAND --help` lists the keys",
    "--experimental-rerun": "the same command again runs what is missing; rerun=true runs all",
}
OWN_TABLE = Path()  # what --published reads where no file is named


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments. Errors end the program with exit code 2, the usage of the command above them."""
    parser = make_parser()
    arguments, rest = parser.parse_known_args(argv)
    if arguments.command is None:
        parser.print_help()
        parser.exit(2)
    command = commands_of(parser)[arguments.command]
    if rest and ("overrides" not in arguments or any(word.startswith("-") for word in rest)):
        option = next((word for word in rest if word.startswith("-")), rest[0])
        advice = _OF_HYDRA.get(option.partition("=")[0]) if "overrides" in arguments else None
        command.error(f"{option}: {advice}" if advice else f"unrecognized argument: {option}")
    if "overrides" in arguments:
        arguments.overrides += rest  # argparse by itself takes none after an option that follows others
    if getattr(arguments, "cfg", None) not in (None, "job"):
        command.error(f"--cfg {arguments.cfg}: only `--cfg job` is shown")
    if "results" in arguments:
        _take_folder(arguments, command)
    if "published" in arguments:
        _check_validate(arguments, command)
    return arguments


def _take_folder(arguments: argparse.Namespace, command: argparse.ArgumentParser) -> None:
    """The results of `report` are named with --results or without."""
    folders, named = arguments.folder, arguments.results or []
    if folders and named and folders != named:
        command.error(f"--results {' '.join(map(str, named))} and {' '.join(map(str, folders))}: name them in one way")
    arguments.results = list(dict.fromkeys(folders or named or [Path("results")]))


def _check_validate(arguments: argparse.Namespace, command: argparse.ArgumentParser) -> None:
    """`validate` does one thing: a WHAT, or --published."""
    if arguments.page is not None and arguments.published is None:
        command.error("--out: of what? it goes with --published FILE.csv")
    if arguments.what is None and arguments.published is None:
        command.error("say what: rows, record, replay, or --published")
    if arguments.what is not None and (arguments.published or arguments.page):
        command.error(f"--published and {arguments.what}: give one of them")


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole program."""
    parser = argparse.ArgumentParser(
        prog="vram-bench",
        description=f"What fits on a GPU with {titles()}: measured on a real card, or computed on a simulated one.",
        epilog=f"example: {texts.EXAMPLES['sweep']}",
        formatter_class=texts.Formatter,
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.add_argument("--version", action="version", version=f"vram-bench {_version()}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, summary: str, description: str, file: str | None = None) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=summary,
            description=description,
            epilog=f"example: {texts.EXAMPLES[name]}",
            formatter_class=texts.Formatter,
        )
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
        sub.set_defaults(module=f"bench.commands.{file or name}")  # imported when it is called: it may need much
        return sub

    plan = command("plan", "predict, without measuring", texts.PLAN)
    _add_overrides(plan)
    _add_setups(plan)
    _add_json(plan)
    sweep = command("sweep", "measure", texts.SWEEP)
    _add_overrides(sweep)
    _add_setups(sweep)
    _add_json(sweep)
    card = command("card", "a table for a model card", texts.CARD)
    card.add_argument(
        "source", metavar="SOURCE", help="ORG/NAME of a hub, a folder of checkpoints, or a catalogue's name"
    )
    _add_overrides(card)
    card.add_argument("--out", type=Path, metavar="FILE.md", help="write the table there; default: standard output")
    _add_recommend(command("recommend", "what to run on a card", texts.RECOMMEND))
    _add_synth(command("synth", "write a checkpoint with random weights", texts.SYNTH))
    _add_report(command("report", "regenerate the tables and plots", texts.REPORT))
    share = command("share", "pack rows to be sent to others", texts.SHARE)
    share.add_argument("folder", nargs="*", type=Path, metavar="DIR", help="the results; default: results")
    share.add_argument("--out", type=Path, default=Path("shared.zip"), metavar="FILE.zip", help="default: shared.zip")
    share.set_defaults(results=None)
    _add_json(share)
    _add_compare(command("compare", "what changed between two result sets", texts.COMPARE))
    listing = command("list", "the models and cards that can be named", texts.LIST, "listing")
    listing.add_argument("what", nargs="?", choices=("models", "devices"), help="default: both")
    listing.add_argument("--config-dir", "-cd", metavar="DIR", help="a folder of your own files beside the catalogue")
    _add_json(listing)
    doctor = command("doctor", "what this machine has", texts.DOCTOR)
    doctor.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of --self-test: device, engine, vram_limit")
    doctor.add_argument("--self-test", action="store_true", help="take known sizes on a card, and check what is told")
    doctor.add_argument("--config-dir", "-cd", metavar="DIR", help="a folder of your own cards")
    _add_json(doctor)
    _add_validate(command("validate", "simulated cards against what a real one measured", texts.VALIDATE))
    completion = command("completion", "a script that completes in your shell", texts.COMPLETION)
    completion.add_argument("shell", choices=("bash", "zsh", "fish", "tcsh"))
    return parser


def _add_keys(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="keys and values; text as you type it")
    parser.add_argument("--config-dir", "-cd", metavar="DIR", help="a folder of your own models, cards and experiments")


def _add_overrides(parser: argparse.ArgumentParser) -> None:
    _add_keys(parser)
    parser.add_argument("--cfg", "-c", metavar="job", help="show what the first combination is composed of, and end")
    # Hydra's way to say what is always meant here.
    parser.add_argument("-m", "--multirun", action="store_true", help=argparse.SUPPRESS)


def _add_setups(parser: argparse.ArgumentParser) -> None:
    setups = parser.add_mutually_exclusive_group()
    setups.add_argument("--tabby", type=Path, metavar="FILE", help="TabbyAPI's config.yml: does it fit, and how far")
    setups.add_argument("--webui", metavar="FLAGS", help="text-generation-webui's flags, in quotes: the same")


def _add_json(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _add_synth(parser: argparse.ArgumentParser) -> None:
    _add_overrides(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the model directory to make")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument("--shard-size", default="8GiB", metavar="SIZE", help="of each file at most; default: 8GiB")
    parser.add_argument("--sparse", action="store_true", help="no values: all weights are zero and take no disk")


def _add_recommend(parser: argparse.ArgumentParser) -> None:
    _add_keys(parser)
    parser.add_argument("--top", type=int, default=10, metavar="N", help="how many predicted models; default: 10")
    parser.add_argument("--record", action="store_true", help="also models that must be recorded first; takes minutes")
    parser.add_argument("--headroom", metavar="SIZE", help="what a card should have to spare; default: 512MiB")
    parser.add_argument(
        "--quality", type=Path, metavar="FILE", help="CSV: model,bpw,cache,quality; default: published ones"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="write the tables there, as Markdown")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--markdown", action="store_true", help="the tables as Markdown, for a wiki")
    _add_json(output)


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        nargs="*",
        type=Path,
        metavar="DIR",
        help="the results, of several sweeps or hosts, or what `share` has packed; default: results",
    )
    parser.add_argument("--results", type=Path, metavar="DIR", action="append", help="the same")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: report, below the results; of several here, in this folder"
    )
    parser.add_argument(
        "--context", metavar="N[,N]", help="lengths to recommend for, as 8192 or 8k; default: 8192,32768,131072"
    )
    parser.add_argument("--headroom", metavar="SIZE", help="what a card should have to spare; default: 512MiB")
    parser.add_argument(
        "--quality", type=Path, metavar="FILE", help="CSV: model,bpw,cache,quality; default: published ones"
    )
    _add_json(parser)


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("base", type=Path, metavar="BASE", help="what was: a directory or a parquet file")
    parser.add_argument("head", type=Path, metavar="HEAD", help="what is")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="also write the report as Markdown")
    parser.add_argument(
        "--max-vram-growth", default="0", metavar="SIZE", help="a peak may grow by: 64MiB, 1%% (default: 0)"
    )
    parser.add_argument(
        "--max-boundary-loss", default="0", metavar="PAGES", help="a boundary may fall by: 2, 1%% (default: 0)"
    )
    parser.add_argument(
        "--max-slowdown", default="5%", metavar="PERCENT", help="a speed may take longer by (default: 5%%)"
    )
    parser.add_argument("--allow-missing", action="store_true", help="HEAD may lack what BASE has")
    parser.add_argument("--allow-driver-change", action="store_true", help="compare in spite of another driver")
    parser.add_argument(
        "--allow-model-change", action="store_true", help="compare a model with another quantisation of it"
    )
    _add_json(parser)


def _add_validate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--published",
        nargs="?",
        type=Path,
        const=OWN_TABLE,
        metavar="FILE.csv",
        help="figures that others have published; default: the project's own table",
    )
    parser.add_argument("--out", type=Path, metavar="FILE.md", dest="page", help="with --published FILE.csv, the page")
    what = parser.add_subparsers(dest="what", metavar="WHAT")

    def way(name: str, summary: str) -> argparse.ArgumentParser:
        key = f"validate {name}"
        return what.add_parser(
            name,
            help=summary,
            description=texts.VALIDATE_WAYS[name],
            epilog=f"example: {texts.EXAMPLES[key]}",
            formatter_class=texts.Formatter,
        )

    rows = way("rows", "run measured cases again on simulated cards that are these GPUs")
    rows.add_argument("measured", type=Path, metavar="DIR", help="the measured rows")
    rows.add_argument("--models", type=Path, action="append", required=True, metavar="DIR", help="their checkpoints")
    rows.add_argument("--simulated", type=Path, metavar="DIR", help="for the simulated rows; default: DIR-simulated")
    rows.add_argument("--out", type=Path, metavar="FILE.md", help="the document; default: standard output")
    rows.add_argument("--cards", type=Path, metavar="DIR", help="write each measured card to DIR/NAME.yaml")
    record = way("record", "keep what PyTorch's allocator writes down of itself on a real GPU")
    record.add_argument("folder", type=Path, metavar="DIR", help="where the recordings go, one file a case")
    record.add_argument("overrides", nargs="+", metavar="KEY=VALUE", help="as for sweep: device=cuda max_seq_len=…")
    record.add_argument("--config-dir", "-cd", metavar="DIR", help="a folder of your own models, cards and experiments")
    replay = way("replay", "replay recordings through the model of the allocator")
    replay.add_argument("folder", type=Path, metavar="DIR", help="the recordings")


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parser of each command."""
    (action,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return dict(action.choices)


def _version() -> str:
    try:
        return version("vram-bench")
    except PackageNotFoundError:
        return "(not installed)"
