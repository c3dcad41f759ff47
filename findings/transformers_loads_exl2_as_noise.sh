#!/usr/bin/env bash
# transformers "loads" an EXL2 checkpoint: as a full-size model with random weights.
#
# Versions: transformers 5.24.0, safetensors 0.8.0, torch 2.13.0.
# Expected: an error: config.json says `"quant_method": "exl2"`, which transformers does not know, and there is no
#           `.weight` of any linear layer in the file.
# Seen:     a model. All linear layers are newly initialised at full size; embeddings and norms are the file's. A
#           table of missing and unexpected names is logged, and nothing is raised.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

new_environment torch==2.13.0 safetensors==0.8.0 transformers==5.24.0
"$python" - <<'END' 2>/dev/null
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

hidden, inner, words = 64, 128, 96
config = dict(
    architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=hidden, intermediate_size=inner,
    num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=4, vocab_size=words, tie_word_embeddings=False,
    quantization_config=dict(quant_method="exl2", version="0.3.2", bits=4.0),
)  # fmt: skip
Path("config.json").write_text(json.dumps(config))
layer = "model.layers.0."
tensors = {"model.embed_tokens.weight": torch.zeros(words, hidden).half()}
tensors["model.norm.weight"] = torch.ones(hidden).half()
tensors |= {f"{layer}{n}_layernorm.weight": torch.ones(hidden).half() for n in ("input", "post_attention")}
linears = {f"{layer}self_attn.{n}_proj": (hidden, hidden) for n in "qkvo"} | {"lm_head": (hidden, words)}
linears |= {f"{layer}mlp.{n}_proj": (hidden, inner) for n in ("gate", "up")}
linears[f"{layer}mlp.down_proj"] = (inner, hidden)
for name, (rows, columns) in linears.items():  # 4 bits, two groups
    tensors[f"{name}.q_weight"] = torch.zeros(rows * 4 // 32, columns, dtype=torch.int32)
    tensors[f"{name}.q_invperm"] = torch.arange(rows, dtype=torch.int32)
    tensors[f"{name}.q_scale"] = torch.zeros(2, columns // 8, dtype=torch.int32)
    tensors[f"{name}.q_scale_max"] = torch.zeros(2).half()
    tensors[f"{name}.q_groups"] = torch.tensor([4, 0, 4, rows // 16], dtype=torch.int16)
save_file(tensors, "model.safetensors", metadata={"format": "pt"})

try:
    model = AutoModelForCausalLM.from_pretrained(".")
except Exception as error:
    print(f"changed: {type(error).__name__}: {error}")
    sys.exit(1)
weight = model.model.layers[0].self_attn.q_proj.weight
print(f"4-bit zeros in the file; q_proj is {tuple(weight.shape)}, its standard deviation {weight.std().item():.3f}")
if not weight.std() > 0:
    print("changed: the weights are not random")
    sys.exit(1)
print("as recorded: transformers 5.24.0 fills an EXL2 checkpoint's linear layers with random numbers")
END
