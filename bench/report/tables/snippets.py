"""The command that checks a recommendation, and which weights it is about."""

from __future__ import annotations

import shlex

from bench.analysis.recommend import Recommendation
from bench.core.columns import SETTING, WEIGHTS, label, usual
from bench.core.identity import key_of
from bench.core.split import Split

# Settings that `check_command` names in any case, or that follow from the weights in DIR, or in DRAFT_DIR.
_ALWAYS = ("cache", "lazy", "split", *WEIGHTS, "draft_model", "draft_fingerprint", "draft_bpw")


def check_command(answer: Recommendation) -> str:
    """What measures the same setting on the reader's own card; the bits per weight are those of the weights in DIR."""
    assert answer.setting is not None  # nothing else can be copied
    setting = answer.setting
    split = None if setting["split"] is None else Split.parse(setting["split"])
    keys: dict[str, object] = {
        "model": "local",
        "model.path": "DIR",
        "device": "cuda",
        "cache": setting["cache"],
        **({"lazy": str(setting["lazy"]).lower()} if split is None else {"device.index": "0+1", **split.keys()}),
        "max_seq_len": answer.max_seq_len,
    }
    asked = zip(SETTING, key_of(setting, SETTING), strict=True)
    keys |= {label(name): value for name, value in asked if name not in _ALWAYS and value not in (None, usual(name))}
    if setting["draft_model"] is not None:
        keys["draft.model.path"] = "DRAFT_DIR"
    return shlex.join(["vram-bench", "sweep", *(f"{name}={value}" for name, value in keys.items())])
