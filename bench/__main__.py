"""vram-bench: what fits on a GPU, measured on a real one or computed on a simulated one.

Each command imports what it needs and no more: help, reports and the parent of a sweep never import torch.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from bench.encoding import fall_back
from bench.errors import BadInput, ExitCode

_KEYS = """
  model             a name in conf/model; local with model.path=DIR (config.json, and EXL2 weights for a real GPU);
                    or hub with model.repo=ORG/NAME model.revision=REV
  device            auto, cuda (device.index=N), or a simulated card in conf/device
  bpw               2.0 to 8.0 bits per weight, or 16
  max_seq_len       tokens, or auto: find the largest that fits (the default)
  cache             FP16, Q8, Q6, Q4
  lazy              true: lazy cache and load_autosplit; false: load, then the cache
  attention         auto, flash, xformers, sdpa, matmul
  vram_limit        e.g. 24GiB: a smaller card inside the one that is there; on a real GPU another process holds the
                    rest (vram_limit_by=process), or PyTorch's allocator is capped (vram_limit_by=allocator)
  batch_size, max_input_len, head_bits, results_dir, timeout_s, repeats, jobs, rerun, hydra/launcher
"""
_SWEEP_HELP = f"""\
Measures every combination of the given keys; a comma makes an axis. Each case loads the model, makes its cache,
fills the context to the end and decodes there, in a process of its own. What is stored already is not run again.
{_KEYS}"""
_PLAN_HELP = f"""\
Says what a sweep of the same keys is expected to find, and how long it would take; nothing is run on any card, and
nothing is stored. Predicted VRAM with its parts, and what one would gain by giving something up.
{_KEYS}"""
_SYNTH_HELP = """\
Writes an EXL2 checkpoint with random weights that ExLlamaV2 loads and runs, so that the memory and the speed of a model
can be measured without downloading it. Neither depends on the values; what such a model says means nothing.

  model             a name in conf/model; local with model.path=DIR, where a config.json is enough;
                    or hub with model.repo=ORG/NAME model.revision=REV. Where there are EXL2 weights, the shapes and
                    bits are theirs; of a hub, only the headers are downloaded
  bpw               2.0 to 8.0 bits per weight, or 16 for unquantised weights
  head_bits         those of the output layer: 2, 3, 4, 5, 6, 8

The same command writes the same bytes, and goes on where it was interrupted.
"""
_COMPARE_HELP = """\
Says what became better or worse from BASE to HEAD, each a folder of results or a parquet file. Exit code 1 when a gate
fails or a file cannot be read. Verdicts, VRAM and boundaries are deterministic: any change counts, beyond what a gate
lets pass. A speed counts when it differs significantly (Mann-Whitney, p < 0.05) and by more than the gate.
Another card, another driver, and simulated against measured are refused.
"""
_EXAMPLES = {
    "synth": "vram-bench synth model=llama_3_1_70b bpw=2.4 --out llama-70b-2.4bpw-synthetic",
    "compare": "vram-bench compare baseline results --out report.md --max-vram-growth 16MiB",
    "plan": "vram-bench plan model=llama_3_1_8b bpw=3.0,4.0 cache=FP16,Q4 device=rtx_4090",
    "sweep": "vram-bench sweep model=llama_3_1_8b bpw=3.0,4.0 cache=FP16,Q4 max_seq_len=8192,32768 device=rtx_4090",
    "report": "vram-bench report --results results --out report",
    "doctor": "vram-bench doctor --json",
}


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    fall_back()
    arguments = _parse(argv)
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, _interrupt)
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:  # the reader of our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE
    except Exception as error:
        if arguments.debug or os.environ.get("HYDRA_FULL_ERROR") == "1":
            traceback.print_exc()
        if isinstance(error, BadInput):
            print(f"vram-bench: {error}", file=sys.stderr)
            return ExitCode.BAD_INPUT
        print(f"vram-bench: {type(error).__name__}: {error}\n(--debug shows where)", file=sys.stderr)
        return ExitCode.LOOK


def _interrupt(*_: object) -> None:
    """Being told to end is like Ctrl-C: what is finished is kept."""
    raise KeyboardInterrupt


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; argparse by itself takes no overrides after an option that follows others."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and ("overrides" not in arguments or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.overrides += rest
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vram-bench",
        description="What fits on a GPU with ExLlamaV2: measured on a real card, or computed on a simulated one.",
        epilog=f"example: {_EXAMPLES['sweep']}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, summary: str, description: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=summary,
            description=description,
            epilog=f"example: {_EXAMPLES[name]}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
        return sub

    plan = command("plan", "predict, without measuring", _PLAN_HELP)
    plan.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="Hydra overrides")
    plan.add_argument("--json", action="store_true", help="one JSON document on stdout")
    sweep = command("sweep", "measure", _SWEEP_HELP)
    sweep.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="Hydra overrides")
    synth = command("synth", "write a checkpoint with random weights", _SYNTH_HELP)
    synth.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="Hydra overrides")
    synth.add_argument("--out", type=Path, required=True, metavar="DIR", help="the model directory to make")
    synth.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    synth.add_argument("--shard-size", default="8GiB", metavar="SIZE", help="of each file at most; default: 8GiB")
    synth.add_argument("--sparse", action="store_true", help="no values: all weights are zero and take no disk")
    report = command(
        "report",
        "regenerate the tables and plots",
        "Tables (Markdown and CSV) and plots of every stored row: how far it goes, what to run on each card\n"
        "with the rows that say so, and what each setting costs and gives. Needs no GPU and imports no torch.",
    )
    report.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    report.add_argument("--out", type=Path, metavar="DIR", help="default: report, below the results")
    report.add_argument("--context", metavar="N[,N]", help="lengths to recommend for; default: 8192,32768,131072")
    report.add_argument("--headroom", metavar="SIZE", help="what a card should have to spare; default: 512MiB")
    report.add_argument(
        "--quality", type=Path, metavar="FILE", help="CSV: model,bpw,cache,quality; default: ExLlamaV2's own"
    )
    report.add_argument("--json", action="store_true", help="one JSON document on stdout")
    compare = command("compare", "what changed between two result sets", _COMPARE_HELP)
    compare.add_argument("base", type=Path, metavar="BASE", help="what was: a directory or a parquet file")
    compare.add_argument("head", type=Path, metavar="HEAD", help="what is")
    compare.add_argument("--out", type=Path, metavar="FILE.md", help="also write the report as Markdown")
    compare.add_argument(
        "--max-vram-growth", default="0", metavar="SIZE", help="a peak may grow by: 64MiB, 1%% (default: 0)"
    )
    compare.add_argument(
        "--max-boundary-loss", default="0", metavar="PAGES", help="a boundary may fall by: 2, 1%% (default: 0)"
    )
    compare.add_argument(
        "--max-slowdown", default="5%", metavar="PERCENT", help="a speed may take longer by (default: 5%%)"
    )
    compare.add_argument("--allow-missing", action="store_true", help="HEAD may lack what BASE has")
    compare.add_argument("--allow-driver-change", action="store_true", help="compare in spite of another driver")
    compare.add_argument("--json", action="store_true", help="one JSON document on stdout")
    doctor = command(
        "doctor",
        "what this machine has",
        "GPU, driver, torch, exllamav2 and its extension, attention back ends, foreign processes on the GPU:\n"
        "each problem with its remedy.",
    )
    doctor.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "plan":
        from bench.commands.plan import plan

        return plan(arguments.overrides, arguments.json)
    if arguments.command == "sweep":
        from bench.commands.sweep import sweep

        return sweep(arguments.overrides)
    if arguments.command == "synth":
        from bench.commands.synth import synth

        return synth(arguments.overrides, arguments.out, arguments.seed, arguments.shard_size, arguments.sparse)
    if arguments.command == "report":
        from bench.commands.report import report

        return report(
            arguments.results,
            arguments.out or arguments.results / "report",
            arguments.json,
            arguments.context,
            arguments.headroom,
            arguments.quality,
        )
    if arguments.command == "compare":
        from bench.commands.compare import compare, gates_of

        gates = gates_of(
            arguments.max_vram_growth,
            arguments.max_boundary_loss,
            arguments.max_slowdown,
            arguments.allow_missing,
            arguments.allow_driver_change,
        )
        return compare(arguments.base, arguments.head, gates, arguments.out, arguments.json)
    from bench.commands.doctor import doctor

    return doctor(arguments.json)


if __name__ == "__main__":
    sys.exit(main())
