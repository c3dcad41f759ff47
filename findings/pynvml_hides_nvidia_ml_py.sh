#!/usr/bin/env bash
# An old `pynvml` package silently hides nvidia-ml-py, and with it what newer drivers can tell.
#
# Versions: nvidia-ml-py 13.615.71, pynvml 11.5.3.
# Expected: both are called `pynvml`, so the one that was installed last counts, or a warning.
# Seen:     pynvml 11.5.3 wins, without a word: it is a folder, and Python prefers a folder to nvidia-ml-py's
#           `pynvml.py`, which stays beside it. `pip list` and importlib.metadata go on to name 13.615.71.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

new_environment pynvml==11.5.3
add_packages nvidia-ml-py==13.615.71  # installed last
"$python" -W error - <<'END'
import sys
from importlib.metadata import version
from pathlib import Path

import pynvml

found = Path(pynvml.__file__)
newer = found.parent.parent / "pynvml.py"
print(f"installed: nvidia-ml-py {version('nvidia-ml-py')}; import pynvml gives {found.parent.name}/{found.name}")
names = {line.split("(")[0][4:] for line in newer.read_text().splitlines() if line.startswith("def nvml")}
missing = sorted(name for name in names if not hasattr(pynvml, name))
print(f"{len(missing)} of nvidia-ml-py's {len(names)} functions are not there, for example {missing[0]}")
if found.name != "__init__.py" or pynvml.__version__ != "11.5.3" or not missing:
    sys.exit("changed: nvidia-ml-py is what is imported")
print("as recorded: pynvml 11.5.3 hides an nvidia-ml-py that was installed after it")
END
