"""What a model on disk is called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.config.cases import plan_sweep
from bench.config.model_names import name_of

HASH = "0123456789abcdef0123456789abcdef01234567"
CONFIG = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 4096}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/models/mine", "mine"),
        ("/models/mine-4.0bpw", "mine-4.0bpw"),
        ("/models/mine/4.0bpw", "mine/4.0bpw"),
        ("/models/mine/4_25bpw", "mine/4_25bpw"),
        ("/models/mine/6_0-h8", "mine/6_0-h8"),
        ("/models/mine/6.5bpw_h8", "mine/6.5bpw_h8"),
        ("/models/mine/exl2/4.0bpw", "mine/exl2/4.0bpw"),
        ("/models/mine/exl2-4.0bpw", "mine/exl2-4.0bpw"),
        ("/models/mine/5.0bpw-h6-exl2", "mine/5.0bpw-h6-exl2"),
        ("/models/mine/5.0bpw-hb8-exl2", "mine/5.0bpw-hb8-exl2"),
        ("/models/mine/8", "mine/8"),
        ("/models/mine/b3.5", "mine/b3.5"),
        ("/models/phi3", "phi3"),
        ("/models/qwen2.5-32b-yarn", "qwen2.5-32b-yarn"),
        ("/models/v0.3", "v0.3"),
        ("/models/2026", "2026"),
        (f"/hub/models--org--Some-Model/snapshots/{HASH}", "org/Some-Model"),
        (f"/hub/models--gpt2/snapshots/{HASH}", "gpt2"),
        (f"/hub/models--org--Some-Model/snapshots/{HASH}/4.0bpw", "org/Some-Model/4.0bpw"),
        ("/4.0bpw", "4.0bpw"),
        ("/", "/"),
    ],
)
def test_a_model_is_called_as_people_know_it(path: str, name: str) -> None:
    assert name_of(Path(path)) == name


def test_a_snapshot_of_another_branch_than_main_tells_which(tmp_path: Path) -> None:
    cached = tmp_path / "models--org--name"
    for branch, commit in (("main", "a" * 40), ("4.0bpw", "b" * 40)):
        (cached / "snapshots" / commit).mkdir(parents=True)
        (cached / "refs").mkdir(exist_ok=True)
        (cached / "refs" / branch).write_text(commit)
    assert name_of(cached / "snapshots" / ("a" * 40)) == "org/name"
    assert name_of(cached / "snapshots" / ("b" * 40)) == "org/name@4.0bpw"


def test_a_name_that_is_given_is_the_name(tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "4.0bpw"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    overrides = ["model=local", f"model.path={folder}", "max_seq_len=512", "device=rtx_3090"]
    (case,) = plan_sweep(overrides).cases
    assert case.model.name == "mine/4.0bpw"
    assert plan_sweep(overrides[1:]).cases == [case]
    (named,) = plan_sweep([*overrides, "model.name=llama_1b"]).cases
    assert (named.model.name, named.model.fingerprint) == ("llama_1b", case.model.fingerprint)
