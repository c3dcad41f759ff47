"""Checkpoints that lack tensors, and configurations that the engine refuses: told before anything runs, by name."""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.store.store import read_cases
from tests.conftest import Program
from tests.synth import headers

SMALL: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1024,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
}
CARD = "device=rtx_3060_12gb"


def _directory(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**SMALL, **changes}))
    return folder


def _refused_by_all(in_process: Program, tmp_path: Path, folder: str, said: str, *, first: str = "plan") -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    commands = {
        "plan": ("plan", f"model.path={folder}", CARD),
        "sweep": ("sweep", f"model.path={folder}", CARD, "results_dir=r"),
        "synth": ("synth", f"model.path={folder}", "--out", "twin", "--sparse"),
    }
    for command in sorted(commands, key=lambda name: name != first):
        refused = in_process(*commands[command])
        assert (refused.returncode, refused.stdout) == (2, ""), refused.stderr
        assert said in refused.stderr
        assert refused.stderr.splitlines()[-1].endswith("download it again")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def _made(in_process: Program, tmp_path: Path, bpw: str = "4.0") -> Path:
    """A whole checkpoint in two files or more, with an index as the original's would be."""
    _directory(tmp_path / "given")
    made = in_process("synth", "model.path=given", f"bpw={bpw}", "--out", "whole", "--sparse", "--shard-size", "1MiB")
    assert made.returncode == 0, made.stderr
    return tmp_path / "whole"


def test_a_shard_that_was_never_downloaded(in_process: Program, tmp_path: Path) -> None:
    """The index names all tensors, also those of the file that is not there: it is not asked."""
    whole = _made(in_process, tmp_path, "16")
    shards = sorted(whole.glob("*.safetensors"))
    lost = next(shard for shard in shards if any("layers.1.mlp" in name for name in headers.read(shard)))
    names = headers.read(lost)
    lost.unlink()
    assert len(shards) > 2
    assert (whole / "model.safetensors.index.json").exists()
    rest = f" (and {len(names) - 1} more) are" if len(names) > 1 else " is"
    _refused_by_all(in_process, tmp_path, "whole", f"{rest} in none of its files")


def test_weights_of_another_model_than_config_json(in_process: Program, tmp_path: Path) -> None:
    _made(in_process, tmp_path)
    (tmp_path / "whole" / "config.json").write_text(json.dumps({**SMALL, "hidden_size": 512}))
    told = "model.embed_tokens.weight has the shape [1024, 256], and ExLlamaV2 takes [1024, 512] for its config.json"
    for command in (("plan", CARD), ("sweep", CARD, "results_dir=r"), ("synth", "--out", "twin", "--sparse")):
        refused = in_process(command[0], "model.path=whole", *command[1:])
        assert (refused.returncode, refused.stdout) == (2, ""), refused.stderr
        (line,) = (line for line in refused.stderr.splitlines() if told in line)
        assert line.startswith("vram-bench: model.path=")
        assert line.endswith("more differ); give weights and config.json of one model")
    assert {path.name for path in tmp_path.iterdir()} == {"given", "whole"}


def test_an_exl2_layer_of_which_a_part_is_missing(in_process: Program, tmp_path: Path) -> None:
    """As of a head that was cut in two by a shard that is not there."""
    whole = _made(in_process, tmp_path)
    for shard in whole.glob("*.safetensors"):
        read = headers.read(shard)
        entries = {name: (kind, shape) for name, (kind, shape, _) in read.items()}
        kept = {name: entry for name, entry in entries.items() if name not in ("lm_head.q_scale", "lm_head.q_groups")}
        if kept != entries:
            headers.write_header(shard, kept, {name: read[name][2] for name in kept if name.endswith(".q_groups")})
    _refused_by_all(in_process, tmp_path, "whole", "lm_head.q_scale (and 1 more) are in none of its files")


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        (lambda table: [0] * len(table), "all of its numbers are 0"),
        (lambda table: [7, *table[1:]], "a group has 7 bits, and EXL2 has 2, 3, 4, 5, 6 or 8"),
        (lambda table: [table[0], 2, *table[2:]], "its groups do not begin one after the other within the rows"),
        (lambda table: [*table[:-1], 30_000], "its groups do not begin one after the other within the rows"),
    ],
)
def test_an_exl2_layer_whose_groups_are_none(
    in_process: Program, tmp_path: Path, numbers: Callable[[list[int]], list[int]], said: str
) -> None:
    """As of a file of which a part never came: the engine would divide by their bits."""
    name = "model.layers.1.mlp.up_proj.q_groups"
    whole = _made(in_process, tmp_path)
    shard = next(shard for shard in whole.glob("*.safetensors") if name in headers.read(shard))
    read = headers.read(shard)
    tables = {each: data for each, (_, _, data) in read.items() if each.endswith(".q_groups")}
    count = len(tables[name]) // 2
    tables[name] = struct.pack(f"<{count}h", *numbers(list(struct.unpack(f"<{count}h", tables[name]))))
    headers.write_header(shard, {each: (kind, shape) for each, (kind, shape, _) in read.items()}, tables)
    _refused_by_all(in_process, tmp_path, "whole", f"model.path=whole: {name} is no group table: {said}")


def test_the_answer_is_kept_and_a_whole_checkpoint_passes(in_process: Program, tmp_path: Path) -> None:
    _made(in_process, tmp_path)
    own = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert in_process("plan", "model.path=whole", CARD, **own).returncode == 0
    kept = list((tmp_path / "cache" / "vram-bench" / "whole").rglob("*.json"))
    assert [json.loads(path.read_text()) for path in kept] == [{"missing": [], "misshapen": [], "refused": None}]
    stamp = kept[0].stat().st_mtime_ns
    shutil.copytree(tmp_path / "whole", tmp_path / "copy")
    assert in_process("plan", "model.path=copy", CARD, **own).returncode == 0
    assert [path.stat().st_mtime_ns for path in kept] == [stamp]
    assert len(list((tmp_path / "cache" / "vram-bench" / "whole").rglob("*.json"))) == 1


REFUSED = [
    (
        {"rope_scaling": {"type": "linear", "rope_type": "linear", "factor": 2.0}},
        ["rope_scaling has both `type` and `rope_type`", "take one of the two out"],
    ),
    ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, ["yarn has no original_max_position_embeddings", "add it"]),
    ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, ["llama3 has no low_freq_factor", "add it"]),
    ({"rope_scaling": {"type": "linear"}}, ["'factor' missing from 'rope_scaling'"]),
    ({"rope_theta": "10000.0"}, ['rope_theta is "10000.0"', "write a number there"]),
    ({"num_key_value_heads": "2"}, ['num_key_value_heads is "2"', "write a whole number there"]),
    ({"num_key_value_heads": 3}, ["num_key_value_heads is 3", "num_attention_heads 4"]),
    ({"hidden_size": None}, ["no hidden_size or d_model"]),
    (
        {"rope_scaling": {"type": "longrope", "short_factor": [1.0] * 32, "long_factor": [1.0] * 32}},
        ["longrope needs original_max_position_embeddings, and it has none; add it, as the original model has it"],
    ),
    (
        {
            "architectures": ["Qwen2VLForConditionalGeneration"],
            "rope_scaling": {"type": "mrope", "mrope_section": [8, 12, 12]},
        },
        ["Qwen2VLForConditionalGeneration needs vision_config, and it has none; add it"],
    ),
]


def test_a_configuration_that_the_engine_refuses_is_unsupported(in_process: Program, tmp_path: Path) -> None:
    folders = []
    for number, (changes, _) in enumerate(REFUSED):
        folders.append(f"m{number}")
        _directory(tmp_path / folders[-1], **changes)
    models = f"model.path={','.join(folders)}"
    command = ("sweep", "model=local", models, CARD, "max_seq_len=512", "results_dir=r")
    swept = in_process(*command)
    assert swept.returncode == 0, swept.stderr
    rows = {row["model"]: row for row in read_cases(tmp_path / "r")[0].to_pylist()}
    for folder, (_, words) in zip(folders, REFUSED, strict=True):
        assert rows[folder]["outcome"] == "unsupported", rows[folder]["error"]
        assert re.match(r"ExLlamaV2 cannot (read|run) config.json: ", rows[folder]["error"])
        for word in words:
            assert word in rows[folder]["error"]
    again = in_process(*command)
    assert again.returncode == 0
    assert len(read_cases(tmp_path / "r")[0]) == len(REFUSED)  # an answer is not asked for twice
    planned = in_process("plan", "model=local", f"model.path={folders[0]}", CARD, "--json")
    (search,) = json.loads(planned.stdout)["cells"]
    assert REFUSED[0][1][0] in search["reason"]


def test_synth_refuses_what_the_engine_cannot_read(in_process: Program, tmp_path: Path) -> None:
    _directory(tmp_path / "m", rope_theta="10000.0")
    refused = in_process("synth", "model.path=m", "--out", "twin")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "rope_theta" in refused.stderr
    assert not (tmp_path / "twin").exists()


@pytest.mark.parametrize("lost", ["hidden_act", "num_attention_heads"])
def test_a_key_of_the_vision_tower_is_told(in_process: Program, tmp_path: Path, lost: str) -> None:
    vision = {
        "model_type": "pixtral", "head_dim": 64, "hidden_act": "gelu", "hidden_size": 1024, "intermediate_size": 4096,
        "num_attention_heads": 16, "num_hidden_layers": 2, "patch_size": 14, "rope_theta": 10000.0,
    }  # fmt: skip
    del vision[lost]
    text = {key: value for key, value in SMALL.items() if key != "architectures"}
    config = {
        "architectures": ["Mistral3ForConditionalGeneration"], "model_type": "mistral3", "vision_feature_layer": -1,
        "multimodal_projector_bias": False, "spatial_merge_size": 2, "text_config": {**text, "head_dim": 64},
        "vision_config": vision,
    }  # fmt: skip
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    swept = in_process("sweep", "model.path=m", CARD, "max_seq_len=512", "results_dir=r")
    assert swept.returncode == 0, swept.stderr
    (row,) = read_cases(tmp_path / "r")[0].to_pylist()
    assert (row["outcome"], f"vision_config.{lost}" in row["error"]) == ("unsupported", True), row["error"]


@pytest.mark.parametrize(
    ("named", "said"), [(None, "there is no `architectures`"), ([], "is []"), (["A", "B"], 'is ["A", "B"]')]
)
def test_a_model_of_no_known_architecture_is_bad_input(
    in_process: Program, tmp_path: Path, named: list[str] | None, said: str
) -> None:
    _directory(tmp_path / "m", architectures=named)
    for command in (("plan", CARD), ("sweep", CARD), ("synth", "--out", "made")):
        refused = in_process(command[0], "model.path=m", *command[1:])
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "model.path=m: config.json: " in refused.stderr
        assert said in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_nothing_is_recommended_for_a_model_that_the_engine_does_not_know(in_process: Program) -> None:
    overrides = ("model=kimi_k2_thinking", "device=h200_141gb", "cache=FP16,Q4")
    planned = in_process("plan", *overrides).stdout
    swept = in_process("sweep", *overrides).stdout
    for said in (planned, swept):
        assert "does not know the architecture DeepseekV3ForCausalLM" in " ".join(said.split())
        assert "`vram-bench list models`" in " ".join(said.split())
        assert "best:" not in said
        assert "none" not in said
