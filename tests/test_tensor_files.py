"""Headers of safetensors files, as the library that writes them sees them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from bench.tensor_files import BrokenHeader, read_header


def test_entries_are_what_the_library_has_and_say_where_the_values_are(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    values = {"b": np.arange(6, dtype=np.int32).reshape(2, 3), "a": np.ones(5, np.float16), "none": np.ones((0, 4))}
    save_file(values, path, {"made_by": "a test"})
    entries = read_header(path)
    assert list(entries) == sorted(values)
    data = path.read_bytes()
    with safe_open(path, framework="numpy") as file:
        for name, entry in entries.items():
            part = file.get_slice(name)
            assert (entry.shape, entry.dtype) == (tuple(part.get_shape()), part.get_dtype())
            assert data[entry.start : entry.end] == values[name].tobytes()
            assert entry.size_bytes == values[name].nbytes


@pytest.mark.parametrize(
    "damaged",
    [
        lambda data: data[:-1],
        lambda data: data + b"0",
        lambda data: data[:4],
        lambda data: b"",
        lambda data: struct.pack("<Q", 1 << 60) + data[8:],
        lambda data: struct.pack("<Q", 2) + b"[]" + data[10:],
        lambda data: data.replace(b'"F16"', b'"F17"'),
        lambda data: data.replace(b"[0,10]", b"[0,99]"),
    ],
)
def test_what_is_no_whole_file_is_broken(tmp_path: Path, damaged: object) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": np.ones(5, np.float16)}, path)
    whole = path.read_bytes()
    assert callable(damaged)
    assert damaged(whole) != whole
    path.write_bytes(damaged(whole))
    with pytest.raises(BrokenHeader):
        read_header(path)
