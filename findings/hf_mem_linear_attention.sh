#!/usr/bin/env bash
# hf-mem counts keys and values in layers that have none: four times the cache of a Qwen3-Next or Qwen3.5.
#
# Versions: hf-mem 0.5.6, transformers 5.24.0, torch 2.13.0.
# Expected: its estimate of the KV cache grows with the context as the model's own cache does. Three of four layers of
#           these models are linear attention, whose state has one size at any length; config.json says which they are.
# Seen:     any layer that isn't full attention is taken for one with a sliding window, and that is counted at the whole
#           length: 2,048 bytes a token for a small Qwen3-Next whose cache grows by 512. Of a published Qwen3.5 with
#           262,144 tokens it is the same four times.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

new_environment torch==2.13.0 transformers==5.24.0 hf-mem==0.5.6
"$python" - <<'END' 2>/dev/null
import sys

import torch
from hf_mem.safetensors.kv_cache import compute_safetensors_kv_cache_size
from transformers import Qwen3NextConfig, Qwen3NextForCausalLM

config = Qwen3NextConfig(
    num_hidden_layers=8, hidden_size=64, vocab_size=96, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
    linear_num_key_heads=2, linear_num_value_heads=2, linear_key_head_dim=16, linear_value_head_dim=16,
    num_experts=2, num_experts_per_tok=1, moe_intermediate_size=32, shared_expert_intermediate_size=32,
    max_position_embeddings=4096, dtype="float32",
)  # fmt: skip
model = Qwen3NextForCausalLM(config).eval()


def tensors(value):
    """All tensors in what a layer of the cache keeps."""
    if isinstance(value, torch.Tensor):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for each in inner for tensor in tensors(each)]


def held(tokens):
    """The bytes in the model's own cache after a prompt."""
    with torch.no_grad():
        layers = model(torch.zeros(1, tokens, dtype=torch.long), use_cache=True).past_key_values.layers
    return sum(tensor.nbytes for layer in layers for tensor in tensors(vars(layer)))


def estimated(tokens):
    return compute_safetensors_kv_cache_size(config.to_dict(), "F32", tokens)


print("layers:", ", ".join(config.layer_types))
grows, said = ((of(1024) - of(512)) / 512 for of in (held, estimated))
print(f"the model's cache grows by {grows:g} bytes a token, by hf-mem's estimate {said:g}")
if (grows, said) != (512, 2048):
    print("changed: other sizes")
    sys.exit(1)
print("as recorded: hf-mem 0.5.6 counts all eight layers, and two of them have keys and values")
END
