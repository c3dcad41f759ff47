#!/usr/bin/env bash
# flash-attn-4 beside ExLlamaV2 ends `import exllamav2`.
#
# Versions: exllamav2 0.3.2, flash-attn-4 4.0.0b36, torch 2.13.0.
# Expected: ExLlamaV2 finds no flash-attn 2 and goes on without it, as where none is installed.
# Seen:     AttributeError. flash-attn-4 puts `flash_attn/cute` where flash-attn 2 has its package, without an
#           `__init__.py`: `import flash_attn` succeeds, and has no `__version__`. ExLlamaV2 catches ModuleNotFoundError
#           alone. With EXLLAMA_NO_FLASH_ATTN=1 in the environment the import works.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

new_environment torch==2.13.0 exllamav2==0.3.2 tokenizers==0.23.3
stand_in_extension
"$python" -c "import exllamav2" >/dev/null  # alone, it imports

# Without what it depends on (CUTLASS and more): the import does not get so far.
add_packages --no-deps flash-attn-4==4.0.0b36
if "$python" -c "import exllamav2" >/dev/null 2>error.log; then
    echo "changed: exllamav2 imports beside flash-attn-4"
    exit 1
fi
tail -n 1 error.log
if ! grep -q "AttributeError: module 'flash_attn' has no attribute '__version__'" error.log; then
    echo "changed: another error"
    exit 1
fi
EXLLAMA_NO_FLASH_ATTN=1 "$python" -c "import exllamav2" >/dev/null
echo "as recorded: flash-attn-4 4.0.0b36 ends the import of exllamav2 0.3.2, unless EXLLAMA_NO_FLASH_ATTN is set"
