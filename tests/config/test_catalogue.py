"""Every card and model of the catalogue: files that one can plan with, and figures that cannot be slips of the pen."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from bench.config import compose as config
from bench.config.cases import plan_sweep
from bench.core.errors import BadInput

NO_FIGURES = {"auto", "cuda", "local", "hub"}
CARDS = sorted(set(config.names("device")) - NO_FIGURES)
UNKNOWN = "spark_formalizer_x1_7b"  # its config.json was found nowhere
MODELS = sorted(set(config.names("model")) - NO_FIGURES)

# What a name promises, and the generations of NVIDIA's cards: of the data sheets, GB/s and GB as they are sold.
CAPABILITIES = {"6.0", "6.1", "7.0", "7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0"}
SOLD_GB = (6, 8, 10, 11, 12, 16, 20, 22, 24, 32, 40, 48, 80, 94, 96, 141, 180)

WIDTHS = ("intermediate_size", "moe_intermediate_size", "block_ff_dim")  # of MLPs, or of experts


def content(kind: str, name: str) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(OmegaConf.load(config.config_dir() / kind / f"{name}.yaml"))
    return dict(plain)


@pytest.mark.parametrize("name", CARDS)
def test_a_card_is_plausible_and_says_where_its_figures_are_from(name: str) -> None:
    card = content("device", name)
    assert (card["name"], card["kind"]) == (name, "simulated")
    assert card["compute_capability"] in CAPABILITIES
    gib = card["total_memory_bytes"] / 2**30
    sold = next(gb for gb in SOLD_GB if gib / gb < 1.001)
    assert gib / sold > 0.91, f"{gib:.2f} GiB is no card of {sold} GB"
    assert f"{sold}gb" in name or "gb" not in name
    # Old or new: from 5 to 50 GB/s for each multiprocessor, and not faster than memory has ever been.
    per_multiprocessor = card["memory_bandwidth_bytes_per_s"] / card["multi_processor_count"]
    assert 5e9 < per_multiprocessor < 55e9
    assert 150e9 < card["memory_bandwidth_bytes_per_s"] <= 8e12
    assert 64 << 20 < card["context_bytes"] < 1 << 30
    assert card["context_basis"] in ("assumed", "measured")
    assert {"total_memory_bytes", "memory_bandwidth_bytes_per_s", "context_bytes"} <= card["sources"].keys()
    assert (
        ("first_forward_bytes" in card) == ("first_forward_bytes" in card["sources"]) == ("first_forward_basis" in card)
    )


# Of one generation, slowest memory first; equal ones may stand side by side.
GENERATIONS = (
    ("rtx_2060_6gb", "rtx_2070", "rtx_2080_super", "rtx_2080_ti"),
    ("rtx_3050_6gb", "rtx_3050_8gb", "rtx_3060_12gb", "rtx_3070", "rtx_3070_ti", "rtx_3080_10gb", "rtx_3090"),
    ("rtx_4060_8gb", "rtx_4070", "rtx_4070_ti_super", "rtx_4080", "rtx_4090"),
    ("rtx_5060_8gb", "rtx_5070", "rtx_5070_ti", "rtx_5080", "rtx_5090"),
    ("rtx_4060_laptop_8gb", "rtx_4080_laptop_12gb", "rtx_4090_laptop_16gb"),
    ("rtx_2000_ada", "rtx_4000_ada", "rtx_4500_ada", "rtx_6000_ada"),
    ("a10", "a40", "a30", "a100_40gb", "h100_80gb", "h200_141gb", "b200"),
)


@pytest.mark.parametrize("names", GENERATIONS, ids=lambda names: names[0])
def test_the_cards_of_a_generation_stand_in_their_order(names: tuple[str, ...]) -> None:
    cards = [content("device", name) for name in names]
    rates = [card["memory_bandwidth_bytes_per_s"] for card in cards]
    assert rates == sorted(rates)


def test_the_same_chip_with_the_same_memory_is_one_card() -> None:
    told = [(card["full_name"], card["total_memory_bytes"]) for card in (content("device", name) for name in CARDS)]
    assert len(set(told)) == len(told)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_plausible_and_says_where_it_is_from(name: str) -> None:
    model = content("model", name)
    assert model["name"] == name
    assert len(model["source"]) > 20
    top = model["config"]
    if name == UNKNOWN:
        assert "hidden_size" not in top
        return
    inner = {**top, **top.get("text_config", {})}
    assert len(top["architectures"]) == 1
    heads, kv_heads = inner["num_attention_heads"], inner.get("num_key_value_heads", inner["num_attention_heads"])
    assert heads % kv_heads == 0 if kv_heads else "block_configs" in inner  # where each layer has its own
    head_dim = inner.get("head_dim") or inner["hidden_size"] // heads
    assert head_dim in (64, 80, 96, 128, 192, 256, 512) or "kv_lora_rank" in inner
    widths = [inner[key] for key in ("hidden_size", *WIDTHS) if inner.get(key) is not None]
    assert len(widths) > 1 or "block_configs" in inner
    assert not any(width % 32 for width in widths)
    assert top.get("torch_dtype", "bfloat16") in ("bfloat16", "float16", "float32")


def test_each_card_and_each_model_can_be_planned_with() -> None:
    cards = plan_sweep(["model=tinyllama_1_1b", "max_seq_len=512", f"device={','.join(CARDS)}"]).cases
    assert sorted({case.device.name for case in cards}) == CARDS
    models = plan_sweep(["model=all", "max_seq_len=512", "device=rtx_4090"]).cases
    assert sorted({case.model.name for case in models}) == [name for name in MODELS if name != UNKNOWN]
    with pytest.raises(BadInput, match=f"model={UNKNOWN}: model.config: there is no `architectures`; write the one"):
        plan_sweep([f"model={UNKNOWN}"])
