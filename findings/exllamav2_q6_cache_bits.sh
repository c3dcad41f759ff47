#!/usr/bin/env bash
# ExLlamaV2's Q6 cache has no 6-bit values in it.
#
# Versions: exllamav2 0.3.2, torch 2.13.0.
# Expected: keys and values of 6 bits, as Q8 has 8 and Q4 has 4.
# Seen:     keys of 8 and values of 4, so 6 on the mean: a Q6 cache has the size that its name says, with the keys of
#           Q8 and the values of Q4. Each has FP16 scales besides.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

new_environment torch==2.13.0 exllamav2==0.3.2 tokenizers==0.23.3
stand_in_extension
"$python" - <<'END'
import sys
from types import SimpleNamespace

from exllamav2 import ExLlamaV2Cache_Q4, ExLlamaV2Cache_Q6, ExLlamaV2Cache_Q8

# What a cache asks a loaded model: one layer of Llama-3's shapes, on the CPU.
config = SimpleNamespace(max_seq_len=256, num_key_value_heads=8, head_dim=128, num_hidden_layers=1)
model = SimpleNamespace(config=config, cache_map={0: "cpu"}, get_cache_devices=lambda: ["cpu"])
numbers = 256 * 8 * 128

bits = {}
for kind in (ExLlamaV2Cache_Q8, ExLlamaV2Cache_Q6, ExLlamaV2Cache_Q4):
    cache = kind(model)
    both = (cache.key_states[0], cache.value_states[0])
    bits[kind.__name__[-2:]] = tuple(8 * states.nbytes / numbers for states in both)
for name, (key, value) in bits.items():
    print(f"{name}: keys {key:g} bits, values {value:g} bits")
if bits != {"Q8": (8, 8), "Q6": (8, 4), "Q4": (4, 4)}:
    sys.exit("changed: other widths")
print("as recorded: a Q6 cache of exllamav2 0.3.2 has 8-bit keys and 4-bit values")
END
