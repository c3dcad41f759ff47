# Sourced by the other scripts: makes .venv in the repository root and installs into it, once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

constraints="${VRAM_BENCH_CONSTRAINTS:-constraints.txt}"
stamp=".venv/.installed"
wanted="$(cat pyproject.toml "$constraints" | cksum)"

if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    python=""
    for candidate in python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            python="$candidate"
            break
        fi
    done
    if [ -z "$python" ]; then
        echo "vram-bench needs Python 3.11 or newer with venv and pip (Debian: apt install python3-venv)" >&2
        exit 2
    fi
    echo "Installing into .venv; this takes a few minutes, once."
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -c "$constraints" -e ".[dev]"
    echo "$wanted" > "$stamp"
fi
