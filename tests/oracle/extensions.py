"""Builds ExLlamaV2's extension with nvcc, and flash-attn's binding without its kernels. Usage: extensions.py ORACLE_DIR

What is there already is left alone: delete its folder to build it again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

FLASH_ATTN = "2.8.3"
_SITE = Path(sysconfig.get_paths()["purelib"])


def main(directory: Path) -> None:
    (directory / "extensions").mkdir(exist_ok=True)
    if not (directory / "extensions" / "exllamav2_ext.so").exists():
        build_exllamav2(directory)
    if not (directory / "extensions" / "flash_attn_2_cuda.so").exists():
        build_flash_attn(directory)


def build_exllamav2(directory: Path) -> None:
    """The whole extension: importing the package builds it. No kernel will run, so ptxas need not try hard."""
    print("oracle: building ExLlamaV2's extension (47 files, 16 minutes on one core)", flush=True)
    include = next((_SITE / "nvidia").glob("cu[0-9]*/include"))
    environment = {
        "CUDA_HOME": os.environ.get("CUDA_HOME", "/usr/local/cuda"),
        "TORCH_CUDA_ARCH_LIST": "8.0",
        "TORCH_EXTENSIONS_DIR": str(directory / "build"),
        "CPATH": str(include),
        "NVCC_APPEND_FLAGS": "-Xptxas -O0",
    }
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(
        [sys.executable, "-c", "import torch, exllamav2.ext"],
        env={**os.environ, **environment, "PATH": path},
        check=True,
    )
    shutil.copy(directory / "build" / "exllamav2_ext" / "exllamav2_ext.so", directory / "extensions")


def build_flash_attn(directory: Path) -> None:
    """Its binding, from its source package; the kernels are those of no_kernels.cpp."""
    print("oracle: building flash-attn's binding", flush=True)
    source = directory / f"flash_attn-{FLASH_ATTN}"
    if not source.exists():
        options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-binary", "flash-attn", "-d", str(directory)]
        subprocess.run(
            [sys.executable, "-m", "pip", "download", *options, f"flash-attn=={FLASH_ATTN}"],
            env={**os.environ, "FLASH_ATTENTION_SKIP_CUDA_BUILD": "TRUE"},
            check=True,
        )
        with tarfile.open(directory / f"flash_attn-{FLASH_ATTN}.tar.gz") as archive:
            archive.extractall(directory, filter="data")
    cuda = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "include"
    folders = [
        source / "csrc" / "flash_attn",
        source / "csrc" / "flash_attn" / "src",
        source / "csrc" / "cutlass" / "include",
        _SITE / "torch" / "include",
        _SITE / "torch" / "include" / "torch" / "csrc" / "api" / "include",
        next((_SITE / "nvidia").glob("cu[0-9]*/include")),
        cuda,
        cuda / "cccl",
        Path(sysconfig.get_paths()["include"]),
    ]
    libraries = ["c10", "c10_cuda", "torch", "torch_cpu", "torch_cuda", "torch_python"]
    subprocess.run(
        ["c++", "-std=c++17", "-O0", "-fPIC", "-w", "-shared", "-DTORCH_EXTENSION_NAME=flash_attn_2_cuda"]
        + [f"-I{folder}" for folder in folders]
        + [source / "csrc" / "flash_attn" / "flash_api.cpp", Path(__file__).with_name("no_kernels.cpp")]
        + ["-o", directory / "extensions" / "flash_attn_2_cuda.so", f"-L{_SITE / 'torch' / 'lib'}"]
        + [f"-l{library}" for library in libraries],
        check=True,
    )
    shutil.copytree(source / "flash_attn", directory / "extensions" / "flash_attn", dirs_exist_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
