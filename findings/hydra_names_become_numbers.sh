#!/usr/bin/env bash
# Names on a Hydra command line become other names: 4_25 is 425, and a commit may be infinity.
#
# Versions: hydra-core 1.3.8 (omegaconf 2.3.1).
# Expected: a key whose schema says `str` gets the text that was typed.
# Seen:     Hydra's grammar decides first, by the text alone: underscores separate digits, and digits around an `e` are
#           a float. The revision 4_25 is the int 425, a run 2026_11_28 is 20261128, the short commit 123e456 is inf, and
#           the field gets the number's text. Quotes help only if the shell leaves them to Hydra.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

new_environment hydra-core==1.3.8 omegaconf==2.3.1
"$python" - <<'END'
import sys
from dataclasses import dataclass

from hydra import compose, initialize
from hydra.core.config_store import ConfigStore


@dataclass
class Schema:
    revision: str = "main"


ConfigStore.instance().store(name="schema", node=Schema)
seen = {}
with initialize(version_base="1.3", config_path=None):
    for text in ("4_25", "2026_11_28", "123e456", "'4_25'"):
        seen[text] = compose("schema", overrides=[f"revision={text}"]).revision
        print(f"revision={text} gives {seen[text]!r}")
if seen != {"4_25": "425", "2026_11_28": "20261128", "123e456": "inf", "'4_25'": "4_25"}:
    sys.exit("changed: other values")
print("as recorded: hydra-core 1.3.8 rewrites names that look like numbers, unless they are quoted for Hydra")
END
