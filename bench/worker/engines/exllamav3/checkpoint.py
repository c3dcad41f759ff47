"""Lays out an EXL3 checkpoint from config.json: names, shapes and bits, no weights.

The bits of every tensor are those that exllamav3's own converter chooses for `convert.py -b BPW -hb HEAD_BITS`: it
measures no error for that, and goes by shapes alone (exllamav3/conversion/allocation.py).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.allocator import dtypes
from bench.core.case import UNQUANTISED_BPW, Case
from bench.core.files import made_directory
from bench.synth.layout import Layout
from bench.synth.shards import tables_only, write_shard
from bench.worker.engines.exllamav3.biases import biased_projections
from bench.worker.engines.exllamav3.modules import tensors_of
from bench.worker.engines.exllamav3.readable import documents_of, read_model

_MTP_BITS = 4  # its own default; of no tensor here


def layout_of(case: Case, layouts: Path) -> Path:
    """The model directory of `case` below `layouts`, written at the first call; its file of weights is a hole."""
    key = f"exl3-{case.model.fingerprint}-{case.bpw}-{case.head_bits}"
    directory = layouts / hashlib.sha256(key.encode()).hexdigest()[:16]
    if not directory.exists():
        layout = lay_out(case.model.config, case.bpw, case.head_bits)
        with made_directory(directory, lambda made: (made / "config.json").exists()) as partial:
            for name, document in layout.documents.items():
                (partial / name).write_text(json.dumps(document))
            write_shard(partial / "model.safetensors", layout.tensors, tables_only, {})
    return directory


def lay_out(config: dict[str, Any], bpw: float, head_bits: int | None) -> Layout:
    """The checkpoint of `config` (a parsed config.json) at `bpw` bits per weight; with 16 unquantised.

    `head_bits` are those of the output layer; None leaves it unquantised. Raises `Unsupported`.
    """
    from exllamav3.conversion.allocation import create_q_strategy

    model = read_model(config)
    strategy: dict[str, float] = {}
    if bpw != UNQUANTISED_BPW:
        head = UNQUANTISED_BPW if head_bits is None else head_bits
        strategy, _ = create_q_strategy(model, None, model.config, bpw, head, _MTP_BITS, 0, half_steps=True)
    tensors = list(tensors_of(model, strategy, biased_projections(config)))
    if bpw == UNQUANTISED_BPW:
        dtype = dtypes.unquantised(config)
        tensors = [replace(tensor, dtype=dtype) if tensor.dtype == "F16" else tensor for tensor in tensors]
    return Layout(documents_of(_with_bits(config, bpw)), tensors)


def _with_bits(config: dict[str, Any], bpw: float) -> dict[str, Any]:
    """As the converter writes it; another method's own entry would be of other weights."""
    plain = {key: value for key, value in config.items() if key != "quantization_config"}
    return plain if bpw == UNQUANTISED_BPW else {**plain, "quantization_config": {"quant_method": "exl3", "bits": bpw}}
