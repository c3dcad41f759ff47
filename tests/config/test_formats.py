"""Weights of other formats are told by name, from a directory and from a hub, before anything is run or written."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.config import formats
from bench.config.cases import plan_sweep
from bench.core.errors import BadInput
from bench.engines.exllamav2.spec import SPEC
from tests.config.conftest import CONFIG
from tests.conftest import Program
from tests.synth import headers

X = "model.layers.0.self_attn.q_proj"
NORM: dict[str, tuple[str, tuple[int, ...]]] = {"model.norm.weight": ("BF16", (64,))}
GPTQ = {f"{X}.qweight": ("I32", (8, 64)), f"{X}.qzeros": ("I32", (1, 8)), f"{X}.scales": ("F16", (1, 64))}
AWQ = {f"{X}.qweight": ("I32", (64, 8)), f"{X}.qzeros": ("I32", (1, 8)), f"{X}.scales": ("F16", (1, 64))}
FP8 = {f"{X}.weight": ("F8_E4M3", (64, 64)), f"{X}.weight_scale_inv": ("F32", (1, 1))}
INT8 = {f"{X}.weight": ("I8", (64, 64)), f"{X}.weight_scale": ("BF16", (64, 1))}
PACKED = {
    f"{X}.weight_packed": ("I32", (64, 8)),
    f"{X}.weight_scale": ("BF16", (64, 1)),
    f"{X}.weight_shape": ("I64", (2,)),
}
NF4 = {
    f"{X}.weight": ("U8", (2048, 1)),
    f"{X}.weight.absmax": ("U8", (64,)),
    f"{X}.weight.quant_map": ("F32", (16,)),
    f"{X}.weight.quant_state.bitsandbytes__nf4": ("U8", (90,)),
}
LLM_INT8 = {f"{X}.weight": ("I8", (64, 64)), f"{X}.SCB": ("F32", (64,)), f"{X}.weight_format": ("U8", ())}
EXL3 = {f"{X}.trellis": ("I16", (4, 4, 64)), f"{X}.suh": ("F16", (64,)), f"{X}.svh": ("F16", (64,))}
EXL2 = {
    f"{X}.q_weight": ("I32", (8, 64)),
    f"{X}.q_invperm": ("I32", (64,)),
    f"{X}.q_scale": ("I32", (1, 8)),
    f"{X}.q_scale_max": ("F16", (1,)),
    f"{X}.q_groups": ("I16", (2,)),
}
MLX = {f"{X}.weight": ("U32", (64, 8)), f"{X}.scales": ("BF16", (64, 1)), f"{X}.biases": ("BF16", (64, 1))}
AQLM = {
    f"{X}.codes": ("I16", (64, 8, 1)),
    f"{X}.codebooks": ("F16", (1, 256, 1, 8)),
    f"{X}.scales": ("F16", (64, 1, 1, 1)),
}
HQQ = {f"{X}.W_q": ("U8", (32, 64)), f"{X}.scale": ("F16", (64, 1)), f"{X}.zero": ("F16", (64, 1))}
VPTQ = {f"{X}.centroids.weight": ("F16", (1, 2048)), f"{X}.indices": ("I32", (1, 8, 64)), f"{X}.perm": ("I64", (64,))}
NVFP4 = {f"{X}.weight": ("U8", (64, 32)), f"{X}.weight_scale": ("F8_E4M3", (64, 4)), f"{X}.weight_scale_2": ("F32", ())}
MXFP4 = {"model.layers.0.mlp.experts.gate_up_proj_blocks": ("U8", (2, 8, 2, 16)), f"{X}.weight": ("BF16", (64, 64))}
PLAIN = {f"{X}.weight": ("BF16", (64, 64))}
ODD = {f"{X}.weight": ("U8", (64, 32)), f"{X}.step": ("F16", (64,))}


def _says(method: str, **more: Any) -> dict[str, Any]:
    return {"quantization_config": {"quant_method": method, **more}}


# Tensors, what config.json adds, and the name that the weights have.
KINDS = [
    (GPTQ, {}, "GPTQ"),
    (GPTQ, _says("gptq"), "GPTQ"),
    ({**AWQ, f"{X}.g_idx": ("I32", (64,))}, {}, "GPTQ"),
    (AWQ, {}, "AWQ"),
    (AWQ, _says("awq"), "AWQ"),
    (GPTQ, _says("awq"), "AWQ"),
    (GPTQ, _says("auto-round"), "AutoRound"),
    (FP8, {}, "FP8"),
    (FP8, _says("fp8"), "FP8"),
    (FP8, _says("compressed-tensors"), "compressed-tensors"),
    (FP8, _says("modelopt", quant_algo="FP8"), "ModelOpt"),
    ({f"{X}.weight": ("F8_E5M2", (64, 64))}, {}, "FP8"),
    (PACKED, {}, "compressed-tensors"),
    (PACKED, _says("compressed-tensors"), "compressed-tensors"),
    (PACKED, {"compression_config": {"quant_method": "sparseml"}}, "compressed-tensors"),
    (INT8, _says("compressed-tensors"), "compressed-tensors"),
    (INT8, {}, "INT8"),
    (NF4, {}, "bitsandbytes"),
    (NF4, _says("bitsandbytes", load_in_4bit=True), "bitsandbytes"),
    (LLM_INT8, {}, "bitsandbytes"),
    (MLX, {}, "MLX"),
    (MLX, {"quantization": {"group_size": 64, "bits": 4}}, "MLX"),
    (AQLM, {}, "AQLM"),
    (AQLM, _says("aqlm"), "AQLM"),
    (HQQ, {}, "HQQ"),
    (HQQ, _says("hqq"), "HQQ"),
    (VPTQ, _says("vptq"), "VPTQ"),
    (NVFP4, {}, "NVFP4"),
    (NVFP4, _says("modelopt"), "ModelOpt"),
    (MXFP4, _says("mxfp4"), "MXFP4"),
    (ODD, _says("bitnet"), "BitNet"),
    (ODD, _says("newfangled_2027"), "weights of quant_method newfangled-2027"),
    ({f"{X}.cells": ("I32", (64, 8))}, _says("newfangled"), "weights of quant_method newfangled"),
    (ODD, {}, "weights of type U8"),
    ({f"{X}.weight": ("F64", (64, 64))}, {}, "weights of type F64"),
    ({f"{X}.weight": ("F8_E4M3", (64, 64))}, {"text_config": _says("fp8")}, "FP8"),
]  # fmt: skip
ACCEPTED = [
    (PLAIN, {}),
    ({**PLAIN, f"{X}.weight": ("F16", (64, 64))}, {}),
    ({**PLAIN, f"{X}.weight": ("F32", (64, 64))}, {}),
    # What config.json says is left from another checkpoint: the tensors are plain.
    (PLAIN, _says("fp8")),
    (PLAIN, _says("bitsandbytes")),
    # Buffers that no engine loads.
    ({**PLAIN, "vision.embeddings.position_ids": ("I64", (1, 64)), "h.0.attn.bias": ("BOOL", (1, 1, 8, 8))}, {}),
]


def _model(folder: Path, tensors: Any, said: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**CONFIG, **said}))
    tables = {name: struct.pack("<2h", 4, 0) for name in tensors if name.endswith(".q_groups")}
    headers.write_header(folder / "model.safetensors", {**NORM, **tensors}, tables)
    return folder


@pytest.mark.parametrize(("tensors", "said", "name"), KINDS)
def test_weights_that_cannot_be_measured_are_refused_by_name(
    in_process: Program, tmp_path: Path, tensors: Any, said: dict[str, Any], name: str
) -> None:
    _model(tmp_path / "m", tensors, said)
    for command in (["plan"], ["sweep", "results_dir=r"], ["synth", "--out", "twin"]):
        on = [] if command[0] == "synth" else ["device=rtx_3060_12gb"]
        refused = in_process(*command, "model=local", "model.path=m", *on)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr.startswith(f"vram-bench: model.path=m: {name}"), refused.stderr
        assert refused.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize(
    ("tensors", "quantised", "engine", "other"),
    [(EXL3, "EXL3", "exllamav3", "exllamav2"), (EXL2, "EXL2", "exllamav2", "exllamav3")],
)
def test_weights_choose_their_engine_and_no_other_loads_them(
    tmp_path: Path, tensors: Any, quantised: str, engine: str, other: str
) -> None:
    folder = _model(tmp_path / "m", tensors, _says("exl3"))  # which config.json may say of weights that are none
    asked = [f"model.path={folder}", "device=t4", "max_seq_len=4096"]
    (case,) = plan_sweep(asked).cases
    assert (case.engine, case.model.bpw) == (engine, 4.5 if quantised == "EXL3" else 4.57)
    assert plan_sweep([*asked, f"engine={engine}"]).cases == [case]
    with pytest.raises(BadInput, match=f"{quantised} weights; .* leave engine out, or give engine={engine}"):
        plan_sweep([*asked, f"engine={other}"])


def test_the_reason_of_gptq_is_told(in_process: Program, tmp_path: Path) -> None:
    _model(tmp_path / "gptq", GPTQ, {})
    said = in_process("plan", "model.path=gptq", "device=t4").stderr
    assert "ExLlamaV2 loads those of 4 bits" in said
    assert "beside PyTorch's allocator" in said


@pytest.mark.parametrize(("tensors", "said"), ACCEPTED)
def test_unquantised_weights_are_no_format_of_their_own(tensors: Any, said: dict[str, Any]) -> None:
    headers_of = {name: (list(shape), kind) for name, (kind, shape) in {**NORM, **tensors}.items()}
    assert formats.refusal(headers_of, said, [], SPEC) is None


def test_exl2_is_read_first_whatever_lies_beside_it() -> None:
    """As ExLlamaV2 does: a layer that has q_weight is EXL2."""
    exl2 = {f"{X}.{part}": ([64, 64], "I32") for part in formats.EXL2_PARTS}
    assert formats.refusal({**exl2, f"{X}.weight": ([64, 64], "F8_E4M3")}, {}, [], SPEC) is None
    other = {X.replace("q_proj", "k_proj") + ".weight": ([64, 64], "F8_E4M3")}
    assert str(formats.refusal({**exl2, **other}, {}, [], SPEC)).startswith("FP8 weights")


@pytest.mark.parametrize("method", ["fp8", "exl3", "awq", "bitsandbytes", "newfangled"])
def test_a_config_alone_is_what_a_quantised_model_is_made_of(method: str) -> None:
    assert formats.refusal({}, _says(method), [], SPEC) is None


@pytest.mark.parametrize(
    ("file", "said", "name"),
    [
        ("model-Q4_K_M.gguf", {}, "GGUF"),
        ("weights.00.npz", {}, "MLX"),
        ("pytorch_model-00001-of-00002.bin", _says("gptq"), "GPTQ"),
        ("gptq_model-4bit-128g.pt", _says("gptq"), "GPTQ"),
    ],
)
def test_quantised_weights_in_files_of_other_kinds_are_refused(
    in_process: Program, tmp_path: Path, file: str, said: dict[str, Any], name: str
) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text(json.dumps({**CONFIG, **said}))
    (tmp_path / "m" / file).write_bytes(b"x")
    refused = in_process("plan", "model.path=m", "device=t4")
    assert refused.returncode == 2
    assert f"model.path=m: {name} weights" in refused.stderr


def test_pickled_weights_that_nobody_quantised_and_other_files_stand_for_a_config_alone() -> None:
    assert formats.refusal({}, {}, ["pytorch_model.bin"], SPEC) is None
    assert not formats.is_weights_file("training_args.bin")
    assert not formats.is_weights_file("tokenizer.model")


@given(st.sampled_from(KINDS), st.sampled_from([*sorted({m for f in formats.FORMATS for m in f.methods}), "other"]))
def test_whatever_config_json_says_no_quantised_tensors_pass_for_others(kind: Any, method: str) -> None:
    tensors = {name: (list(shape), dtype) for name, (dtype, shape) in kind[0].items()}
    if method == "exl2" and kind[2].startswith("weights of quant_method"):
        return  # of these nothing but config.json speaks
    assert formats.refusal(tensors, _says(method), [], SPEC) is not None
