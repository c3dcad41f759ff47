"""Every reader of what anybody may have written, with what it may raise, and inputs that are nearly right."""

from __future__ import annotations

import copy
import json
import random
import sqlite3
import struct
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.analysis.quality import UnusableQuality, read_quality
from bench.config import hub_answers, models
from bench.config.settings import ModelSettings
from bench.core.errors import BadInput
from bench.core.messages import Entered, read_message
from bench.core.outcome import Phase
from bench.core.wire import encode
from bench.forecast.cache import ForecastStore
from bench.store.journal import Journal
from bench.store.store import compact, read_cases, to_be_shown
from bench.tensor_files import BrokenHeader, read_header
from tests.commands.test_refused_models import SMALL
from tests.store.test_store import REQUIRED
from tests.synth import headers

CONFIG: dict[str, Any] = {
    **SMALL,
    "rope_theta": 10000.0,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 1024},
    "quantization_config": {"quant_method": "exl2", "bits": 4.0},
}
_ODD = (
    *(None, True, False, 0, -1, 1, 0.5, 10**6, 10**12, 10**30, -(10**18), float("nan"), float("inf"), 1e308, 1e-308),
    *("", "x", "-1", "4096", "x" * 70_000, "\x1b[31m", "\ud800", "../..", [], {}, [[]], [0] * 1000, {"a": {}}),
)


@dataclass(frozen=True)
class Reader:
    """`seed` is a right input; `read` has a file (or its bytes) read, and raises one of `refusals` for a bad one."""

    name: str
    seed: bytes
    read: Callable[[Path, bytes], Any]
    refusals: tuple[type[Exception], ...]
    is_json: bool = False


def _at(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _config(folder: Path, data: bytes) -> Any:
    _at(folder / "config.json", data)
    models.forget()
    return [models.resolve_model(ModelSettings(name="local", path=str(folder)), engine=engine) for engine in ENGINES]


ENGINES = ("exllamav2", "exllamav3")


def _journal(folder: Path, data: bytes) -> Any:
    _at(folder / "journal-host-1.jsonl", data)
    return to_be_shown(read_cases(folder))[0].num_rows


def _parquet(folder: Path, data: bytes) -> Any:
    _at(folder / "cases.parquet", data)
    return to_be_shown(read_cases(folder))[0].to_pandas()


def _forecasts(folder: Path, data: bytes) -> Any:
    return ForecastStore(_at(folder / "forecasts.sqlite", data)).read(["key"])


def readers(scratch: Path) -> Sequence[Reader]:
    """All of them; `scratch` is an empty folder."""
    run_dir = scratch / "run"
    journal = Journal(run_dir)
    for number in range(3):
        journal.append({**REQUIRED, "case_id": f"{number:016x}", "notes": ["a note"], "peak_device_bytes": 1 << 30})
    journal.close()
    lines = next(run_dir.glob("journal-*")).read_bytes()
    parquet = compact(run_dir)
    assert parquet is not None
    tensors = scratch / "x.safetensors"
    headers.write_header(tensors, {"a.q_weight": ("I32", (8, 64)), "a.q_groups": ("I16", (4,))})
    database = scratch / "x.sqlite"
    with closing(sqlite3.connect(database)) as made, made:
        made.execute("CREATE TABLE forecasts (key TEXT PRIMARY KEY, text TEXT NOT NULL)")
        made.execute("INSERT INTO forecasts VALUES ('key', '{}')")
    answer = {"sha": "0" * 40, "siblings": [{"rfilename": "config.json", "size": 2, "lfs": {"size": 2}}]}
    message = encode(Entered(Phase.LOAD)).encode()
    quality = b"model,bpw,cache,quality\nx,4.0,FP16,6.5\ny,5.0,Q4,6.4\n"
    return (
        Reader("config.json", json.dumps(CONFIG).encode(), _config, (BadInput,), is_json=True),
        Reader(
            "safetensors header",
            tensors.read_bytes(),
            lambda folder, data: read_header(_at(folder / "x.safetensors", data)),
            (BrokenHeader, OSError),
        ),
        Reader(
            "hub's answer",
            json.dumps(answer).encode(),
            lambda _, data: hub_answers.checked(hub_answers.ModelAnswer, data).sizes_bytes,
            (hub_answers.NoHub,),
            is_json=True,
        ),
        Reader("journal", lines, _journal, ()),
        Reader("journal, by value", lines.split(b"\n")[0] + b"\n", _journal, (), is_json=True),
        Reader("parquet", parquet.read_bytes(), _parquet, ()),
        Reader("forecasts", database.read_bytes(), _forecasts, ()),
        Reader("child's message", message, lambda _, data: read_message(data), (ValueError,)),
        Reader(
            "quality",
            quality,
            lambda folder, data: read_quality(_at(folder / "quality.csv", data)),
            (UnusableQuality,),
        ),
    )


def changed(reader: Reader, chance: random.Random) -> bytes:
    """An input that is nearly right: values of JSON replaced, or bytes changed, cut, doubled, put in."""
    if reader.is_json and chance.random() < 0.7:
        document = json.loads(reader.seed)
        for _ in range(chance.choice((1, 1, 2, 3))):
            document = _replaced(document, chance)
        return json.dumps(document).encode() + b"\n"
    data = bytearray(reader.seed)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at, length = chance.randrange(len(data) + 1), chance.choice((1, 1, 4, 8, 64))
        how = chance.randrange(6)
        if how == 0:
            data[at : at + length] = chance.randbytes(length)
        elif how == 1 and data:
            data[min(at, len(data) - 1)] ^= 1 << chance.randrange(8)
        elif how == 2:
            del data[at : at + length]
        elif how == 3:
            data[at:at] = data[at : at + length] * chance.choice((1, 2, 100))
        elif how == 4:
            data[at : at + 8] = struct.pack("<Q", chance.choice((0, 1, (1 << 31) - 1, (1 << 32), (1 << 63) - 1)))
        else:
            data[at:at] = chance.choice((b"[" * 2000, b"{", b'"', b"\x00", b"\xff", b"\n", b"9" * 5000, b"NaN", b"-"))
    return bytes(data)


def _replaced(document: Any, chance: random.Random) -> Any:
    """A document with one value of it, at any depth, replaced by an odd one, dropped, or put below another key."""
    if not isinstance(document, dict | list) or not document or chance.random() < 0.1:
        return copy.deepcopy(chance.choice(_ODD))
    keys: Sequence[Any] = list(document) if isinstance(document, dict) else range(len(document))
    key = chance.choice(keys)
    if chance.random() < 0.1 and isinstance(document, dict):
        del document[key]
    else:
        document[key] = _replaced(document[key], chance)
    return document
