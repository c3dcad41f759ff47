#!/usr/bin/env bash
# A config.json that transformers 5 has saved gives ExLlamaV2 other positions, without a word.
#
# Versions: transformers 5.24.0, exllamav2 0.3.2, torch 2.13.0.
# Expected: RoPE with base 500000 and Llama-3.1's scaling, or an error about what cannot be read.
# Seen:     base 10000 and no scaling. transformers 5 writes one `rope_parameters` instead of `rope_theta` and
#           `rope_scaling`; ExLlamaV2 0.3.2 reads the latter two, and takes their absence for its defaults.
#           Memory is the same; what the model says is not.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

new_environment torch==2.13.0 exllamav2==0.3.2 transformers==5.24.0
stand_in_extension
"$python" - <<'END'
import sys

from exllamav2 import ExLlamaV2Config
from transformers import AutoConfig, LlamaConfig

scaling = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
LlamaConfig(
    architectures=["LlamaForCausalLM"],
    max_position_embeddings=131072,
    rope_parameters=dict(rope_type="llama3", rope_theta=500000.0, **scaling),
).save_pretrained("model")
theirs = AutoConfig.from_pretrained("model").rope_parameters
config = ExLlamaV2Config()
config.model_dir = "model"
config.prepare(no_tensors=True)
print(f"transformers reads back: base {theirs['rope_theta']}, {theirs['rope_type']}, factor {theirs['factor']}")
print(f"ExLlamaV2 reads: base {config.rotary_embedding_base}, scaling {config.alt_rope_method}")
if (config.rotary_embedding_base, config.alt_rope_method) != (10000, None):
    sys.exit("changed: ExLlamaV2 reads something of rope_parameters")
print("as recorded: ExLlamaV2 0.3.2 takes its defaults where transformers 5 has written rope_parameters")
END
