#!/usr/bin/env bash
# Adding a small int to an unsigned 64-bit address makes it negative under numba.
#
# Versions: numba 0.68.1, numpy 2.4.6.
# Expected: the compiled function returns what the same function returns uncompiled: an np.uint64 (NumPy 2 keeps the
#           type of the array side).
# Seen:     uint64 + int is int64 for numba: 2**63 + 513, plus 512, comes out negative. max(0, np.uint64) is a float, so
#           above 2**53 it loses digits. Neither warns. np.uint64(512) instead of 512 keeps the type.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

new_environment numba==0.68.1 numpy==2.4.6
"$python" - <<'END'
import sys

import numba
import numpy as np


@numba.njit
def behind(address, size):
    return address + size


@numba.njit
def highest(address):
    return max(0, address)


address = np.uint64(2**63 + 513)
plain, compiled = behind.py_func(address, 512), behind(address, 512)
typed = behind(address, np.uint64(512))
print(f"plain: {plain!r}; compiled: {compiled!r}; compiled, with np.uint64(512): {typed!r}")
odd = np.uint64(2**53 + 1)
print(f"max(0, 2**53 + 1) plain: {highest.py_func(odd)!r}; compiled: {highest(odd)!r}")
if (int(plain), int(compiled), int(typed)) != (2**63 + 1025, 1025 - 2**63, 2**63 + 1025):
    sys.exit("changed: another sum")
if not isinstance(highest(odd), float) or int(highest(odd)) == int(odd):
    sys.exit("changed: another maximum")
print("as recorded: numba 0.68.1 and NumPy 2 disagree about np.uint64 and int")
END
