"""The arithmetic of `load(gpu_split)` is the engine's own, for any split and length."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.engines.exllamav2.device_map import DeviceMap, MapSizes
from bench.worker import recorder
from bench.worker.cards import open_machine
from bench.worker.engines.exllamav2.session import ExLlamaV2Session
from bench.worker.engines.exllamav2.shallow import with_layers
from bench.worker.engines.registry import worker_engine
from tests.worker.predicted_and_simulated import case_of, little_garbage, tensor_bytes_of

CHOICES: list[tuple[str, dict[str, Any]]] = [
    ("LlamaForCausalLM", {"max_input_len": 512}),
    ("CohereForCausalLM", {"attention": "matmul"}),
]


@pytest.mark.parametrize(("architecture", "axes"), CHOICES)
def test_modules_are_on_the_cards_of_the_engine(layouts: Path, architecture: str, axes: dict[str, Any]) -> None:
    with little_garbage():
        case = case_of(architecture, 9, lazy=False, **axes)
        case = replace(case, more_devices=(case.device, case.device), split="gpu_split(1,1,1)")
        told = recorder.record(with_layers(case, 5), layouts, extra=None).split_sizes
        assert told is not None
        ours = DeviceMap(MapSizes.from_plain(told), 9, tensor_bytes_of(case, layouts))
        chosen = random.Random(architecture)
        ends = set()
        with open_machine(case) as machine:
            session = ExLlamaV2Session(case, machine)
            session.open(worker_engine(case.engine).layout_of(case, layouts))
            session.build()
            model: Any = session._model
            for _ in range(200):
                length = chosen.randrange(1, 40_000)
                most = float(ours.needed_gib(0, length)[-1])
                split = [round(chosen.uniform(0.0, 0.9) * most, chosen.randrange(1, 5)) for _ in range(3)]
                model.config.max_seq_len = length
                cards = ours.cards_of(split, length)
                try:
                    model.set_device_map(split)
                except AssertionError:
                    assert cards is None
                else:
                    assert cards == [module.device_idx for module in model.modules[1:]]
                    contexts = [None if each is None else each.scratch_bytes // 2 * 2 for each in model.device_context]
                    assert [size or None for size in ours.scratch_bytes(cards, 3)] == contexts
                ends.add(cards is None or len(set(cards)))
        assert ends >= {True, 2, 3}
