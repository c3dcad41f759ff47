"""What a table of published figures may have in it, and what becomes of each line."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from bench.core.errors import BadInput
from bench.published.figures import sizes_of
from bench.published.models import Models
from bench.published.refused import NotComparable
from bench.published.settings import setting_of
from bench.published.table import COLUMNS, Entry, read_table

LINE = {
    **dict.fromkeys(COLUMNS, ""),
    "id": "some-one",
    "kind": "vram",
    "model": "Llama-2-7B",
    "base_arch": "llama2-7b",
    "quant_format": "EXL2",
    "bpw": "4.0",
    "head_bits": "6",
    "cache_type": "FP16",
    "max_seq_len": "4096",
    "chunk_max_input_len": "2048",
    "attention": "matmul",
    "gpu": "RTX 3090 24GB",
    "n_gpu": "1",
    "os": "Linux",
    "trust": "A",
    "layers": "32",
    "hidden": "4096",
    "intermediate": "11008",
    "n_experts": "1",
    "n_heads": "32",
    "n_kv_heads": "32",
    "head_dim": "128",
    "vocab": "32000",
    "engine_version": "exllamav2 0.0.11",
    "figure": "peak",
    "value": "5,331",
    "unit": "MiB",
    "source_url": "https://example.org/figure",
}


def written(path: Path, *lines: dict[str, str], columns: tuple[str, ...] = COLUMNS) -> Path:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    path.write_text(text.getvalue())
    return path


def entry(path: Path, **changed: str) -> Entry:
    (only,) = read_table(written(path / "table.csv", {**LINE, **changed}))
    return only


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"kind": "memory"}, "line 3, column kind: memory; allowed are vram, oom, fit, speed"),
        ({"value": "much"}, "line 3, column value: much: no number in it"),
        ({"value": "-5"}, "line 3, column value: -5: less than nothing"),
        ({"value": ""}, "line 3, column value: empty"),
        ({"layers": "3x"}, "line 3, column layers: 3x; write a whole number"),
        ({"layers": "0"}, "line 3, column layers: 0; write a whole number"),
        ({"source_url": "a friend"}, "line 3, column source_url: a friend"),
    ],
)
def test_a_line_that_is_none_is_refused_with_its_line_and_column(
    changed: dict[str, str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput) as refused:
        read_table(written(tmp_path / "table.csv", LINE, {**LINE, **changed}))
    assert said in str(refused.value)


def test_a_table_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    for content, said in (
        (b"", "empty"),
        (b"id,kind\n", "line 1: no column model, base_arch"),
        (",".join(COLUMNS).encode() + b"\n", "no line below"),
        (",".join(COLUMNS).encode() + b"\na,vram\n", "line 2, column kind: the line has 2 fields"),
        (",".join(COLUMNS).encode() + b'\n"a\n', "line 2: "),
        (b"\xff\xfe", "no UTF-8"),
    ):
        path.write_bytes(content)
        with pytest.raises(BadInput) as refused:
            read_table(path)
        assert said in str(refused.value)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"base_arch": "unheard-of-3b"}, "shape unknown"),
        ({"base_arch": "unheard-of-3b", "layers": ""}, "shape unknown"),
        ({"gpu": "not told"}, "card not told"),
        ({"gpu": "Riva 128"}, "Riva 128: card without a file in conf/device"),
        ({"gpu": "RX 6700 XT 12GB (ROCm)"}, "AMD"),
        ({"n_gpu": "2"}, "several cards"),
        ({"os": "Windows"}, "Windows"),
        ({"cache_type": "FP8"}, "FP8"),
        ({"quant_format": "GPTQ"}, "GPTQ"),
        ({"bpw": "any"}, "bpw any"),
        ({"max_seq_len": "not told"}, "max_seq_len not told"),
        ({"engine_version": "llama.cpp b9000"}, "no engine of this program"),
    ],
)
def test_what_cannot_be_compared_says_why(changed: dict[str, str], reason: str, tmp_path: Path) -> None:
    told = entry(tmp_path, **changed)
    with pytest.raises(NotComparable) as left_out:
        setting_of(told, Models([told]))
    assert reason in str(left_out.value)


def test_what_a_source_does_not_tell_is_assumed_and_named(tmp_path: Path) -> None:
    told = entry(tmp_path, cache_type="not told", attention="not told", gpu="not told (author uses RTX 3090)")
    setting = setting_of(told, Models([told]))
    assert (setting.case.device.name, setting.case.cache, setting.case.attention) == ("rtx_3090", "FP16", "auto")
    assert [text.split(" ")[0] for text in setting.unknown] == ["card", "cache", "attention"]
    assert setting_of(entry(tmp_path), Models([told])).unknown == ()


@pytest.mark.parametrize(
    ("value", "unit", "phase", "sizes"),
    [
        ("9460.25", "MB(decimal)", "", [(9460.25e6, 5e3, "")]),
        ("14705 +-5 (14.36 GiB)", "MiB", "cache", [(14705 * 2**20, 5 * 2**20, "cache")]),
        ("3.36 GiB", "MiB", "", [(3.36 * 2**30, 0.005 * 2**30, "")]),
        ("10051483456 B", "MiB", "", [(10051483456, 0.5, "")]),
        (
            "3019 / 3891 (idle card taken off); steps +872",
            "MiB",
            "load / speed",
            [(3019 * 2**20, 2**19, "load"), (3891 * 2**20, 2**19, "speed")],
        ),
        ("18-19", "GB", "", [(18.5 * 2**30, 2**30, "")]),
        ("lm_head 527405248, gate 1874073600 B", "MiB", "", [(527405248, 0.5, "lm_head"), (1874073600, 0.5, "gate")]),
    ],
)
def test_a_value_is_read_with_its_unit_and_how_exact_it_is(
    value: str, unit: str, phase: str, sizes: list[tuple[float, float, str]], tmp_path: Path
) -> None:
    read = sizes_of(entry(tmp_path, value=value, unit=unit, phase=phase))
    assert [(each.of, pytest.approx(each.size_bytes), pytest.approx(each.off_bytes)) for each in read] == [
        (of, size, off) for size, off, of in sizes
    ]


@pytest.mark.parametrize("value", ["14,5", ">20", "< 16", "999999999999999999"])
def test_a_value_that_may_mean_several_things_is_compared_with_nothing(value: str, tmp_path: Path) -> None:
    with pytest.raises(NotComparable):
        sizes_of(entry(tmp_path, value=value, unit="GB"))
