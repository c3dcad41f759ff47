#!/usr/bin/env bash
# ExLlamaV2 takes a model that it does not know for a Llama, and only warns.
#
# Versions: exllamav2 0.3.2, torch 2.13.0.
# Expected: an architecture that is not in its table is refused.
# Seen:     SmolLM3 has the names and shapes of a Llama, so nothing fails later either; that one layer in four has no
#           RoPE is lost. One line among the output, "Loading as LlamaForCausalLM", is all that tells.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

new_environment torch==2.13.0 exllamav2==0.3.2 tokenizers==0.23.3
stand_in_extension
cat >config.json <<'END'
{"architectures": ["SmolLM3ForCausalLM"], "model_type": "smollm3", "hidden_size": 2048, "intermediate_size": 11008,
 "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 4, "vocab_size": 128256,
 "max_position_embeddings": 65536, "rms_norm_eps": 1e-06, "rope_theta": 5000000.0, "no_rope_layer_interval": 4}
END
"$python" - <<'END'
import sys

from exllamav2 import ExLlamaV2Config

config = ExLlamaV2Config()
config.model_dir = "."
config.prepare(no_tensors=True)
print(f"{config.architecture} is read as {config.arch.arch_string}")
print("what it keeps of no_rope:", [name for name in vars(config) if "no_rope" in name])
if config.arch.arch_string != "LlamaForCausalLM":
    sys.exit("changed: SmolLM3 is another architecture now")
print("as recorded: exllamav2 0.3.2 reads an unknown architecture as a Llama")
END
