#!/usr/bin/env bash
# All checks: style, types, tests. Arguments are passed to pytest.
source "$(dirname "$0")/setup.sh"
# numba compiles the model of memory once while the types are checked, or each process of the tests would.
cache="$(mktemp -d)"
XDG_CACHE_HOME="$cache" .venv/bin/python -m bench plan model=tinyllama_1_1b device=rtx_3060_12gb,2xrtx_3060_12gb \
    max_seq_len=2048 > /dev/null &
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
wait
rm -r "$cache"
exec .venv/bin/python -m pytest -n 2 --dist worksteal "$@"
