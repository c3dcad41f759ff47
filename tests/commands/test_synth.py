"""`vram-bench synth` as a user calls it."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from bench.config.models import resolve_model
from bench.config.settings import ModelSettings
from tests.conftest import Program
from tests.synth import headers
from tests.synth.exl2 import read

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 4096,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
}


@pytest.fixture
def model(tmp_path: Path) -> str:
    """The overrides of a small model that has a config.json and nothing else."""
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "config.json").write_text(json.dumps(CONFIG))
    return "model.path=small"


def digests(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


def test_what_it_makes_says_what_it_is_and_can_be_measured(in_process: Program, tmp_path: Path, model: str) -> None:
    made = in_process("synth", "model=local", model, "bpw=3.5", "--out", "made", "--shard-size", "1MiB")
    assert (made.returncode, made.stdout.count("model.path=made")) == (0, 1)
    bpw = resolve_model(ModelSettings("local", path=str(tmp_path / "made"))).bpw  # four layers do not make 3.5
    assert made.stdout.startswith(f"small {bpw:g} bpw, ")
    directory = tmp_path / "made"
    assert not (tmp_path / "made.partial").exists()
    names = {path.name for path in directory.iterdir()}
    shards = {name for name in names if name.endswith(".safetensors")}
    assert len(shards) > 2
    assert names - shards == {
        *("config.json", "preprocessor_config.json", "model.safetensors.index.json", "synthetic.json"),
    }
    index = json.loads((directory / "model.safetensors.index.json").read_text())
    for name in shards:
        with safe_open(directory / name, framework="numpy") as file:
            assert file.metadata()["weights"] == "made up"
            assert {tensor for tensor, place in index["weight_map"].items() if place == name} == set(file.keys())
    assert index["weight_map"].keys() == read(directory).keys()
    assert json.loads((directory / "config.json").read_text()) == {**CONFIG, "weights_made_up_by": "vram-bench synth"}
    assert json.loads((directory / "synthetic.json").read_text())["weights"].startswith("made up")
    swept = in_process(
        "sweep", "model=local", "model.path=made", "device=rtx_4090", "max_seq_len=512", "results_dir=r", COLUMNS="200"
    )
    assert swept.returncode == 0, swept.stderr
    assert "1 case to measure" in swept.stderr
    (row,) = _rows(tmp_path / "r")
    assert (row["outcome"], row["bpw"], row["model"]) == ("fits", pytest.approx(3.5, abs=0.6), "made")
    assert "weights made up by vram-bench synth" in row["notes"]


def test_the_same_command_writes_the_same_bytes(in_process: Program, tmp_path: Path, model: str) -> None:
    for out in ("one", "two"):
        assert in_process("synth", "model=local", model, "--out", out).returncode == 0
    assert in_process("synth", "model=local", model, "--out", "other", "--seed", "1").returncode == 0
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert digests(tmp_path / "one")["model.safetensors"] != digests(tmp_path / "other")["model.safetensors"]


def test_it_goes_on_with_the_files_that_are_missing(in_process: Program, tmp_path: Path, model: str) -> None:
    command = ("synth", "model=local", model, "--shard-size", "1MiB", "--out")
    assert in_process(*command, "whole").returncode == 0
    # As if it had been cut off while it wrote the second file.
    cut = tmp_path / "cut.partial"
    shutil.copytree(tmp_path / "whole", cut)
    first, second, *others = sorted(path.name for path in cut.glob("*.safetensors"))
    for name in others:
        (cut / name).unlink()
    (cut / second).rename(cut / f"{second}.partial")
    (cut / f"{second}.partial").write_bytes(b"half")
    kept = (cut / first).stat().st_mtime_ns
    assert in_process(*command, "cut").returncode == 0
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")
    assert (tmp_path / "cut" / first).stat().st_mtime_ns == kept


def test_another_recipe_does_not_go_on_there(in_process: Program, tmp_path: Path, model: str) -> None:
    assert in_process("synth", "model=local", model, "--out", "a").returncode == 0
    (tmp_path / "a").rename(tmp_path / "b.partial")
    refused = in_process("synth", "model=local", model, "--out", "b", "--seed", "7")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "beginning of another checkpoint" in refused.stderr


def test_ctrl_c_ends_it_while_the_worker_is_still_starting(tmp_path: Path, model: str) -> None:
    command = [sys.executable, "-m", "bench", "synth", "model=local", model, "--out", "new"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "laying out small" in process.stderr.readline()
        time.sleep(0.3)  # the worker imports torch for a second or more
        process.send_signal(signal.SIGINT)
        try:
            said = process.communicate(timeout=30)[1]
        finally:
            process.kill()
    assert process.returncode == 130
    assert "interrupted" in said
    assert {path.name for path in tmp_path.iterdir()} == {"small"}


def test_a_sparse_one_takes_no_disk(in_process: Program, tmp_path: Path) -> None:
    made = in_process("synth", "model=llama_3_1_70b", "bpw=2.4", "--out", "sparse", "--sparse")
    assert made.returncode == 0, made.stderr
    assert "all weights are zero" in made.stdout
    files = list((tmp_path / "sparse").glob("*.safetensors"))
    assert len(files) == 3
    assert sum(path.stat().st_size for path in files) > 20 << 30
    assert sum(path.stat().st_blocks * 512 for path in files) < 16 << 20
    # ExLlamaV2 divides by the bits of a group: over zeros, a real card's process dies of SIGFPE.
    with safe_open(sorted(files)[0], "np") as file:
        names = [name for name in file.keys() if name.endswith("q_groups")]
        assert names
        assert all((file.get_tensor(name)[::2] >= 2).all() for name in names)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "there"], "there is there already"),
        (["--out", "new", "bpw=2.5,4.0"], "one checkpoint is made at a time"),
        (["--out", "new", "bpw=12"], "EXL2 weights have 2.0 to 8.0 bits"),
        (["--out", "new", "cache=Q4"], "depends on model, bpw, head_bits and engine alone"),
        (["--out", "new", "--shard-size", "many"], "is not a size"),
        (["--out", "new", "--shard-size", "4"], "did you mean 4GiB?"),
        (["--out", "new", "--seed", "-1"], "give a number from 0"),
        (["--out", "there/file/new"], "cannot be made"),
        (["--out", "new", "model=llama_3_1_70"], "Did you mean llama_3_1_70b"),
        (["--out", "new", "model=glm_4_6v_fp8"], "does not know the architecture"),
    ],
)
def test_what_cannot_be_made_is_refused_in_a_line(
    in_process: Program, tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    model = [] if any(word.startswith("model=") for word in arguments) else ["model=tinyllama_1_1b"]
    refused = in_process("synth", *model, *arguments)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "new").exists()


def test_weights_that_are_there_get_a_twin_with_other_values(in_process: Program, tmp_path: Path, model: str) -> None:
    assert in_process("synth", "model=local", model, "bpw=3.0", "--out", "given").returncode == 0
    twin = in_process(
        "synth", "model=local", "model.path=given", "--seed", "5", "--shard-size", "1MiB", "--out", "twin"
    )
    assert twin.returncode == 0, twin.stderr
    given, made = read(tmp_path / "given"), read(tmp_path / "twin")
    assert given.keys() == made.keys()
    for name, values in given.items():
        assert (values.dtype, values.shape) == (made[name].dtype, made[name].shape)
        same = name.endswith((".q_groups", ".q_scale_max")) or "norm" in name
        assert (values == made[name]).all() == same, name


def test_a_twin_of_weights_in_another_format_is_refused(in_process: Program, tmp_path: Path, model: str) -> None:
    save_file({"model.norm.weight": np.ones(8, np.float64)}, tmp_path / "small" / "model.safetensors")
    refused = in_process("synth", "model=local", model, "--out", "twin")
    assert refused.returncode == 2
    assert "weights of type F64" in refused.stderr


@pytest.mark.parametrize(("kind", "dtype"), [("F32", np.float32), ("BF16", np.uint16), ("F16", np.float16)])
def test_a_twin_of_unquantised_weights_keeps_their_type_and_is_random(
    in_process: Program, tmp_path: Path, kind: str, dtype: type
) -> None:
    """An FP32 checkpoint of ones; of BF16 the bits are compared."""
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": 1, "vocab_size": 256}))
    linear = {"self_attn.q_proj": (256, 256), "self_attn.k_proj": (128, 256), "self_attn.v_proj": (128, 256)}
    linear |= {"self_attn.o_proj": (256, 256), "mlp.gate_proj": (768, 256), "mlp.up_proj": (768, 256)}
    shapes: dict[str, tuple[int, ...]] = {f"model.layers.0.{name}.weight": shape for name, shape in linear.items()}
    shapes |= {"model.layers.0.mlp.down_proj.weight": (256, 768), "model.norm.weight": (256,)}
    shapes |= {f"model.layers.0.{norm}.weight": (256,) for norm in ("input_layernorm", "post_attention_layernorm")}
    shapes |= {"model.embed_tokens.weight": (256, 256), "lm_head.weight": (256, 256)}
    headers.write_header(
        tmp_path / "one" / "model.safetensors", {name: (kind, shape) for name, shape in shapes.items()}
    )
    made = in_process("synth", "model=local", "model.path=one", "--out", "twin")
    assert made.returncode == 0, made.stderr
    found = headers.read(tmp_path / "twin" / "model.safetensors")
    assert {name: (of, shape) for name, (of, shape, _) in found.items()} == {
        name: (kind, shape) for name, shape in shapes.items()
    }
    for name, (_, shape, data) in found.items():
        values = np.frombuffer(data, dtype)
        if len(shape) == 1:
            assert (values == (0x3F80 if kind == "BF16" else 1)).all(), name
        else:
            numbers = (values.astype(np.uint32) << 16).view(np.float32) if kind == "BF16" else values
            assert numbers.std() == pytest.approx(shape[-1] ** -0.5, rel=0.1), name


def _rows(results_dir: Path) -> list[dict[str, Any]]:
    from bench.store.store import read_cases

    return list(read_cases(results_dir)[0].to_pylist())
