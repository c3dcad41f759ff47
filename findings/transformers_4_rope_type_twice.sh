#!/usr/bin/env bash
# transformers 4 saves a configuration that ExLlamaV2 refuses, though it read and kept what the original said.
#
# Versions: transformers 4.57.3, exllamav2 0.3.2, torch 2.13.0.
# Expected: Qwen2.5's YaRN block, `"type": "yarn"`, loads in ExLlamaV2 before and after a fine-tune was saved.
# Seen:     before: it does. After: AssertionError. transformers adds `rope_type` and keeps `type`; ExLlamaV2 refuses
#           the two side by side even where they are equal.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

new_environment torch==2.13.0 exllamav2==0.3.2 transformers==4.57.3
stand_in_extension
"$python" - <<'END' 2>/dev/null
import json
import sys
from pathlib import Path

from exllamav2 import ExLlamaV2Config
from transformers import AutoConfig


def read(folder: str) -> ExLlamaV2Config:
    config = ExLlamaV2Config()
    config.model_dir = folder
    config.prepare(no_tensors=True)
    return config


original = dict(
    architectures=["Qwen2ForCausalLM"], model_type="qwen2", hidden_size=64, intermediate_size=128, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, vocab_size=512, max_position_embeddings=131072, rms_norm_eps=1e-6,
    rope_scaling={"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
)  # fmt: skip
Path("original").mkdir()
Path("original/config.json").write_text(json.dumps(original))
print("the original, as ExLlamaV2 reads it:", read("original").alt_rope_method)

AutoConfig.from_pretrained("original").save_pretrained("saved")
print("saved by transformers:", json.loads(Path("saved/config.json").read_text())["rope_scaling"])
try:
    read("saved")
except AssertionError as error:
    print(f"as recorded: AssertionError: {error}")
else:
    print("changed: ExLlamaV2 reads what transformers saved")
    sys.exit(1)
END
