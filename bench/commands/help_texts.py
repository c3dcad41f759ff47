"""What `--help` says of each command, at any width of the terminal."""

from __future__ import annotations

import argparse
import re
import textwrap

from bench.core.columns import SETTING, label
from bench.engines.registry import NAMES, bits_in_words, caches_in_words, engines, titles

_FORMATS = " or ".join(engine.weights.quantised for engine in engines())
_HEADS = "; ".join(f"{', '.join(map(str, each.head_bits))} with {each.name}" for each in engines())
_MADE = [engine for engine in engines() if engine.makes_checkpoints]
# A line "name: text" with two blanks before it is a row of a table; everything else is prose, and wrapped as such.
_LINES = f"""
  model: a name of `vram-bench list models`; local with model.path=DIR (config.json, and {_FORMATS} weights for a real \
GPU); hub with model.repo=ORG/NAME model.revision=REV; or FILE.yaml
  device: auto, cuda (device.index=N, or all: equal GPUs share the work), \
a simulated card of `vram-bench list devices`, all of them (all), \
or FILE.yaml; several that hold one model: 2xrtx_3090, rtx_4090+rtx_3060_12gb, or cuda with \
device.index=0+1 (several real ones: untested on hardware)
  engine: {", ".join(NAMES)}, or auto, which is that of the weights (the default)
  bpw: {bits_in_words()}, or 16
  max_seq_len: tokens (32768 or 32k, k being 1,024), or auto: find the largest that fits (the default)
  scenario: forward: the engine's own forward pass (the default); generator: its generator, with batch_size jobs
  cache_size: with the generator, the tokens that all jobs share (65536 or 64k), or auto: the largest that fits
  cache: {caches_in_words()}; a comma makes an axis, so that TabbyAPI's 8,5 is written k8v5 or [8,5]
  load: single: load(), then the cache; autosplit: the engine's own (load_autosplit), also on one card \
(lazy=true says the same); tabbyapi: as TabbyAPI sets and loads it, with the generator
  split: on several cards auto (load_autosplit), best, tensor_parallel, or GiB for each: [20,24]
  vision: true loads the model's vision tower beside it, weights only
  attention: auto, flash, xformers, sdpa, matmul
  allocator: segments of PyTorch's allocator: auto (what the engine sets), native, expandable
  vram_limit: e.g. 24GiB: a smaller card inside the one that is there, [20GiB,10GiB] inside each of two; on a real GPU \
another process holds the rest (vram_limit_by=process), or PyTorch's allocator is capped (vram_limit_by=allocator)
"""
# Keys that no row tells, and that have no line; those that rows tell come before them.
_BESIDE = (
    "gpu_split",
    "reserve_vram",
    "repeats",
    "auto_up_to",
    "results_dir",
    "run_id",
    "timeout_s",
    "phase_timeout_s",
    "jobs",
    "allow_foreign",
    "rerun",
    "retry",
    "experiment",
    "hydra/launcher",
)
_TOLD = [name for name in SETTING if name != "draft_fingerprint"]  # which nobody types
_OTHERS = [key for key in map(label, _TOLD) if not re.search(rf"\b{key}[:=]", _LINES)]
KEYS = f"{_LINES}  others: {', '.join([*_OTHERS, *_BESIDE])}\n"
_AXES = "A comma makes an axis, range(2.0,6.0,0.5) one of numbers, glob(rtx*) one of names; no -m is needed."
SWEEP = f"""\
Measures every combination of the given keys. {_AXES} Each case loads the model, makes its cache, fills the context to \
the end and decodes there, in a process of its own. What is stored already is not run again.
{KEYS}"""
PLAN = f"""\
Says what a sweep of the same keys is expected to find, and how long it would take; nothing is run on any card, and \
nothing is stored. Predicted VRAM with its parts, and what one would gain by giving something up. With --tabby or \
--webui it is another program's configuration that is asked about: whether it fits, and how far it could go. {_AXES}
{KEYS}"""
CARD = """\
Prints, as Markdown, what each quantisation of a model takes and how far it goes: the branches of a repository, the \
checkpoints in a folder, or the bits of a model of the catalogue. Nothing is run, and no weights are downloaded: it is \
predicted from config.json and headers. What a stored row has shown is marked.

  SOURCE: ORG/NAME of a hub, ./DIR, or a name of `vram-bench list models`
  model.revision: of a hub, the branches: 3.0bpw,4.0bpw; default: all that have weights
  bpw: of a model of the catalogue, the bits: 3.0,4.0
  cache: which caches, with commas between; default: FP16,Q4
  max_seq_len: the lengths for which VRAM is told; default: 4k,16k,32k and the model's own
  device: the cards; default: one of 8, 12, 16, 24, 32 and 48 GB each
  others: those of `vram-bench plan`
"""
RECOMMEND = f"""\
Says what to run on a card: of the catalogue's models the settings that fit at least min_tokens, the best first. What \
stored rows have shown comes first; the rest is predicted, marked as such, and nothing is run. Ranked by published \
quality where there is one, else by size. The largest models are looked at first, until there are --top; the others \
are counted, with the reason. With several cards and model=NAME, a table for each model with the cards as rows.

  device: the card, several with commas, all; 2xrtx_3090 is a machine with two
  min_tokens: how long a context must fit: 16384 or 16k (the default)
  model: which models: NAME,NAME or glob(qwen3*); default: the catalogue's, the largest first
  bpw: which bits; default: 3.0,4.0,5.0,6.0
  cache: which caches; default: FP16,Q8,Q6,Q4
  engine: {", ".join(NAMES)}; each has a table of its own, as its bits are not the other's
  others: those of `vram-bench plan`, but max_seq_len
"""
SYNTH = f"""\
Writes an {" or ".join(engine.weights.quantised for engine in _MADE)} checkpoint with random weights, for \
{titles(engine.name for engine in _MADE)}, so that the memory and the speed of a \
model can be measured without downloading it. Neither depends on the values; what such a model says means nothing.

  model: a name of `vram-bench list models`; local with model.path=DIR, where a config.json is enough; or hub with \
model.repo=ORG/NAME model.revision=REV. Where there are weights, the shapes and bits are theirs; of a hub, only \
the headers are downloaded
  engine: {", ".join(engine.name for engine in _MADE)}; auto, the default, is that of the weights
  bpw: {bits_in_words()}, or 16 for unquantised weights
  head_bits: those of the output layer: {_HEADS}

The same command writes the same bytes, and goes on where it was interrupted.
"""
REPORT = """\
Tables (Markdown and CSV) and plots of every stored row: how far it goes, what to run on each card with the rows that \
say so, and what each setting costs and gives. Needs no GPU and imports no torch. Of several folders, or of \
what `share` has packed, all rows count: cards of one kind are one table, with the spread from card to card.
"""
SHARE = """\
Packs the rows of results into one file, to be attached to an issue or sent to whoever collects them. Names of hosts, \
users and folders and the UUIDs of cards are replaced, each by the same wherever it stands; logs stay here. \
`vram-bench report FILE.zip` shows it.
"""
COMPARE = """\
Says what became better or worse from BASE to HEAD, each a folder of results or a parquet file. Exit code 1 when a \
gate fails or a file cannot be read. Verdicts, VRAM and boundaries are deterministic: any change counts, beyond what \
a gate lets pass. A speed counts when it differs significantly (Mann-Whitney, p < 0.05) and by more than the gate. \
Another card, another driver, and simulated against measured are refused.
"""
LIST = """\
The models and cards that can be named, with what is known of them: model=NAME, device=NAME. Files of your own in \
~/.config/vram-bench/model and …/device, or in --config-dir DIR, are among them.
"""
DOCTOR = """\
GPU, driver, torch, the engine and its extension, attention back ends, foreign processes on the GPU: each problem with \
its remedy.

With --self-test, nothing of that: a worker takes known sizes on a card, real or simulated, as a case does, and what \
is told of it (allocated, reserved, on the device, and the most of each) is held against what it must be. A line a \
check; exit code 1 where one fails. device=NAME is the card, by default the GPU that is there.
"""
VALIDATE = """\
Holds simulated cards against a real one. rows: measured cases run once more on simulated cards that are these GPUs \
(name, memory, context and workspace as measured), and where the two agree, as Markdown; exit code 1 where a verdict \
differs. record and replay: every request to PyTorch's allocator, and whether its model puts each block where the real \
one did. --published: figures that others have published of real cards, each run once more on a simulated one, as a \
page (docs/accuracy.md); exit code 1 where one that agreed does not any more.
"""
VALIDATE_WAYS = {
    "rows": """\
Runs measured cases and boundaries once more on simulated cards that are these GPUs (name, memory, context and \
workspace as measured) and says where the two agree, as Markdown. Exit code 1 where a verdict differs. Needs no GPU.
""",
    "record": """\
Runs cases on a real GPU and keeps every request to PyTorch's allocator, and where it put each block: one file a case. \
What is recorded already is not recorded again. Keys and values are those of sweep, with device=cuda and max_seq_len=N.
""",
    "replay": """\
Puts the recorded requests to the model of the allocator, and names the first block or segment that is not where the \
real one put it. Exit code 1 where there is one. Needs no GPU.
""",
}
COMPLETION = """\
Prints a script that completes commands, options, keys, models and cards. Load it where your shell starts, as in the \
example, or store it where your shell looks for completions.
"""
EXAMPLES = {
    "card": "vram-bench card ORG/NAME-exl2 cache=FP16,Q6,Q4 --out table.md",
    "recommend": "vram-bench recommend device=rtx_3060_12gb min_tokens=16384",
    "synth": "vram-bench synth model=llama_3_1_70b bpw=2.4 --out llama-70b-2.4bpw-synthetic",
    "compare": "vram-bench compare baseline results --out report.md --max-vram-growth 16MiB",
    "plan": "vram-bench plan model=llama_3_1_8b bpw=3.0,4.0 cache=FP16,Q4 device=rtx_4090",
    "sweep": "vram-bench sweep model=llama_3_1_8b bpw=3.0,4.0 cache=FP16,Q4 max_seq_len=8k,32k device=rtx_4090",
    "report": "vram-bench report results --out report",
    "share": "vram-bench share results/new-gpu --out new-gpu.zip",
    "list": "vram-bench list devices",
    "doctor": "vram-bench doctor --json",
    "validate": "vram-bench validate rows results/gpu_check --models checkpoints --out agreement.md",
    "validate rows": "vram-bench validate rows results/gpu_check --models checkpoints --out agreement.md",
    "validate record": "vram-bench validate record recordings model=local model.path=DIR device=cuda max_seq_len=8k",
    "validate replay": "vram-bench validate replay recordings",
    "completion": 'eval "$(vram-bench completion bash)"',
}


class Formatter(argparse.HelpFormatter):
    """Wraps prose, tables and examples at the terminal's width."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(self._block(block, width) for block in text.strip("\n").split("\n\n"))

    def _block(self, block: str, width: int) -> str:
        if block.startswith("example: "):
            return _command(block, width)
        lines = []
        for line in block.splitlines():
            name, colon, text = line.partition(": ")
            if line.startswith("  ") and colon:
                lines.append(textwrap.fill(f"{name:<18}{text}", width, subsequent_indent=" " * 18))
            else:
                lines.append(textwrap.fill(line, width))
        return "\n".join(lines)


def _command(text: str, width: int) -> str:
    """A command that can be copied whole: where it is too long for a line, the shell is told that it goes on."""
    lines = textwrap.wrap(text, width - 2, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return " \\\n".join(lines)
