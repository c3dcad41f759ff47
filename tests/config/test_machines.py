"""Several cards in one case: what is typed, and what it means."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.config import compose as config
from bench.config import devices
from bench.config.cases import plan_sweep
from bench.config.catalogue import Catalogue
from bench.config.devices import resolve_devices
from bench.config.limits import limits_of_cards
from bench.config.settings import Settings
from bench.config.splits import split_of
from bench.core.device import DeviceSpec
from bench.core.errors import BadInput
from bench.core.machine import Machine, machine_name
from bench.core.split import Split, SplitBy
from bench.nvml import Gpu

CARD = "total_memory_bytes: 10GiB\ncompute_capability: 8.6\n"


def _machines(*overrides: str) -> list[tuple[DeviceSpec, ...]]:
    return [resolve_devices(settings.device) for settings in config.validate_all(config.combinations(overrides))]


def _names(*overrides: str) -> list[list[str]]:
    return [[card.name for card in cards] for cards in _machines(*overrides)]


def _split(count: int = 2, **keys: Any) -> tuple[str | None, bool]:
    return split_of(replace(Settings(), **keys), count)


def test_a_machine_is_several_cards_in_their_order() -> None:
    assert _names("device=2xrtx_3090") == [["rtx_3090", "rtx_3090"]]
    assert _names("device=rtx_4090+rtx_3060_12gb") == [["rtx_4090", "rtx_3060_12gb"]]
    assert _names("device=rtx_3060_12gb + 2x rtx_4090") == [["rtx_3060_12gb", "rtx_4090", "rtx_4090"]]
    assert _names("device=l4,2xl4,l4+t4") == [["l4"], ["l4", "l4"], ["l4", "t4"]]


def test_all_machines_of_one_kind_are_an_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = ["a10", "l4", "rtx_3090", "rtx_4090", "t4"]  # of the whole catalogue there are thousands of pairs
    monkeypatch.setattr(Catalogue, "known", lambda *_: cards)
    assert [names[0] for names in _names("device=all")] == cards
    assert _names("device=2xall") == [[card, card] for card in cards]
    assert _names("device=all+l4") == [[card, "l4"] for card in cards]
    pairs = _names("device=all+all")
    assert len(pairs) == len(cards) * (len(cards) + 1) // 2 == len({tuple(sorted(pair)) for pair in pairs})


def test_the_cards_of_a_machine_are_those_of_the_catalogue() -> None:
    ((single,),) = _machines("device=rtx_3090")
    ((first, second),) = _machines("device=2xrtx_3090")
    assert first == second == single


@pytest.mark.parametrize("name", ["a/b c", "RTX 3080 (10 GB)", "2xfoo", "a+b", "x,y"])
def test_a_card_in_a_machine_may_be_called_anything(tmp_path: Path, name: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"{CARD}name: '{name}'\n")
    assert _names(f"device=2x{path}") == [[name, name]]


def test_a_machine_has_cards_of_one_s_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(CARD)
    ((first, second, third),) = _machines(f"device=2x{path}+l4")
    assert first == second
    assert (first.name, first.total_memory_bytes, third.name) == ("mine", 10 << 30, "l4")


def test_two_machines_of_one_name_are_two(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "mine.yaml" for folder in ("a", "b")]
    for path, size in zip(paths, ("10GiB", "12GiB"), strict=True):
        path.parent.mkdir()
        path.write_text(CARD.replace("10GiB", size))
    found = _machines(f"device=2x{paths[0]},2x{paths[1]}")
    assert [[card.total_memory_bytes >> 30 for card in cards] for cards in found] == [[10, 10], [12, 12]]
    machines = [Machine(cards) for cards in found]
    assert machines[0].name == machines[1].name == "2xmine"
    assert machines[0].cards != machines[1].cards


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("device=2xrtx_3091", "unknown device 'rtx_3091'. Did you mean"),
        ("device=rtx_3090+", "name a card before and after each +"),
        ("device=0xrtx_3090", "count from 1"),
        ("device=99xrtx_3090", "a machine has 2 to 16"),
        ("device=1xrtx_3090", "1 card; a machine has 2 to 16"),
        ("device=cuda+rtx_3090", "device=cuda device.index=0+1"),
        ("device=./nowhere.yaml+l4", "no such file"),
        ("device=l4+cuda", "device=cuda device.index=0+1"),
        ("device.index=0+", "device.index=0+: allowed are a GPU's number from 0 on, those of several: 0+1, or all"),
        ("device.index=[]", "device.index=[]: allowed are a GPU's number from 0 on"),
        ("device.index=-1", "device.index=-1: allowed are a GPU's number from 0 on"),
    ],
)
def test_what_is_no_machine_is_told(override: str, said: str) -> None:
    with pytest.raises(BadInput) as refusal:
        _machines(override)
    assert said in str(refusal.value)
    assert len(str(refusal.value).splitlines()) <= 2


def test_a_card_of_a_machine_without_memory_is_told_by_its_place(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    path.write_text(CARD.replace("10GiB", "0GiB"))
    with pytest.raises(BadInput, match=r"card 2 of the machine, device\.total_memory_bytes: '0GiB' is not a size"):
        _machines(f"device=l4+{path}")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["device=cuda", "device.index=1+1"], "device.index=1+1: a GPU is there twice"),
        (["device=cuda", "device.index=1+2"], "device.index=1+2: this machine has 2 GPUs, numbers 0 to 1"),
        (["device=l4", "device.index=0+1"], "l4 is simulated; GPUs of this machine are device=cuda device.index=0+1"),
        (["device=2xl4", "device.index=0+1"], "2xl4 is simulated; GPUs of this machine are device=cuda device"),
    ],
)
def test_gpus_that_are_no_machine_are_told(overrides: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [Gpu(n, f"GPU-{n}", "NVIDIA L4", 24 << 30, "8.9", "580.1", "13.0") for n in (0, 1)]
    monkeypatch.setattr(devices, "find_gpus", lambda: (gpus, None))
    ((first, second),) = _machines("device=cuda", "device.index=1+0")
    assert (first.uuid, second.uuid) == ("GPU-1", "GPU-0")  # in the order that was typed
    with pytest.raises(BadInput) as refusal:
        _machines(*overrides)
    assert said in str(refusal.value)


def test_several_gpus_are_not_replaced_by_one_that_is_simulated() -> None:
    with pytest.raises(BadInput, match=r"device\.index=0\+1: no NVIDIA GPU"):
        _machines("device=auto", "device.index=0+1")


@pytest.mark.parametrize("key", ["device.context_bytes=300MiB", "device.name=mine"])
def test_a_key_of_one_card_is_refused_for_several(key: str) -> None:
    with pytest.raises(BadInput, match="of which card of 2xl4"):
        _machines("device=2xl4", key)


def test_cards_that_follow_each_other_are_counted() -> None:
    assert machine_name(["a", "a", "b", "a"]) == "2xa+b+a"


def test_a_machine_is_told_by_all_of_its_cards() -> None:
    ((four, six),) = _machines("device=rtx_4090+rtx_3060_12gb")
    machine, other = Machine((four, six)), Machine((six, four))
    assert machine.total_memory_bytes == four.total_memory_bytes + six.total_memory_bytes
    assert (machine.compute_capability, machine.kind, machine.context_bytes) == ("8.9+8.6", "simulated", None)
    assert machine.cards != other.cards
    assert Machine((four, replace(six, context_bytes=1))).cards != machine.cards


def test_several_cards_are_filled_one_after_the_other_unless_told_otherwise() -> None:
    assert _split() == ("auto", True)
    assert _split(1) == (None, False)
    assert _split(1, lazy=True, split="auto") == (None, True)
    assert _split(split="tp") == ("tensor_parallel", False)
    assert _split(split=[20, 24.5]) == _split(gpu_split=[20, 24.5]) == ("gpu_split(20,24.5)", False)
    assert _split(split="tensor_parallel", gpu_split=[20, 24]) == ("tensor_parallel(20,24)", False)
    assert _split(reserve_vram="96MiB") == ("auto(96,96)", True)
    assert _split(3, reserve_vram=["96MiB", 0, "1GiB"]) == ("auto(96,0,1024)", True)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"split": [20]}, "split=[20]: give one number for each of 2 cards, not 1"),
        ({"gpu_split": [20, 24, 24]}, "one number for each of 2 cards, not 3"),
        ({"gpu_split": 20}, "give a list, GiB for each card: gpu_split=[20,20]"),
        ({"gpu_split": [20, -1]}, "-1 is no number of GiB"),
        ({"split": [0, 0]}, "split=[0,0]: no card may hold anything; give at least one of them GiB: split=[0,20]"),
        ({"split": "tp", "gpu_split": [0, 0.0]}, "gpu_split=[0,0.0]: no card may hold anything"),
        ({"gpu_split": [20, "much"]}, "much is no number of GiB"),
        ({"gpu_split": [20, float("inf")]}, "inf is no number of GiB"),
        ({"split": "row"}, "allowed are auto, gpu_split, best, tensor_parallel, or GiB for each card: [20,24]"),
        ({"split": "gpu_split"}, "how many GiB for each card?"),
        ({"split": "auto", "gpu_split": [20, 24]}, "leave one of the two out"),
        ({"split": [20, 24], "gpu_split": [20, 24]}, "give one of the two"),
        ({"split": "tensor_parallel", "reserve_vram": "96MiB"}, "only split=auto keeps a reserve"),
        ({"reserve_vram": ["96MiB"]}, "one number for each of 2 cards, not 1"),
        ({"reserve_vram": "much"}, "'much' is not a size"),
        ({"lazy": False}, "split=auto is load_autosplit, with a lazy cache"),
        ({"lazy": True, "split": [20, 24]}, "split=gpu_split loads, then makes the cache"),
    ],
)
def test_what_is_no_split_is_told(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as refusal:
        _split(**keys)
    assert said in str(refusal.value)


@pytest.mark.parametrize("reserve", ["12GiB", "[1GiB,12GiB]"])
def test_a_reserve_as_large_as_its_card_is_told(reserve: str) -> None:
    asked = ["model=tinyllama_1_1b", "device=rtx_4090+rtx_3060_12gb", f"reserve_vram={reserve}"]
    with pytest.raises(BadInput, match=r"rtx_3060_12gb itself has 11\.63 GiB; give less") as refusal:
        plan_sweep(asked)
    assert str(refusal.value).startswith(f"reserve_vram={reserve}: ")


def test_each_card_of_a_machine_has_a_limit_of_its_own() -> None:
    ((four, six),) = _machines("device=rtx_4090+rtx_3060_12gb")
    gib = 1 << 30
    assert limits_of_cards(None, (four, six)) == (None, None)
    assert limits_of_cards("8GiB", (four, six)) == limits_of_cards(["8GiB", "8GiB"], (four, six)) == (8 * gib, 8 * gib)
    assert limits_of_cards(["20GiB", None], (four, six)) == (20 * gib, None)
    assert limits_of_cards(["20GiB"], (four,)) == (20 * gib,)


@pytest.mark.parametrize(
    ("value", "count", "said"),
    [
        (["20GiB"], 2, "vram_limit=[20GiB]: 1 sizes for 2 cards; give one for each, null for a whole card, or one"),
        (["20GiB", None, "1GiB"], 2, "vram_limit=[20GiB,null,1GiB]: 3 sizes for 2 cards"),
        ([], 2, "vram_limit=[]: 0 sizes for 2 cards"),
        (["20GiB", "10GiB"], 1, "this is one card: give one size, or several to try one after the other: vram_limit="),
        (["20GiB", "30GiB"], 2, "vram_limit=[20GiB,30GiB]: rtx_4090 itself has 23.52 GiB"),
        (["20GiB", "much"], 2, "vram_limit=[20GiB,much]: 'much' is not a size"),
        (["20GiB", 0], 2, "vram_limit=[20GiB,0]: 0"),
        (["20GiB", ["10GiB"]], 2, "is not a size"),
    ],
)
def test_what_is_no_limit_of_several_cards_is_told(value: Any, count: int, said: str) -> None:
    ((device, *_),) = _machines("device=2xrtx_4090")
    with pytest.raises(BadInput) as refusal:
        limits_of_cards(value, [device] * count)
    assert said in str(refusal.value)


@pytest.mark.parametrize("keys", [{"split": "tensor_parallel"}, {"split": [20]}, {"reserve_vram": "96MiB"}])
def test_one_card_is_not_split(keys: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="for several cards, and this is one"):
        _split(1, **keys)


_GIB = st.lists(st.floats(0, 1e6), min_size=2, max_size=8).map(tuple)
_BYTES = st.lists(st.integers(0, 1 << 50), min_size=2, max_size=8).map(tuple)


@given(
    st.one_of(
        st.builds(Split, st.just(SplitBy.AUTO), st.none(), st.none() | _BYTES),
        st.builds(Split, st.just(SplitBy.GPU_SPLIT), _GIB),
        st.builds(Split, st.just(SplitBy.TENSOR_PARALLEL), st.none() | _GIB),
    )
)
def test_a_split_is_read_as_it_was_written(split: Split) -> None:
    assert Split.parse(str(split)) == split
