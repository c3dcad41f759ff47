"""Which part an allocation is counted for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bench.allocator.parts import PARTS
from bench.worker.engines.exllamav2 import attribution, session
from bench.worker.engines.exllamav2.attribution import part_of


def stack(*frames: tuple[str, str]) -> Any:
    """A made-up Python stack, innermost frame first."""
    frame = None
    for file, function in reversed(frames):
        code = SimpleNamespace(co_filename=f"/site-packages/exllamav2/{file}", co_name=function)
        frame = SimpleNamespace(f_code=code, f_back=frame)
    return frame


@pytest.mark.parametrize(
    ("frames", "part"),
    [
        ([("stloader.py", "get_tensor"), ("module.py", "load_multi"), ("linear.py", "load")], "weights"),
        ([("device.py", "prepare"), ("device.py", "get_scratch_slice"), ("linear.py", "load")], "scratch"),
        ([("rope.py", "get_rope_params"), ("device.py", "prepare_sincos"), ("attn.py", "load")], "rope"),
        ([("cache.py", "touch_device"), ("cache.py", "update_cache_tensors"), ("model.py", "x")], "cache"),
        ([("attn.py", "_attn_flash"), ("attn.py", "forward"), ("model.py", "forward_chunk")], "attention"),
        ([("linear.py", "forward"), ("model.py", "forward_chunk")], "logits"),
        ([("linear.py", "forward"), ("mlp.py", "forward_torch"), ("model.py", "forward_chunk")], "activations"),
        ([("model.py", "load_autosplit_gen")], "reserve"),
        ([("compat.py", "safe_move_tensor"), ("model.py", "load_autosplit_gen")], "activations"),
        ([("compat.py", "safe_move_tensor"), ("ext.py", "make_q_matrix"), ("linear.py", "load")], "weights"),
        ([("generator.py", "sample")], "other"),
    ],
)
def test_the_innermost_known_frame_decides(
    monkeypatch: pytest.MonkeyPatch, frames: list[tuple[str, str]], part: str
) -> None:
    classify = attribution._classify
    monkeypatch.setattr(attribution, "_known", SimpleNamespace(get=classify, __setitem__=None))
    assert PARTS[part_of(stack(*frames))] == part


def test_our_own_folder_of_the_same_name_is_not_the_engine() -> None:
    ours = SimpleNamespace(co_filename=session.__file__, co_name="load")
    assert attribution._classify(ours) == attribution._UNKNOWN  # type: ignore[arg-type]
