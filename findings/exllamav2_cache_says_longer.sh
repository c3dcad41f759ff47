#!/usr/bin/env bash
# A quantised ExLlamaV2 cache says that it is longer than its tensors are.
#
# Versions: exllamav2 0.3.2, torch 2.13.0.
# Expected: `max_seq_len` of a cache is the number of tokens that its tensors have room for.
# Seen:     where 512 is no divisor of a token's keys (few or small heads: 4 of 64 here), `max_seq_len` is rounded up to
#           whole blocks *after* the tensors were made with the length asked for: 1,002 for 1,001. An FP16 cache, a
#           length of whole blocks and a model with 8 heads of 128 agree with themselves.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

new_environment torch==2.13.0 exllamav2==0.3.2 tokenizers==0.23.3
stand_in_extension
"$python" - <<'END'
import sys
from types import SimpleNamespace

from exllamav2 import ExLlamaV2Cache, ExLlamaV2Cache_Q4


def lengths(kind: type, heads: int, head_dim: int, tokens: int) -> tuple[int, int]:
    """What the cache says, and what its tensors hold."""
    config = SimpleNamespace(max_seq_len=4096, num_key_value_heads=heads, head_dim=head_dim, num_hidden_layers=1)
    model = SimpleNamespace(config=config, cache_map={0: "cpu"}, get_cache_devices=lambda: ["cpu"])
    cache = kind(model, max_seq_len=tokens)
    said, held = cache.max_seq_len, cache.key_states[0].shape[1]
    print(f"{kind.__name__}, {heads} heads of {head_dim}, {tokens:,} tokens: says {said:,}, holds {held:,}")
    return said, held


seen = [
    lengths(ExLlamaV2Cache, 4, 64, 1001),
    lengths(ExLlamaV2Cache_Q4, 4, 64, 1001),
    lengths(ExLlamaV2Cache_Q4, 4, 64, 1024),
    lengths(ExLlamaV2Cache_Q4, 8, 128, 1001),
]
if seen != [(1001, 1001), (1002, 1001), (1024, 1024), (1001, 1001)]:
    sys.exit("changed: other lengths")
print("as recorded: exllamav2 0.3.2 rounds a quantised cache's max_seq_len up after it has made the tensors")
END
