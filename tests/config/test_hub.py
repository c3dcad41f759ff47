"""Models of a hub: against a hub on this machine, planned here and run from the command line."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants, snapshot_download
from safetensors import safe_open
from safetensors.numpy import save_file

from bench.config import devices, hub, models
from bench.config.cases import plan_sweep
from bench.core.case import Case
from bench.core.errors import BadInput
from bench.nvml import Gpu
from tests.config import test_formats as kinds
from tests.config.conftest import CONFIG
from tests.config.hub_server import TOKEN, Hub, Repository
from tests.conftest import Program
from tests.synth import headers
from tests.synth.exl2 import read

REPO = "some-org/Tiny-4.0bpw-exl2"
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 8192,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_LAY_OUT = """
import json, sys
from pathlib import Path
from bench.core.case import Case, DeviceSpec, ModelSpec
from bench.worker.engines.exllamav2.checkpoint import write_checkpoint
from bench.worker import cards
config = json.loads(sys.argv[2])
device = DeviceSpec("d", "simulated", "D", 8 << 30, "8.9", 128, 1e12, 0)
case = Case(ModelSpec("m", config, "f"), device, 4.0, 6, "FP16", False, "auto", 512, 1, 512)
with cards.open_machine(case):
    write_checkpoint(Path(sys.argv[1]), config, 4.0, 6)
"""


@pytest.fixture(scope="session")
def exl2_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of EXL2 weights as the quantiser leaves them: two files, and a body that is no hole."""
    base = tmp_path_factory.mktemp("exl2")
    # Elsewhere, because the simulated card replaces parts of torch.
    subprocess.run([sys.executable, "-c", _LAY_OUT, str(base / "laid_out"), json.dumps(LLAMA)], check=True)
    tensors: dict[str, Any] = {}
    rng = np.random.default_rng(0)
    with safe_open(base / "laid_out" / "model.safetensors", framework="numpy") as file:
        for name in file.keys():
            tensor = file.get_tensor(name)
            noise = rng.integers(0, 255, tensor.nbytes, dtype=np.uint8).view(tensor.dtype).reshape(tensor.shape)
            tensors[name] = tensor if name.endswith("q_groups") else noise
    whole = base / "tiny"
    whole.mkdir()
    shutil.copy(base / "laid_out" / "config.json", whole)
    names = sorted(tensors)
    for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), start=1):
        shard = {name: tensors[name] for name in part}
        save_file(shard, whole / f"output-{number:05}-of-00002.safetensors", {"format": "pt"})
    return whole


@pytest.fixture(autouse=True)
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub, and an environment in which it is the only one; this process and those that it starts."""
    served = Hub()
    home = tmp_path / "home"
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    monkeypatch.setenv("HF_HOME", str(home / "huggingface"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("NO_PROXY", "*")
    # The library reads its environment once, when it is imported.
    monkeypatch.setattr(constants, "ENDPOINT", served.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", served.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "huggingface" / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "huggingface" / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    models.forget()
    yield served
    served.close()


@pytest.fixture
def skeletons(tmp_path: Path) -> Path:
    return tmp_path / "home" / "cache" / "vram-bench" / "hub"


def _files(directory: Path) -> dict[str, bytes | Path]:
    return {path.name: path for path in directory.iterdir()}


def _exl2(directory: Path, write_exl2: Callable[..., None], bits: int = 4) -> dict[str, bytes | Path]:
    """The files of a model of one layer."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(CONFIG))
    write_exl2(directory, "model.layers.0.mlp.up_proj", bits=bits)
    return _files(directory)


def _cases(*overrides: str, repo: str = REPO) -> list[Case]:
    length = [] if any(override.startswith("max_seq_len=") for override in overrides) else ["max_seq_len=4096"]
    return plan_sweep(["model=hub", f"model.repo={repo}", "device=rtx_4090", *length, *overrides]).cases


def _refusal(*overrides: str, repo: str = REPO) -> str:
    with pytest.raises(BadInput) as caught:
        _cases(*overrides, repo=repo)
    message = str(caught.value)
    assert "\n" not in message
    return message


# What is there


def test_a_repository_is_what_its_directory_would_be(served: Hub, exl2_dir: Path) -> None:
    commit = served.repository(REPO).commit("main", _files(exl2_dir))
    (case,) = _cases()
    (local,) = plan_sweep(["model=local", f"model.path={exl2_dir}", "device=rtx_4090", "max_seq_len=4096"]).cases
    there = dataclasses.replace(case.model, name=local.model.name, path=local.model.path, repo=None, revision=None)
    assert there == local.model
    assert (case.bpw, case.head_bits) == (local.bpw, local.head_bits)
    assert (case.model.name, case.model.repo, case.model.revision) == ("Tiny-4.0bpw-exl2", REPO, commit)
    assert Case.from_json(case.to_json()) == case


def test_only_the_beginnings_of_the_weights_are_sent_and_nothing_is_stored_of_them(
    served: Hub, exl2_dir: Path, skeletons: Path
) -> None:
    commit = served.repository(REPO).commit("main", _files(exl2_dir))
    _cases()
    shards = sorted(exl2_dir.glob("*.safetensors"))
    assert sum(path.stat().st_size for path in shards) > 5_000_000
    assert served.sent_bytes < 1_000_000
    made = skeletons / "some-org--Tiny-4.0bpw-exl2" / commit
    assert [path.stat().st_size for path in sorted(made.glob("*.safetensors"))] == [s.stat().st_size for s in shards]
    assert sum(path.stat().st_blocks * 512 for path in made.iterdir()) < 500_000


def test_rows_of_a_repository_are_those_of_its_directory(
    served: Hub, exl2_dir: Path, in_process: Program, tmp_path: Path
) -> None:
    served.repository(REPO).commit("main", _files(exl2_dir))
    axes = ("device=rtx_4090", "max_seq_len=4096", "lazy=false,true")
    from_hub = in_process("sweep", "model=hub", f"model.repo={REPO}", *axes, "results_dir=from_hub")
    assert (from_hub.returncode, "2/2" in from_hub.stderr) == (0, True), from_hub.stderr
    assert in_process("sweep", "model=local", f"model.path={exl2_dir}", *axes, "results_dir=local").returncode == 0
    rows: dict[str, list[dict[str, Any]]] = {}
    for name in ("from_hub", "local"):
        table = [row for path in (tmp_path / name).rglob("cases.parquet") for row in pq.read_table(path).to_pylist()]
        rows[name] = sorted(table, key=lambda row: bool(row["lazy"]))
    assert {row["model"] for row in rows["from_hub"]} == {"Tiny-4.0bpw-exl2"}
    assert {row["outcome"] for row in rows["from_hub"]} == {"fits"}
    same = [name for name in rows["local"][0] if name.endswith("_bytes") or name in ("bpw", "model_fingerprint")]
    assert {"weights_bytes", "peak_allocated_bytes"} <= set(same)
    for row, other in zip(rows["from_hub"], rows["local"], strict=True):
        assert {name: row[name] for name in same} == {name: other[name] for name in same}


def test_a_repository_of_unquantised_weights_is_asked_for_any_bits(served: Hub, tmp_path: Path) -> None:
    save_file({"model.embed_tokens.weight": np.ones((8, 8), np.float16)}, tmp_path / "model.safetensors")
    files = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": tmp_path / "model.safetensors"}
    served.repository("org/base").commit("main", files)
    cases = _cases("bpw=3.0,4.0", repo="org/base")
    assert [(case.model.has_weights, case.bpw) for case in cases] == [(False, 3.0), (False, 4.0)]


def test_unquantised_weights_of_a_repository_are_those_of_its_headers(
    served: Hub, in_process: Program, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.mkdir()
    (config / "config.json").write_text(json.dumps(LLAMA | {"torch_dtype": "float32"}))
    assert in_process("synth", "model.path=config", "bpw=16", "--out", "whole").returncode == 0
    (tmp_path / "whole" / "config.json").write_text(json.dumps(LLAMA))  # which names no type
    served.repository("org/whole").commit("main", _files(tmp_path / "whole"))
    for number, model in enumerate((["model.path=whole"], ["model=hub", "model.repo=org/whole"])):
        overrides = ["bpw=16", "max_seq_len=512", "device=rtx_4090", f"results_dir=r{number}"]
        done = in_process("sweep", *model, *overrides)
        assert done.returncode == 0, done.stderr
        assert "assumed: config.json names no torch_dtype" not in done.stdout
    rows = [pq.read_table(next((tmp_path / f"r{number}").rglob("cases.parquet"))).to_pylist()[0] for number in (0, 1)]
    peaks = [(row["peak_allocated_bytes"], row["peak_reserved_bytes"]) for row in rows]
    assert peaks[0] == peaks[1]
    assert rows[1]["predicted_peak_bytes"] == rows[1]["peak_allocated_bytes"]


def test_a_repository_with_only_a_config_is_asked_for_any_bits(served: Hub) -> None:
    served.repository("org/base").commit("main", {"config.json": json.dumps(CONFIG).encode(), "model.bin": b"x"})
    assert [case.bpw for case in _cases("bpw=3.0,4.0", repo="org/base")] == [3.0, 4.0]


OTHER_FORMATS = [
    (kinds.GPTQ, "GPTQ"), (kinds.AWQ, "AWQ"), (kinds.FP8, "FP8"), (kinds.NF4, "bitsandbytes"),
    (kinds.PACKED, "compressed-tensors"), (kinds.MLX, "MLX"), (kinds.AQLM, "AQLM"), (kinds.HQQ, "HQQ"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("engine", "tensors", "name"),
    [
        *((engine, *each) for engine in ("exllamav2", "exllamav3") for each in OTHER_FORMATS),
        ("exllamav2", kinds.EXL3, "EXL3"),
        ("exllamav3", kinds.EXL2, "EXL2"),
    ],
)
def test_a_repository_of_weights_in_another_format_is_refused(
    served: Hub, engine: str, tensors: Any, name: str
) -> None:
    files: dict[str, bytes | Path] = {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors": headers.of({**kinds.NORM, **tensors}),
    }
    served.repository(REPO).commit("main", files)
    asked = [f"engine={engine}"]
    assert _refusal(*asked).startswith(f"model.repo={REPO}: {name} weights")
    assert _refusal(*asked).startswith(f"model.repo={REPO}: {name} weights")  # what is kept of it says the same


def test_a_repository_of_exl3_weights_is_of_its_engine(served: Hub) -> None:
    """Its bits are read off the headers: 4 of the trellis, and scales of 16 bits for 64 rows and columns."""
    files: dict[str, bytes | Path] = {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors": headers.of({**kinds.NORM, **kinds.EXL3}),
    }
    served.repository(REPO).commit("main", files)
    (case,) = _cases()
    assert (case.engine, case.bpw, case.head_bits) == ("exllamav3", 4.5, None)


def test_a_repository_of_gguf_weights_alone_is_refused(served: Hub) -> None:
    config = json.dumps(CONFIG).encode()
    served.repository(REPO).commit("main", {"config.json": config, "model-Q4_K_M.gguf": b"x" * 100})
    assert _refusal().startswith(f"model.repo={REPO}: GGUF weights")
    assert not any("gguf" in request for request in served.requests)  # its name is enough
    both = {"config.json": config, "model-F32.gguf": b"x", "model.safetensors": headers.of(kinds.NORM)}
    served.repository("org/both").commit("main", both)
    assert not _cases(repo="org/both")[0].model.has_weights


def test_a_header_longer_than_the_first_request_is_read_whole(
    served: Hub, tmp_path: Path, write_exl2: Callable[..., None]
) -> None:
    (tmp_path / "m").mkdir()
    write_exl2(tmp_path / "m", *(f"model.layers.{n}.mlp.up_proj" for n in range(400)))
    (tmp_path / "m" / "config.json").write_text(json.dumps(CONFIG))
    served.repository(REPO).commit("main", _files(tmp_path / "m"))
    assert _cases()[0].bpw == pytest.approx(4.5, abs=0.1)
    assert max(served.requests[key] for key in served.requests if "/cdn/" in key) == 2


def test_of_a_hub_that_knows_no_ranges_no_more_is_taken_than_is_needed(served: Hub, exl2_dir: Path) -> None:
    served.ignores_ranges = True
    served.repository(REPO).commit("main", _files(exl2_dir))
    assert _cases()[0].model.has_weights
    assert served.sent_bytes < 5_000_000


def test_files_in_folders_are_left_alone(served: Hub, tmp_path: Path, write_exl2: Callable[..., None]) -> None:
    files = {**_exl2(tmp_path / "m", write_exl2), "original/model.safetensors": b"garbage", "README.md": b"#"}
    served.repository(REPO).commit("main", files)
    assert _cases()[0].model.has_weights
    assert not any("original" in request or "README" in request for request in served.requests)


# Revisions


@pytest.mark.parametrize("revision", ["{bpw}bpw", '"{bpw}bpw"', "'{bpw}bpw'"])
def test_a_revision_may_name_the_bits(
    served: Hub, tmp_path: Path, write_exl2: Callable[..., None], revision: str
) -> None:
    repository = served.repository(REPO)
    for branch, bits in (("3.0bpw", 3), ("4.0bpw", 4), ("4.25bpw", 5)):
        repository.commit(branch, _exl2(tmp_path / branch, write_exl2, bits))
    cases = _cases("bpw=3,4.0,4.25", f"model.revision={revision}")
    assert [case.model.name.rpartition("@")[2] for case in cases] == ["3.0bpw", "4.0bpw", "4.25bpw"]
    # What the headers say counts, whatever a branch is called.
    assert [round(case.bpw - cases[0].bpw) for case in cases] == [0, 1, 2]
    assert [case.model.revision for case in cases] == list(repository.commits)


def test_a_revision_that_looks_like_a_number_is_none(
    served: Hub, tmp_path: Path, write_exl2: Callable[..., None]
) -> None:
    for branch in ("4_25", "6_5", "1e5", "refs/pr/1"):
        served.repository(REPO).commit(branch, _exl2(tmp_path / branch.replace("/", ""), write_exl2))
    names = [case.model.name for case in _cases("model.revision=4_25,6_5,1e5,refs/pr/1")]
    assert [name.rpartition("@")[2] for name in names] == ["4_25", "6_5", "1e5", "refs-pr-1"]


def test_without_a_revision_it_is_main(served: Hub, tmp_path: Path, write_exl2: Callable[..., None]) -> None:
    served.repository(REPO).commit("main", _exl2(tmp_path / "m", write_exl2))
    for override in ("model.revision=null", "model.revision=main", "model.revision="):
        assert _cases(override)[0].model.name == "Tiny-4.0bpw-exl2"


def test_a_revision_is_resolved_once_for_all_cases(
    served: Hub, tmp_path: Path, write_exl2: Callable[..., None]
) -> None:
    served.repository(REPO).commit("main", _exl2(tmp_path / "m", write_exl2))
    lengths = ",".join(str(64 + n) for n in range(500))
    assert len(_cases("cache=FP16,Q4", f"max_seq_len={lengths}")) == 1000
    assert set(served.requests.values()) == {1}
    assert len(served.requests) == 4  # the listing, config.json, the header of the weights and where it is


def test_a_commit_that_is_known_asks_nothing_and_a_branch_asks_where_it_is(
    served: Hub, tmp_path: Path, write_exl2: Callable[..., None]
) -> None:
    first = served.repository(REPO).commit("main", _exl2(tmp_path / "m", write_exl2))
    _cases()
    served.requests.clear()
    models.forget()
    (case,) = _cases(f"model.revision={first}")
    assert (case.model.name, sum(served.requests.values())) == (f"Tiny-4.0bpw-exl2@{first[:8]}", 0)
    _cases("model.revision=main")
    assert sum(served.requests.values()) == 1
    models.forget()
    second = served.repository(REPO).commit("main", _exl2(tmp_path / "m5", write_exl2, bits=5))
    assert _cases()[0].model.revision == second


@pytest.mark.thorough
def test_each_case_of_a_launcher_has_its_own_branch(
    served: Hub, exl2_dir: Path, program: Program, tmp_path: Path
) -> None:
    for branch in ("3.0bpw", "4.0bpw"):
        served.repository(REPO).commit(branch, _files(exl2_dir))
    overrides = ("bpw=3.0,4.0", "model.revision={bpw}bpw", "device=rtx_4090", "hydra/launcher=basic")
    done = program("sweep", "model=hub", f"model.repo={REPO}", *overrides)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "results").rglob("cases.parquet")
    assert sorted(pq.read_table(path).column("model").to_pylist()) == [f"{REPO[9:]}@{n}bpw" for n in ("3.0", "4.0")]


def test_a_twin_of_weights_on_a_hub_needs_their_headers_alone(
    served: Hub, exl2_dir: Path, in_process: Program, tmp_path: Path
) -> None:
    served.repository(REPO).commit("main", _files(exl2_dir))
    done = in_process("synth", "model=hub", f"model.repo={REPO}", "--out", "twin")
    assert done.returncode == 0, done.stderr
    headers = [
        {name: (values.shape, values.dtype) for name, values in read(directory).items()}
        for directory in (exl2_dir, tmp_path / "twin")
    ]
    assert headers[0] == headers[1]
    assert served.sent_bytes < 1_000_000


def test_a_twin_of_half_an_unquantised_repository_is_refused_as_the_plan_of_it_is(
    served: Hub, in_process: Program, tmp_path: Path
) -> None:
    half = {"model.embed_tokens.weight": ("F16", (8192, 512))}
    files: dict[str, bytes | Path] = {"config.json": json.dumps(LLAMA).encode(), "model.safetensors": headers.of(half)}
    served.repository(REPO).commit("main", files)
    for command in (["synth", "--out", "twin"], ["plan", "device=rtx_4090"]):
        done = in_process(*command, "model=hub", f"model.repo={REPO}", "bpw=4.0")
        assert done.returncode == 2
        assert "are in none of its files; choose another repository" in done.stderr
    assert not (tmp_path / "twin").exists()


# What goes wrong


def test_a_hub_needs_a_repository() -> None:
    with pytest.raises(BadInput, match=r"model=hub needs model\.repo=ORG/NAME"):
        plan_sweep(["model=hub"])


@pytest.mark.parametrize("repo", ["a/b/c", "../etc", "a--b/c", "-a/b", "a b/c"])
def test_what_is_no_name_is_refused_without_asking(served: Hub, repo: str) -> None:
    assert "write it as ORG/NAME" in _refusal(repo=f"'{repo}'")
    assert not served.requests


@pytest.mark.parametrize(
    "typed", ["{}:4.0bpw", "{}@4.0bpw", "https://huggingface.co/{}/tree/4.0bpw", "hf.co/{}/blob/4.0bpw/config.json"]
)
def test_a_branch_in_the_name_is_told_where_it_goes(served: Hub, typed: str) -> None:
    assert _refusal(repo=f"'{typed.format(REPO)}'").endswith(f"write it as model.repo={REPO} and model.revision=4.0bpw")
    assert not served.requests


@pytest.mark.parametrize("typed", ["https://huggingface.co/{}", "https://hf.co/{}/", "huggingface.co/{}"])
def test_an_address_is_told_as_a_name(served: Hub, typed: str) -> None:
    assert _refusal(repo=f"'{typed.format(REPO)}'").endswith(f"write it as model.repo={REPO}")
    assert not served.requests


def test_where_main_has_no_model_the_branches_are_told(served: Hub, exl2_dir: Path) -> None:
    served.repository(REPO).commit("main", {"README.md": b"#"})
    for branch in ("4_25", "6.0bpw"):
        served.repository(REPO).commit(branch, _files(exl2_dir))
    assert "no config.json" in _refusal()
    assert "model.revision=4_25|6.0bpw" in _refusal()


def _gate(repository: Repository, guard: str) -> None:
    repository.guard = guard


TROUBLE: dict[str, tuple[Callable[[Hub], Any], list[str]]] = {
    "no such repository": (lambda hub: hub.repositories.clear(), [f"model.repo={REPO}", "no such", "HF_TOKEN"]),
    "private": (lambda hub: _gate(hub.repository(REPO), "private"), [f"model.repo={REPO}", "private", "HF_TOKEN"]),
    "gated": (lambda hub: _gate(hub.repository(REPO), "gated"), ["gated", "licence", REPO, "HF_TOKEN"]),
    "forbidden": (lambda hub: _gate(hub.repository(REPO), "forbidden"), [REPO, "403", "HF_TOKEN", "licence"]),
    "down": (lambda hub: setattr(hub, "trouble", "down"), [REPO, "cannot be reached", "503"]),
    "silent": (lambda hub: setattr(hub, "trouble", "silent"), [REPO, "cannot be reached", "HF_ENDPOINT"]),
    "gone": (lambda hub: hub.close(), [REPO, "cannot be reached", "refused", "HF_ENDPOINT"]),
    "nowhere": (lambda hub: setattr(constants, "ENDPOINT", "http://[nowhere"), [REPO, "cannot be reached", "[nowhere"]),
    "portal": (lambda hub: setattr(hub, "trouble", "portal"), [REPO, "no hub", "HF_ENDPOINT"]),
    "short": (lambda hub: setattr(hub, "trouble", "short"), [REPO]),
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_trouble_with_the_hub_is_told_in_a_line_and_leaves_nothing(
    served: Hub,
    skeletons: Path,
    tmp_path: Path,
    write_exl2: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    trouble: str,
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    served.repository(REPO).commit("main", _exl2(tmp_path / "m", write_exl2))
    make_trouble, said = TROUBLE[trouble]
    make_trouble(served)
    message = _refusal()
    assert [text for text in said if text not in message] == []
    assert [path for path in skeletons.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("guard", ["private", "gated"])
def test_a_token_opens_a_guarded_repository_and_goes_nowhere_else(
    served: Hub, tmp_path: Path, write_exl2: Callable[..., None], monkeypatch: pytest.MonkeyPatch, guard: str
) -> None:
    served.repository(REPO).commit("main", _exl2(tmp_path / "m", write_exl2))
    _gate(served.repository(REPO), guard)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert _cases()[0].model.has_weights
    assert served.tokens_at_the_cdn == 0


def test_a_missing_revision_is_answered_with_the_branches(
    served: Hub, tmp_path: Path, write_exl2: Callable[..., None]
) -> None:
    for branch in ("main", "3.0bpw", "4.0bpw"):
        served.repository(REPO).commit(branch, _exl2(tmp_path / branch, write_exl2))
    message = _refusal("bpw=5.0", "model.revision={bpw}bpw")
    assert message.startswith(f"model.revision=5.0bpw: not in {REPO}.")
    assert "3.0bpw" in message
    assert "4.0bpw" in message
    assert "not in" in _refusal(f"model.revision={'0' * 40}")


def _garbled(data: bytes) -> bytes:
    return data[:8] + b"x" + data[9:]


@pytest.mark.parametrize(
    "damage",
    [
        _garbled,
        lambda data: data[:-100],
        lambda data: data[:60],
        lambda data: data[:4],
        lambda data: b"",
        lambda data: struct.pack("<Q", len(data) + 1) + data[8:],
        lambda data: struct.pack("<Q", 1 << 60) + data[8:],
        lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        lambda data: struct.pack("<Q", 2) + b"[]" + data[10:],
    ],
    ids=["garbage", "truncated", "half a header", "four bytes", "empty", "too long", "absurd", "pointer", "list"],
)
def test_a_broken_header_is_refused_and_leaves_nothing(
    served: Hub, skeletons: Path, tmp_path: Path, write_exl2: Callable[..., None], damage: Callable[[bytes], bytes]
) -> None:
    files = _exl2(tmp_path / "m", write_exl2)
    files["output.safetensors"] = damage((tmp_path / "m" / "output.safetensors").read_bytes())
    served.repository(REPO).commit("main", files)
    assert _refusal().startswith(f"model.repo={REPO}: output.safetensors has a broken safetensors header")
    assert [path for path in skeletons.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"README.md": b"#"}, "no config.json"),
        ({"sub/config.json": b"{}"}, "no config.json"),
        ({"config.json": b"{"}, "not a JSON object"),
        ({"config.json": b"\xff\xfe"}, "not a JSON object"),
        ({"config.json": b"[1]"}, "not a JSON object"),
        ({"config.json": b""}, "not a JSON object"),
    ],
)
def test_what_is_no_model_is_refused_and_leaves_nothing(
    served: Hub, skeletons: Path, files: dict[str, bytes | Path], said: str
) -> None:
    served.repository(REPO).commit("main", files)
    message = _refusal()
    assert message.startswith(f"model.repo={REPO}")
    assert said in message
    assert [path for path in skeletons.rglob("*") if path.is_file()] == []


def test_a_cache_that_cannot_be_written_is_told(
    served: Hub, tmp_path: Path, write_exl2: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    served.repository(REPO).commit("main", _exl2(tmp_path / "m", write_exl2))
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert "XDG_CACHE_HOME" in _refusal()


def test_from_the_command_line_a_refusal_is_one_line_and_2(served: Hub, in_process: Program, program: Program) -> None:
    served.repository(REPO).guard = "gated"
    done = in_process("sweep", "model=hub", f"model.repo={REPO}")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "licence" in done.stderr
    offline = program("sweep", "model=hub", f"model.repo={REPO}", HF_HUB_OFFLINE="1")
    assert (offline.returncode, offline.stdout, offline.stderr.count("\n")) == (2, "", 1)
    assert "HF_HUB_OFFLINE is set" in offline.stderr


# Without the hub


@pytest.mark.parametrize("trouble", ["gone", "down", "offline"])
def test_what_was_resolved_before_is_taken_when_the_hub_is_gone(
    served: Hub,
    tmp_path: Path,
    write_exl2: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    trouble: str,
) -> None:
    commit = served.repository(REPO).commit("4.0bpw", _exl2(tmp_path / "m", write_exl2))
    before = _cases("model.revision=4.0bpw")
    models.forget()
    assert capsys.readouterr().err == ""
    if trouble == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        TROUBLE[trouble][0](served)
    assert _cases("model.revision=4.0bpw") == before
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("vram-bench: ")
    assert commit[:8] in said
    # A commit never changes: nobody need be asked.
    assert _cases(f"model.revision={commit}")[0].model.fingerprint == before[0].model.fingerprint
    assert capsys.readouterr().err == ""
    assert "main is in the cache" in _refusal()


def test_what_the_hubs_own_cache_holds_is_taken_when_the_hub_is_gone(
    served: Hub, skeletons: Path, tmp_path: Path, write_exl2: Callable[..., None]
) -> None:
    served.repository(REPO).commit("main", _exl2(tmp_path / "m", write_exl2))
    snapshot_download(REPO)
    before = _cases()
    shutil.rmtree(skeletons)
    models.forget()
    served.close()
    assert _cases() == before


# Weights for a real GPU


@pytest.fixture
def cuda_case(served: Hub, exl2_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    served.repository(REPO).commit("main", {**_files(exl2_dir), "README.md": b"#", "old/a.safetensors": b"0" * 99})
    gpu = Gpu(0, "GPU-1", "NVIDIA RTX A6000", 48 << 30, "8.6", "580.1", "13.0")
    monkeypatch.setattr(devices, "find_gpus", lambda: ([gpu], None))
    (case,) = plan_sweep(["model=hub", f"model.repo={REPO}", "device=cuda", "max_seq_len=4096"]).cases
    assert case.needs_download
    assert served.sent_bytes < 1_000_000
    return case


def test_nothing_is_downloaded_for_a_simulated_card_or_a_local_directory(cuda_case: Case, exl2_dir: Path) -> None:
    local = plan_sweep(["model=local", f"model.path={exl2_dir}", "device=cuda", "max_seq_len=4096"]).cases
    assert not any(case.needs_download for case in (*local, *_cases()))


def test_a_download_brings_what_the_engine_reads_and_changes_only_the_path(
    served: Hub, cuda_case: Case, exl2_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = hub.download(cuda_case.model)
    assert model.path is not None
    assert Path(model.path).is_relative_to(constants.HF_HUB_CACHE)
    assert {p.name: p.read_bytes() for p in Path(model.path).iterdir()} == {
        p.name: p.read_bytes() for p in exl2_dir.iterdir()
    }
    assert dataclasses.replace(model, path=cuda_case.model.path) == cuda_case.model
    said = capsys.readouterr()
    assert (said.out, said.err.count("dry-run")) == ("", 0)
    assert "100%" in said.err
    served.requests.clear()
    assert hub.download(cuda_case.model) == hub.download(model) == model
    assert not served.requests


def test_a_download_needs_no_hub_when_all_is_there(served: Hub, cuda_case: Case) -> None:
    model = hub.download(cuda_case.model)
    served.close()
    assert hub.download(cuda_case.model) == model


def test_a_download_goes_on_where_it_stopped(served: Hub, cuda_case: Case) -> None:
    model = hub.download(cuda_case.model)
    lost = Path(str(model.path)) / "output-00002-of-00002.safetensors"
    lost.resolve().unlink()
    lost.unlink()
    served.sent_bytes = 0
    assert hub.download(cuda_case.model) == model
    assert served.sent_bytes == lost.stat().st_size


def test_a_disk_without_room_is_told_before_anything_is_fetched(
    served: Hub, cuda_case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1 << 20))
    before = served.sent_bytes
    with pytest.raises(BadInput) as caught:
        hub.download(cuda_case.model)
    assert re.fullmatch(r"model\.repo=\S+: 0\.01 GiB .* 0\.00 GiB are free there; .* HF_HOME .*", str(caught.value))
    assert served.sent_bytes == before


def test_a_download_without_a_hub_is_refused(served: Hub, cuda_case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    served.close()
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the library's attempts
    with pytest.raises(BadInput, match="cannot be reached"):
        hub.download(cuda_case.model)


def test_a_real_gpu_needs_weights_from_a_hub_too(served: Hub, monkeypatch: pytest.MonkeyPatch, cuda_case: Case) -> None:
    served.repository("org/base").commit("main", {"config.json": json.dumps(CONFIG).encode()})
    with pytest.raises(BadInput, match=r"model=base: a real GPU needs EXL2 weights"):
        plan_sweep(["model=hub", "model.repo=org/base", "device=cuda"])
