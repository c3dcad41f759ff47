"""ExLlamaV2 without the harness: one model, one cache, the same calls in the same order. Imports nothing of bench.

    python scripts/cost/plain_speed.py MODEL_DIR FP16|Q8|Q6|Q4 load|lazy MAX_SEQ_LEN MAX_INPUT_LEN BATCH REPEATS

Prints one line of JSON. Its partner is own_cost.py, which runs it beside the harness. The last loop is that of
ExLlamaV2's own test script, test_inference.py --speed; it comes last, when all else has been read.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from statistics import median

import torch

torch.cuda.init()
torch.empty(1, device="cuda:0")
torch.cuda.empty_cache()

import exllamav2  # noqa: E402

PROMPT, LAST, WARM_UP, DECODED = 16, 4, 256, 32  # tokens, as in bench/scenarios/forward.py
SWITCHES = {"flash": "no_flash_attn", "xformers": "no_xformers", "sdpa": "no_sdpa"}


def timed(work: Callable[[], None], repeats: int) -> float:
    """Seconds, the median."""
    samples = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        samples.append(time.perf_counter() - started)
    return median(samples)


def main(path: str, cache_name: str, how: str, *sizes: str) -> None:
    max_seq_len, max_input_len, batch, repeats = map(int, sizes)
    config = exllamav2.ExLlamaV2Config(path)
    config.max_seq_len, config.max_input_len, config.max_batch_size = max_seq_len, max_input_len, batch
    attention = os.environ.get("PLAIN_SPEED_ATTENTION", "auto")
    for name, switch in SWITCHES.items():
        setattr(config, switch, attention not in ("auto", name))
    config.arch_compat_overrides()
    model = exllamav2.ExLlamaV2(config)
    cache_class = getattr(exllamav2, "ExLlamaV2Cache" if cache_name == "FP16" else f"ExLlamaV2Cache_{cache_name}")
    if how == "lazy":
        cache = cache_class(model, lazy=True, batch_size=batch, max_seq_len=max_seq_len)
        model.load_autosplit(cache)
    else:
        model.load()
        cache = cache_class(model, batch_size=batch, max_seq_len=max_seq_len)
    ids = torch.zeros((batch, max_seq_len), dtype=torch.long)

    def prefill(length: int) -> None:
        cache.current_seq_len = 0
        model.forward(ids[:, :length], cache, preprocess_only=True)

    def decode(start: int | None, tokens: int) -> None:
        if start is not None:
            cache.current_seq_len = start
        for _ in range(tokens):
            model.forward(ids[:, :1], cache, last_id_only=True).float().cpu()

    prefill(PROMPT)
    decode(None, min(WARM_UP, max_seq_len - PROMPT))
    filled = max_seq_len - LAST
    prefill_s = timed(lambda: prefill(filled), repeats)
    full_s = timed(lambda: decode(max_seq_len - DECODED, DECODED), repeats)
    start_s = timed(lambda: decode(PROMPT, DECODED), repeats)
    stats = torch.cuda.memory_stats(0)
    free_bytes, total_bytes = torch.cuda.mem_get_info(0)
    said = {
        "prefill_tokens_per_s": filled * batch / prefill_s,
        "decode_tokens_per_s_full": DECODED * batch / full_s,
        "decode_tokens_per_s": DECODED * batch / start_s,
        "peak_allocated_bytes": stats["allocated_bytes.all.peak"],
        "peak_reserved_bytes": stats["reserved_bytes.all.peak"],
        "device_bytes": total_bytes - free_bytes,
    }

    def test_script() -> None:
        cache.current_seq_len = 0
        words = ids[:1, :1]
        for _ in range(127):
            logits = model.forward(words[:, -1:], cache)
            sample = torch.argmax(logits[0, -1]).cpu().unsqueeze(0).unsqueeze(0)
            words = torch.cat((words, sample), dim=-1)

    if batch == 1:
        with torch.inference_mode():
            said["test_script_tokens_per_s"] = 127 / timed(test_script, repeats)
    print(json.dumps(said), flush=True)
    os._exit(0)


main(*sys.argv[1:])
