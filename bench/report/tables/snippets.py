"""A recommendation as something to copy: the command that checks it, and what an engine's snippets are made of."""

from __future__ import annotations

import shlex

from bench.analysis.recommend import Recommendation
from bench.core.columns import SETTING, WEIGHTS, SettingColumns, label, usual
from bench.core.identity import key_of
from bench.engines.base import Chosen

# Settings that `check_command` names in any case, or that follow from the weights in DIR.
_ALWAYS = ("cache", "lazy", *WEIGHTS)


def chosen(answer: Recommendation) -> Chosen:
    """What an engine's snippets are written for; there must be a setting in the answer."""
    return Chosen(_weights(answer), _setting(answer), answer.max_seq_len or 0, answer.batch_size or 1)


def check_command(answer: Recommendation) -> str:
    """What measures the same setting on the reader's own card; the bits per weight are those of the weights in DIR."""
    setting = _setting(answer)
    keys: dict[str, object] = {
        "model": "local",
        "model.path": "DIR",
        "device": "cuda",
        "cache": setting["cache"],
        "lazy": str(setting["lazy"]).lower(),
        "max_seq_len": answer.max_seq_len,
    }
    asked = zip(SETTING, key_of(setting, SETTING), strict=True)
    keys |= {label(name): value for name, value in asked if name not in _ALWAYS and value not in (None, usual(name))}
    return shlex.join(["vram-bench", "sweep", *(f"{name}={value}" for name, value in keys.items())])


def _setting(answer: Recommendation) -> SettingColumns:
    """What is recommended: nothing else can be copied."""
    assert answer.setting is not None
    return answer.setting


def _weights(answer: Recommendation) -> str:
    """Which weights a reader should have in DIR."""
    setting = _setting(answer)
    head = "" if setting["head_bits"] is None else f", head_bits {setting['head_bits']}"
    return f"{answer.identity['model']} at {setting['bpw']:g} bpw{head}"
