#!/usr/bin/env bash
# safetensors writes FP4 and MX scales that it reads from a file, and not from the same bytes in memory.
#
# Versions: safetensors 0.8.0, torch 2.13.0.
# Expected: `load(bytes)` returns what `load_file(path)` does, and the header has the tensor's shape.
# Seen:     `load` raises KeyError 'F4' and 'F8_E8M0', while `load_file` reads both. The header counts FP4 numbers and
#           torch pairs of them: a tensor of (3, 5) is `[3, 10]` in the file, so shapes of the two do not compare.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

new_environment torch==2.13.0 numpy==2.4.6 safetensors==0.8.0
"$python" - <<'END'
import json
import struct
import sys
from pathlib import Path

import torch
from safetensors.torch import load, load_file, save_file

seen = {}
for name in ("float4_e2m1fn_x2", "float8_e8m0fnu"):
    tensor = torch.arange(15, dtype=torch.uint8).reshape(3, 5).view(getattr(torch, name))
    path = Path(f"{name}.safetensors")
    save_file({"x": tensor}, path)
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])["x"]
    same = torch.equal(load_file(path)["x"].view(torch.uint8), tensor.view(torch.uint8))
    try:
        from_bytes = str(tuple(load(content)["x"].shape))
    except KeyError as error:
        from_bytes = f"KeyError {error}"
    seen[name] = (header["shape"], same, from_bytes)
    print(f"{name} (3, 5): header {header['shape']}, load_file the same bytes: {same}, load: {from_bytes}")
if seen != {
    "float4_e2m1fn_x2": ([3, 10], True, "KeyError 'F4'"),
    "float8_e8m0fnu": ([3, 5], True, "KeyError 'F8_E8M0'"),
}:
    sys.exit("changed: other shapes or errors")
print("as recorded: safetensors 0.8.0 reads F4 and F8_E8M0 from files alone")
END
