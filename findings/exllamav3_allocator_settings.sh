#!/usr/bin/env bash
# Importing exllamav3 replaces allocator settings that were given by PyTorch's own variable.
#
# Versions: exllamav3 1.6.5, torch 2.13.0.
# Expected: who sets PYTORCH_ALLOC_CONF, the primary of PyTorch's names for it, has what was set.
# Seen:     exllamav3 turns expandable segments on unless the older PYTORCH_CUDA_ALLOC_CONF is set, and looks at no
#           other name: `max_split_size_mb:64` under the new name is gone after the import, under the old one it stays.
#           It changes how much memory the allocator holds for everything else in that process, too.
#           (Without a GPU the import ends later, where the extension would be compiled; the settings stay changed.)
set -euo pipefail
. "$(dirname "$0")/lib.sh"

new_environment torch==2.13.0 numpy==2.4.6
add_packages --no-deps exllamav3==1.6.5
cat >settings.py <<'END'
import contextlib
import torch

with contextlib.suppress(Exception):
    import exllamav3
print(torch._C._accelerator_getAllocatorSettings())
END
new=$(PYTORCH_ALLOC_CONF=max_split_size_mb:64 "$python" settings.py 2>/dev/null | tail -n 1)
old=$(PYTORCH_CUDA_ALLOC_CONF=max_split_size_mb:64 "$python" settings.py 2>/dev/null | tail -n 1)
echo "after the import, where PYTORCH_ALLOC_CONF=max_split_size_mb:64: $new"
echo "after the import, where PYTORCH_CUDA_ALLOC_CONF=max_split_size_mb:64: $old"
if [ "$new" != expandable_segments:True ] || [ "$old" != max_split_size_mb:64 ]; then
    echo "changed: other settings"
    exit 1
fi
echo "as recorded: exllamav3 1.6.5 overrides PYTORCH_ALLOC_CONF and respects PYTORCH_CUDA_ALLOC_CONF"
