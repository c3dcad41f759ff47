"""Writes one library in place of all of NVIDIA's that torch is linked with and that are not installed.

The null GPU answers what PyTorch calls on the way; whatever else a library would offer ends the program by its name.
Usage: stubs.py SITE_PACKAGES OUT_DIR
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

_PREFIXES = ("cu", "nccl", "nvrtc", "nvshmem", "nvtx", "nvJitLink", "nvml")


def main(site: Path, out: Path) -> None:
    libraries = sorted((site / "torch" / "lib").glob("*.so*"))
    there = {path.name for path in (*libraries, *(site / "nvidia").rglob("*.so*"))}
    needed = {name for path in libraries for name in _needed(path)}
    missing = sorted(name for name in needed - there if re.match(r"lib(cu|nv|nccl)", name))
    if not missing:
        return
    symbols: dict[str, set[str]] = defaultdict(set)  # by the version that they are wanted in
    for path in libraries:
        for symbol, version in _undefined(path):
            if symbol.startswith(_PREFIXES) and version not in there:
                symbols[version].add(symbol)
    out.mkdir(parents=True, exist_ok=True)
    names = sorted(set().union(*symbols.values()))
    source = out / "stubs.c"
    source.write_text(
        "#include <stdio.h>\n#include <stdlib.h>\n"
        'static void die(const char *name) { fprintf(stderr, "null GPU: %s is not there\\n", name); abort(); }\n'
        + "".join(f'void {name}(void) {{ die("{name}"); }}\n' for name in names)
    )
    versions = out / "versions.map"
    versions.write_text(
        "".join(
            f"{version} {{ global: {' '.join(f'{name};' for name in sorted(symbols[version]))} }};\n"
            for version in sorted(symbols)
            if version
        )
    )
    first, *others = missing
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-w", f"-Wl,--version-script={versions}", "-o", out / first, source], check=True
    )
    for other in others:
        (out / other).unlink(missing_ok=True)
        (out / other).symlink_to(first)
    print(f"oracle: {len(names)} functions stand in for {', '.join(missing)}")


def _needed(library: Path) -> list[str]:
    said = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
    return re.findall(r"\(NEEDED\).*\[(.+)\]", said)


def _undefined(library: Path) -> list[tuple[str, str]]:
    said = subprocess.run(["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True).stdout
    found = []
    for line in said.splitlines():
        symbol, _, version = line.split()[-1].partition("@")
        found.append((symbol, version.lstrip("@")))
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
