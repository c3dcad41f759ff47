"""The cases on which the engine is compared: shapes of the catalogue and of every architecture, all axes at random.

Deep models are cut to a few layers: each layer does what the others do, and a case then takes a tenth of a second.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection
from dataclasses import replace
from hashlib import sha256
from typing import Any

from bench.config.cases import plan_sweep
from bench.core.case import Case, ModelSpec
from bench.core.device import DeviceSpec
from bench.worker.engines.exllamav2.shallow import with_num_hidden_layers
from tests.worker.architectures import ARCHITECTURES, DENSE

CATALOGUE = (
    "llama_3_1_8b", "llama_3_1_70b", "phi_3_medium_128k", "phi_3_mini_128k", "mistral_nemo_12b", "mixtral_8x7b",
    "qwen2_5_7b", "qwen2_5_32b", "gemma_2_9b", "gemma_2_27b", "command_r_35b", "tinyllama_1_1b",
)  # fmt: skip
# Compute capability and multiprocessors of some cards.
CARDS = (("8.6", 28), ("8.6", 82), ("8.0", 108), ("8.9", 58), ("8.9", 128), ("9.0", 132), ("12.0", 170))
ENDLESS_BYTES = 1 << 44


def random_cases(count: int, seed: int, only: Collection[str] = ()) -> list[Case]:
    """Cases of whatever shape on cards of endless size; a third of them of the catalogue's.

    `only` are names of models and of architectures, where the others cannot do what is to be compared.
    """
    random_ = random.Random(seed)
    catalogue = [
        plan_sweep([f"model={name}", "device=rtx_4090", "max_seq_len=auto"]).searches[0].longest.model
        for name in CATALOGUE
        if not only or name in only
    ]
    small = [
        model_of(name, {**DENSE, "architectures": [name], **more})
        for name, more in ARCHITECTURES.items()
        if not only or name in only
    ]
    cases = []
    for index in range(count):
        models = catalogue if index % 3 == 0 and catalogue else small
        chosen = models[index // 3 % len(models)]
        shallow = with_num_hidden_layers(chosen.config, random_.choice((2, 2, 3, 4)))
        cases.append(_case(model_of(chosen.name, shallow), random_))
    return cases


def on_a_card_of(case: Case, total_bytes: int) -> Case:
    """The same case on a smaller card."""
    return replace(case, device=replace(case.device, total_memory_bytes=total_bytes))


def _case(model: ModelSpec, random_: random.Random) -> Case:
    bpw = random_.choice((2.0, 2.5, 3.0, 3.5, 4.0, 4.65, 5.0, 6.0, 8.0, 16.0))
    max_input_len = random_.choice((256, 512, 1024, 2048, 2048, 4096))
    batch_size = random_.choice((1, 1, 1, 2, 3, 4))
    attention = random_.choice(("auto", "flash", "flash", "sdpa", "matmul"))
    # The scores of every query and key are held where the kernel does not do without.
    most = 8192 if attention in ("auto", "flash") else 4096
    # On Hopper PyTorch gives SDPA to cuDNN, which needs a driver: that is for a real card to show.
    capability, num_sms = random_.choice([card for card in CARDS if attention != "sdpa" or card[0] != "9.0"])
    return Case(
        model=model,
        device=DeviceSpec("null", "simulated", "Null GPU", ENDLESS_BYTES, capability, num_sms, 1e12, 0, "measured"),
        bpw=bpw,
        head_bits=None if bpw == 16.0 else random_.choice((6, 6, 8)),
        cache=random_.choice(("FP16", "Q8", "Q6", "Q4")),
        lazy=random_.random() < 0.4,
        attention=attention,
        max_seq_len=random_.choice((random_.randrange(32, most), 256 * random_.randrange(1, most // 256 + 1))),
        batch_size=batch_size,
        max_input_len=max_input_len,
        repeats=1,
    )


def model_of(name: str, config: dict[str, Any]) -> ModelSpec:
    """A model of a config.json, which its fingerprint follows from."""
    return ModelSpec(name, config, sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16])
