"""Files of a checkpoint: split by size, read by safetensors, without disk where there is nothing to hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from bench.synth.layout import Content, Layout, Tensor
from bench.synth.shards import index, split, tables_only, write_shard


def tensor(name: str, size_bytes: int) -> Tensor:
    return Tensor(name, "F16", (size_bytes // 2,), Content.ONES)


@given(
    sizes=st.lists(st.integers(0, 50).map(lambda n: 2 * n), min_size=1, max_size=30), shard_bytes=st.integers(1, 120)
)
def test_shards_keep_to_their_size_and_lose_nothing(sizes: list[int], shard_bytes: int) -> None:
    tensors = [tensor(str(number), size) for number, size in enumerate(sizes)]
    shards = split(tensors, shard_bytes)
    assert [each for shard in shards.values() for each in shard] == tensors
    for shard in shards.values():
        held = [each.size_bytes for each in shard]
        assert sum(held) <= shard_bytes or max(held) > shard_bytes >= sum(held) - max(held)
    if len(shards) > 1:
        assert index(shards)["weight_map"].keys() == {each.name for each in tensors}
        assert index(shards)["metadata"]["total_size"] == sum(sizes)


def test_files_of_one_and_of_several() -> None:
    tensors = [tensor("a", 60), tensor("b", 60), tensor("c", 20)]
    assert list(split(tensors, 1000)) == ["model.safetensors"]
    assert list(split(tensors, 100)) == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


def test_holes_read_as_zeros_and_take_no_disk(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    groups = (4, 0, 3, 16)
    tensors = [
        Tensor("l.q_weight", "I32", (40, 1 << 16), Content.QUANTS, groups),
        Tensor("l.q_groups", "I16", (4,), Content.GROUPS, groups),
    ]
    write_shard(path, tensors, tables_only, {"who": "me"})
    with safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"who": "me"}
        assert file.get_tensor("l.q_groups").tolist() == [4, 0, 3, 16]
        assert not np.any(file.get_tensor("l.q_weight"))
    assert path.stat().st_blocks * 512 <= 1 << 16


def test_a_layout_survives_its_json() -> None:
    layout = Layout(
        {"config.json": {"a": 1}}, [Tensor("x", "I16", (4,), Content.GROUPS, (4, 0, 3, 16)), tensor("y", 8)]
    )
    assert Layout.from_json(layout.to_json()) == layout
    assert layout.size_bytes == 16
