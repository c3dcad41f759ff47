"""`bpw=16` is the type that the model is published in: what a user sees of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.allocator.dtypes import assumptions
from bench.store.store import read_boundaries, read_cases
from tests.conftest import Program

SMALL: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
}
ASSUMED = "weights of BF16 assumed: config.json names no torch_dtype"


def _config(folder: Path, **more: Any) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**SMALL, **more}))


def test_llama_3_1_8b_in_bf16_on_a_card_of_16_gb(in_process: Program, tmp_path: Path) -> None:
    """As its real checkpoint: ExLlamaV2 casts each tensor on the card, two copies at a time, and leaves holes."""
    swept = in_process("sweep", "model=llama_3_1_8b", "bpw=16", "cache=Q4", "device=rtx_4060_ti_16gb", "results_dir=r")
    assert swept.returncode == 0, swept.stderr
    boundaries = read_boundaries(tmp_path / "r")[0].to_pylist()
    assert {row["cache"]: (row["fits_at"], row["fails_at"], row["certified"]) for row in boundaries} == {
        "Q4": (6912, 7168, True),
    }
    for row in read_cases(tmp_path / "r")[0].to_pylist():
        assert row["outcome"] == ("oom" if row["max_seq_len"] == 7168 else "fits")
        if row["outcome"] == "fits":
            assert row["predicted_peak_bytes"] == row["peak_allocated_bytes"]
        assert ASSUMED not in (row["notes"] or [])  # its config.json says bfloat16


def test_the_type_that_config_json_names_decides_what_is_loaded(in_process: Program, tmp_path: Path) -> None:
    told = {"bf16": {"torch_dtype": "bfloat16"}, "f16": {"dtype": "float16"}, "f32": {"torch_dtype": "float32"}}
    told |= {"text": {"text_config": {"torch_dtype": "float16"}}, "none": {}}
    for name, more in told.items():
        _config(tmp_path / name, **more)
    models = f"model.path={','.join(told)}"
    swept = in_process(
        *("sweep", "model=local", models, "bpw=16", "device=rtx_3060_12gb", "max_seq_len=1024", "results_dir=r")
    )
    assert swept.returncode == 0, swept.stderr
    rows = {row["model"]: row for row in read_cases(tmp_path / "r")[0].to_pylist()}
    assert all(row["predicted_peak_bytes"] == row["peak_allocated_bytes"] for row in rows.values())
    reserved = {name: row["peak_reserved_bytes"] for name, row in rows.items()}
    assert reserved["f16"] == reserved["text"] < reserved["bf16"] == reserved["none"] < reserved["f32"]
    assert [name for name, row in rows.items() if ASSUMED in row["notes"]] == ["none"]


def test_a_plan_says_that_it_assumes_bf16(in_process: Program, tmp_path: Path) -> None:
    _config(tmp_path / "none")
    _config(tmp_path / "told", torch_dtype="bfloat16")
    said = {}
    for name in ("none", "told"):
        planned = in_process("plan", f"model.path={name}", "bpw=4,16", "device=rtx_3060_12gb", "--json")
        assert planned.returncode == 0, planned.stderr
        said[name] = {search["bpw"]: ASSUMED in search["assumed"] for search in json.loads(planned.stdout)["cells"]}
    assert said == {"none": {4.0: False, 16.0: True}, "told": {4.0: False, 16.0: False}}


@pytest.mark.parametrize(
    ("told", "kind"), [("float16", "F16"), ("bfloat16", "BF16"), ("float32", "F32"), (None, "BF16")]
)
def test_synth_writes_the_type_that_config_json_names(
    in_process: Program, tmp_path: Path, told: str | None, kind: str
) -> None:
    from safetensors import safe_open

    _config(tmp_path / "m", **({"torch_dtype": told} if told else {}))
    made = in_process("synth", "model=local", "model.path=m", "bpw=16", "--out", "made")
    assert made.returncode == 0, made.stderr
    with safe_open(tmp_path / "made" / "model.safetensors", framework="np") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {kind}


def test_a_type_that_is_none_of_the_engines_is_told_as_it_is_named() -> None:
    (note,) = assumptions({"torch_dtype": "float8_e4m3fn"}, bpw=16.0, has_weights=False)
    assert note == "weights of BF16 assumed: config.json names torch_dtype float8_e4m3fn, which is none that is loaded"
