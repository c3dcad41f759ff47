"""What a child sees of the environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import bench
from bench.launch.environment import child_environment


@pytest.mark.parametrize(
    "name",
    [
        "EXLLAMA_NO_SDPA",
        "EXLLAMA_NO_FLASH_ATTN",
        "EXLLAMA_NO_XFORMERS",
        "EXLLAMA_NO_GRAPHS",
        "PYTORCH_ALLOC_CONF",
        "PYTORCH_HIP_ALLOC_CONF",
        "PYTORCH_NO_CUDA_MEMORY_CACHING",
        "HF_TOKEN",
        "CUDA_LAUNCH_BLOCKING",
        "CUBLAS_WORKSPACE_CONFIG",
        "LD_PRELOAD",
    ],
)
@pytest.mark.parametrize("kind", ["simulated", "cuda"])
def test_the_users_switches_never_reach_the_child(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert name not in child_environment(kind, ["GPU-1"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:False"),
        ("CUDA_MODULE_LOADING", "LAZY"),
        ("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),
    ],
)
def test_what_memory_depends_on_is_pinned_whatever_the_user_set(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "max_split_size_mb:64")
    assert child_environment("cuda", ["GPU-1"])[name] == value


def test_the_segments_of_pytorch_s_allocator_are_the_cases() -> None:
    for allocator, settings in (("native", "expandable_segments:False"), ("expandable", "expandable_segments:True")):
        for kind in ("simulated", "cuda"):
            assert child_environment(kind, ["GPU-1"], allocator)["PYTORCH_CUDA_ALLOC_CONF"] == settings


def test_what_the_child_needs_to_run_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", "/models")
    monkeypatch.setenv("PYTHONPATH", "/mine")
    environment = child_environment("cuda", ["GPU-1"])
    assert environment["PATH"] == os.environ["PATH"]
    assert environment["TORCH_EXTENSIONS_DIR"] == "/models"
    assert environment["PYTHONPATH"].split(os.pathsep) == [str(Path(bench.__file__).parent.parent), "/mine"]


@pytest.mark.parametrize(
    ("kind", "uuids", "visible"),
    [
        ("simulated", [], ""),
        ("cuda", ["GPU-1"], "GPU-1"),
        ("cuda", ["GPU-2", "GPU-1"], "GPU-2,GPU-1"),
        ("cuda", [], "0"),
    ],
)
def test_the_child_sees_its_own_gpus_and_no_other(
    kind: str, uuids: list[str], visible: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    assert child_environment(kind, uuids)["CUDA_VISIBLE_DEVICES"] == visible


def test_a_simulated_case_takes_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert child_environment("simulated")["OMP_NUM_THREADS"] == "1"
    assert "OMP_NUM_THREADS" not in child_environment("cuda", ["GPU-1"])
