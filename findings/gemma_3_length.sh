#!/usr/bin/env bash
# One config.json, two context lengths: Gemma-3 has 2,048 tokens for ExLlamaV2, and 131,072 for transformers.
#
# Versions: exllamav2 0.3.2, transformers 5.24.0, torch 2.13.0.
# Expected: ExLlamaV2, which knows Gemma-3, knows the length that the family's files leave out.
# Seen:     published Gemma-3 files name only what differs from transformers' defaults, and `max_position_embeddings`
#           does not. ExLlamaV2 falls back to its own default for any model, 2,048, silently; setting
#           `config.max_seq_len` after reading is what helps.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

new_environment torch==2.13.0 exllamav2==0.3.2 transformers==5.24.0
stand_in_extension
cat >config.json <<'END'
{"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "mm_tokens_per_image": 256,
 "eos_token_id": [1, 106],
 "text_config": {"model_type": "gemma3_text", "hidden_size": 3840, "intermediate_size": 15360, "num_hidden_layers": 48,
  "num_attention_heads": 16, "num_key_value_heads": 8, "sliding_window": 1024,
  "rope_scaling": {"factor": 8.0, "rope_type": "linear"}},
 "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 1152, "image_size": 896,
  "intermediate_size": 4304, "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14}}
END
"$python" - <<'END'
import sys

from exllamav2 import ExLlamaV2Config
from transformers import AutoConfig

config = ExLlamaV2Config()
config.model_dir = "."
config.prepare(no_tensors=True)
theirs = AutoConfig.from_pretrained(".").text_config.max_position_embeddings
print(f"transformers: {theirs:,} tokens; ExLlamaV2: {config.max_seq_len:,}")
if (config.max_seq_len, theirs) != (2048, 131072):
    sys.exit("changed: other lengths")
print("as recorded: exllamav2 0.3.2 gives Gemma-3 its default of 2,048 tokens")
END
