#!/usr/bin/env bash
# ExLlamaV2 cannot be imported from what its own installation brings.
#
# Versions: exllamav2 0.3.2, torch 2.13.0.
# Expected: after `pip install exllamav2`, `import exllamav2` works.
# Seen:     ModuleNotFoundError: its tokenizer imports `tokenizers`, which is not among the distribution's requirements.
#           It never shows where transformers or huggingface's other tools are installed, as they bring it along.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

new_environment torch==2.13.0 exllamav2==0.3.2
stand_in_extension
"$python" - <<'END'
import sys
from importlib.metadata import requires

print("its requirements:", ", ".join(requires("exllamav2") or []))
try:
    import exllamav2
except ModuleNotFoundError as error:
    print(f"ModuleNotFoundError: {error}")
    sys.exit(0 if error.name == "tokenizers" else "changed: another module is missing")
sys.exit(f"changed: exllamav2 {exllamav2.__version__} was imported")
END
add_packages tokenizers==0.23.3
"$python" -c "import exllamav2" >/dev/null
echo "as recorded: exllamav2 0.3.2 is imported only once tokenizers is installed by hand"
