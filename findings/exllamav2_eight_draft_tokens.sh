#!/usr/bin/env bash
# ExLlamaV2's dynamic generator takes num_draft_tokens=8, and then fails over the first token of every job.
#
# Versions: exllamav2 0.3.2, torch 2.13.0.
# Expected: `num_draft_tokens` up to `max_q_size` (8) works: so far the generator asserts it when it is made.
# Seen:     it is made, but its buffer has room for the logits of `max_q_size` tokens, and a pass that verifies 8 drafts
#           has 9. The first pass ends in a RuntimeError about tensor sizes (8) and (9). With 7 all goes well.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

new_environment torch==2.13.0 exllamav2==0.3.2 tokenizers==0.23.3
stand_in_extension
"$python" - <<'END'
import sys
from types import SimpleNamespace

import exllamav2_ext
import torch

VOCABULARY = 64


def sample(logits: torch.Tensor, *settings: object) -> list[float]:
    """Draws the token 1, as the extension would write it: what is sampled does not matter here."""
    settings[8].fill_(1)
    settings[9].fill_(1.0)
    return []


exllamav2_ext.sample_basic = sample
exllamav2_ext.count_match = lambda a, b, most: 0

from exllamav2 import ExLlamaV2Cache
from exllamav2.generator import ExLlamaV2DynamicGenerator, ExLlamaV2DynamicJob, ExLlamaV2Sampler

language = SimpleNamespace(mrope=False)
config = SimpleNamespace(
    max_seq_len=256, vocab_size=VOCABULARY, max_input_len=256, max_batch_size=1, num_key_value_heads=1, head_dim=8,
    num_hidden_layers=1, arch=SimpleNamespace(lm=language),
)  # fmt: skip


def forward_chunk(input_ids: torch.Tensor, **how: object) -> dict[str, torch.Tensor]:
    """A model of random opinions."""
    return {"logits": torch.rand(*input_ids.shape, VOCABULARY)}


model = SimpleNamespace(
    config=config, forward_chunk=forward_chunk, cache_map={0: "cpu"}, get_cache_devices=lambda: ["cpu"]
)
tokenizer = SimpleNamespace(
    get_id_to_piece_list=lambda special=False: ["x"] * VOCABULARY, get_vocab_size=lambda: VOCABULARY, eos_token_id=0
)


def generated(num_draft_tokens: int) -> str:
    """How a job of 12 tokens ends that may have 4 more."""
    generator = ExLlamaV2DynamicGenerator(
        model, ExLlamaV2Cache(model, max_seq_len=256), tokenizer, max_batch_size=1, paged=False,
        use_ngram_draft=True, num_draft_tokens=num_draft_tokens,
    )  # fmt: skip
    job = ExLlamaV2DynamicJob(torch.arange(12)[None], 4 + num_draft_tokens, gen_settings=ExLlamaV2Sampler.Settings())
    generator.enqueue(job)
    try:
        while generator.num_remaining_jobs():
            generator.iterate()
    except RuntimeError as error:
        return f"RuntimeError: {error}"
    return "goes well"


seven, eight = generated(7), generated(8)
print(f"num_draft_tokens=7: {seven}\nnum_draft_tokens=8: {eight}")
if seven != "goes well" or "(8)" not in eight or "(9)" not in eight:
    sys.exit("changed: another outcome")
print("as recorded: exllamav2 0.3.2 asserts that 8 drafted tokens are allowed, and has room for 7")
END
