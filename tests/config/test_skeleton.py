"""Group tables from shapes, as the engine reads them, and directories that appear complete or not at all."""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from bench.config import skeleton
from bench.config.skeleton import Beginning, group_table
from bench.core.errors import BadInput

BITS = (2, 3, 4, 5, 6, 8)
CONFIG = Beginning(b"{}", 2)


def _read(table: bytes, packed_rows: int) -> tuple[list[int], list[int], list[int]]:
    """Bits, first packed row and rows of each group, the last as ExLlamaV2's make_group_map computes them."""
    numbers = struct.unpack(f"<{len(table) // 2}h", table)
    bits, first = list(numbers[0::2]), list(numbers[1::2])
    ends = [*first[1:], packed_rows]
    return bits, first, [(end - start) * 32 // b for b, start, end in zip(bits, first, ends, strict=True)]


def _check(table: bytes, rows: int, packed_rows: int, groups: int) -> None:
    bits, first, group_rows = _read(table, packed_rows)
    assert len(bits) == groups
    assert set(bits) <= set(BITS)
    assert bits == sorted(bits, reverse=True)
    assert first[0] == 0
    assert all(before < after for before, after in itertools.pairwise([*first, packed_rows]))
    assert sum(group_rows) == rows


@given(sizes=st.lists(st.tuples(st.sampled_from(BITS), st.integers(1, 4)), min_size=1, max_size=200))
def test_whatever_a_quantiser_packs_has_a_table(sizes: list[tuple[int, int]]) -> None:
    rows, packed_rows = sum(32 * units for _, units in sizes), sum(bits * units for bits, units in sizes)
    if len({bits for bits, _ in sizes}) <= 2 or len(sizes) > 2:
        table = group_table(rows, packed_rows, len(sizes))
        assert table is not None
        _check(table, rows, packed_rows, len(sizes))


def test_small_shapes_have_a_table_exactly_if_there_is_one() -> None:
    for units in range(1, 7):
        mixes = list(itertools.combinations_with_replacement(BITS, units))
        for packed_rows, groups in itertools.product(range(8 * units + 3), range(units + 2)):
            exists = groups <= units and any(sum(mix) == packed_rows and len({*mix}) <= groups for mix in mixes)
            table = group_table(32 * units, packed_rows, groups)
            assert (table is not None) == exists, (units, packed_rows, groups)
            if table is not None:
                _check(table, 32 * units, packed_rows, groups)


def test_the_quantisers_own_layout_is_found_again() -> None:
    # 4096 rows: 4 groups of 128 rows with 4 bits, 28 with 3
    bits, first, rows = _read(group_table(4096, 4 * 16 + 28 * 12, 32) or b"", 400)
    assert bits == [4] * 4 + [3] * 28
    assert first == [*range(0, 64, 16), *range(64, 400, 12)]
    assert rows == [128] * 32


@pytest.mark.parametrize(
    ("rows", "packed_rows", "groups"),
    [
        (0, 1, 1),
        (48, 6, 1),  # half a unit
        (64, 3, 1),  # less than 2 bits
        (64, 17, 2),  # more than 8
        (32, 7, 1),  # 7 bits
        (64, 8, 3),  # groups of less than 32 rows
        (64, 8, 0),
        (1 << 18, 1 << 15, 4),  # more packed rows than int16 can say
    ],
)
def test_what_no_layer_can_be_has_no_table(rows: int, packed_rows: int, groups: int) -> None:
    assert group_table(rows, packed_rows, groups) is None


def _header(path: Path) -> Beginning:
    data = path.read_bytes()
    return Beginning(data[: 8 + int.from_bytes(data[:8], "little")], len(data))


@pytest.fixture
def exl2(tmp_path: Path, write_exl2: Callable[..., None]) -> Path:
    write_exl2(tmp_path, "model.layers.0.mlp.up_proj")
    return tmp_path / "output.safetensors"


def test_a_skeleton_has_the_header_and_the_size_of_the_file_and_a_group_table(exl2: Path, tmp_path: Path) -> None:
    skeleton.write(tmp_path / "made" / "it", {"config.json": CONFIG, exl2.name: _header(exl2)}, "it")
    made = tmp_path / "made" / "it" / exl2.name
    assert made.stat().st_size == exl2.stat().st_size
    assert _header(made) == _header(exl2)
    with safe_open(made, framework="numpy") as file:
        groups = file.get_tensor("model.layers.0.mlp.up_proj.q_groups")
        assert not file.get_tensor("model.layers.0.mlp.up_proj.q_weight").any()
    assert groups.tolist() == [4, 0, 4, 4]


def test_parts_of_a_layer_may_lie_in_different_files(tmp_path: Path) -> None:
    files = {"config.json": CONFIG}
    parts = {"q_weight": ("I32", [8, 64], 2048), "q_invperm": ("I32", [64], 256), "q_groups": ("I16", [4], 8)}
    for part, (dtype, shape, size) in parts.items():
        entry = {f"a.{part}": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}
        text = json.dumps(entry).encode()
        files[f"{part}.safetensors"] = Beginning(struct.pack("<Q", len(text)) + text, 8 + len(text) + size)
    skeleton.write(tmp_path / "it", files, "it")
    with safe_open(tmp_path / "it" / "q_groups.safetensors", framework="numpy") as file:
        assert file.get_tensor("a.q_groups").tolist() == [4, 0, 4, 4]


def test_of_a_skeleton_that_cannot_be_made_nothing_is_left(exl2: Path, tmp_path: Path) -> None:
    whole = _header(exl2)
    for beginning in (
        Beginning(whole.data, whole.size_bytes - 1),
        Beginning(whole.data.replace(b"[8,64]", b"[7,64]"), whole.size_bytes),
        Beginning(b"", 0),
    ):
        with pytest.raises(BadInput, match=r"it: output\.safetensors has a broken safetensors header"):
            skeleton.write(tmp_path / "made" / "it", {"config.json": CONFIG, exl2.name: beginning}, "it")
        assert list((tmp_path / "made").iterdir()) == []


@pytest.mark.parametrize("lacking", ["q_invperm", "q_groups"])
def test_a_layer_that_lacks_a_part_is_no_exl2_layer(exl2: Path, tmp_path: Path, lacking: str) -> None:
    data = _header(exl2).data.replace(f".{lacking}".encode(), b"." + b"x" * len(lacking))
    with pytest.raises(BadInput, match=r"it: model\.layers\.0\.mlp\.up_proj is no EXL2 layer"):
        skeleton.write(
            tmp_path / "made", {"config.json": CONFIG, exl2.name: Beginning(data, exl2.stat().st_size)}, "it"
        )


def test_a_layer_whose_rows_cannot_be_packed_so_is_no_exl2_layer(
    tmp_path: Path, write_exl2: Callable[..., None]
) -> None:
    write_exl2(tmp_path, "up_proj", bits=9)
    path = tmp_path / "output.safetensors"
    with pytest.raises(BadInput, match="no mix of 2 to 8 bits packs 64 rows, in 2 groups of 32 or a multiple, into 18"):
        skeleton.write(tmp_path / "made", {"config.json": CONFIG, path.name: _header(path)}, "it")


def test_two_that_make_the_same_skeleton_both_have_it(
    exl2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"config.json": CONFIG, exl2.name: _header(exl2)}
    directory = tmp_path / "made" / "it"
    rename = Path.rename

    def after_the_other(path: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "rename", rename)
        skeleton.write(directory, files, "it")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", after_the_other)
    skeleton.write(directory, files, "it")
    assert sorted(path.name for path in directory.iterdir()) == ["config.json", "output.safetensors"]
    assert [path.name for path in directory.parent.iterdir()] == ["it"]
