#!/usr/bin/env bash
# Without flash-attn and xformers, ExLlamaV2's attention lets a token see those after it.
#
# Versions: exllamav2 0.3.2, torch 2.13.0.
# Expected: the first of four tokens does not depend on the last, whichever attention runs.
# Seen:     with PyTorch's scaled_dot_product_attention, the default where neither library is installed, it does; with
#           EXLLAMA_NO_SDPA=1 (`config.no_sdpa`) it does not. The SDPA branch takes the mask for blocks of images
#           whenever attention is causal, and that mask is None for text. Memory is the same in both.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

new_environment torch==2.13.0 exllamav2==0.3.2 tokenizers==0.23.3
stand_in_extension
"$python" - <<'END'
import sys
from types import SimpleNamespace

import torch
from exllamav2.attn import ExLlamaV2Attention
from exllamav2.attn_params import Params

torch.manual_seed(0)
query, key, value = (torch.randn(1, 4, 2, 32, dtype=torch.half) for _ in range(3))  # batch, tokens, heads, head_dim
other = value.clone()
other[:, 3] += 100.0  # another last token
layer = SimpleNamespace(
    repeat_kv=lambda states, groups: states, num_key_value_groups=1, layer_idx=0, sliding_window=0, scaling=32**-0.5
)


def first_token(values: torch.Tensor, no_sdpa: bool) -> torch.Tensor:
    config = SimpleNamespace(no_sdpa=no_sdpa, attn_logit_softcapping=None)
    params = Params(batch_size=1, seq_len=4, past_len=0)
    return ExLlamaV2Attention._attn_torch(layer, 1, 4, query, key, values, params, config)[0, 0]


changes = {}
for no_sdpa in (False, True):
    changes[no_sdpa] = (first_token(value, no_sdpa) - first_token(other, no_sdpa)).abs().max().item()
    name = "matmul" if no_sdpa else "SDPA"
    print(f"{name}: another last token changes the output of the first by {changes[no_sdpa]:.4g}")
if not changes[False] > 1.0 or changes[True] != 0.0:
    sys.exit("changed: SDPA and matmul agree on what the first token sees")
print("as recorded: the SDPA path of exllamav2 0.3.2 is not causal, its matmul path is")
END
