"""Predictions, advice and corrections, with made-up programs: a model whose memory is a line over the length."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench.allocator.limits import Limits
from bench.allocator.parts import PARTS
from bench.core.case import Axis, Case, ModelSpec, Search, version_column
from bench.core.columns import CaseRow
from bench.core.device import DeviceSpec
from bench.forecast.forecaster import Forecast, Forecaster
from bench.forecast.library import TraceLibrary
from bench.forecast.speed import step_of
from bench.launch.versions import installed_versions
from bench.run.boundary import find_boundary
from bench.trace.passes import NoPrediction
from bench.trace.replay import Replay

MIB, GIB = 1 << 20, 1 << 30
NATIVE = 131_072
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128_256,
    "max_position_embeddings": NATIVE,
}
CARD = DeviceSpec("card", "simulated", "Some card", 8 * GIB, "8.9", 128, 1e12, 400 * MIB, "measured")
CASE = Case(
    model=ModelSpec("mine", CONFIG, "f1"),
    device=CARD,
    bpw=4.0,
    head_bits=6,
    cache="FP16",
    lazy=False,
    attention="auto",
    max_seq_len=NATIVE,
    batch_size=1,
    max_input_len=2048,
)
CACHE_BYTES = {"FP16": 128 << 10, "Q8": 68 << 10, "Q6": 52 << 10, "Q4": 36 << 10}  # a token
SEGMENT = 20 * MIB


@dataclass(frozen=True)
class Line:
    """Replays of a case whose memory is weights, so much for each token, and so much for each token of a chunk."""

    case: Case
    reading: None = None

    def replay(self, max_seq_len: int, limits: Limits, endless: bool = False) -> Replay:
        parts = dict.fromkeys(PARTS, 0)
        parts["weights"] = self._weights()
        parts["cache"] = max_seq_len * CACHE_BYTES[self.case.cache]
        parts["activations"] = min(max_seq_len, self.case.max_input_len) * 100 * 1024
        parts["reserve"] = 448 * MIB if self.case.lazy else 0
        allocated = sum(parts.values())
        reserved = -(-allocated // SEGMENT) * SEGMENT
        fits = endless or reserved <= limits.torch_bytes
        failed_in = None if fits else "load" if parts["weights"] > limits.torch_bytes else "cache"
        return Replay(failed_in, allocated, allocated, reserved, tuple(parts.values()), reserved)

    def is_known(self, length: int) -> bool:
        """All are."""
        return True

    def lengths_alike(self, lengths: Sequence[int], limits: Any) -> None:
        """A longer one takes no less."""

    def needed_bytes(self, max_seq_len: int, limits: Limits) -> int:
        return self.replay(max_seq_len, limits, endless=True).peak_allocated_bytes

    def _weights(self) -> int:
        step = step_of(self.case)
        return round(step.weights_bytes) if step else 0


@dataclass
class Shelf:
    """Stands for the programs: `recorded` are those that were asked for, and not there before. Nothing was kept."""

    jobs = 1
    store = SimpleNamespace(read=lambda keys: {}, write=lambda answers: None)

    recorded: list[str] = field(default_factory=list)
    reason: str | None = None

    def prepare(self, cases: Iterable[Case], made: object = None) -> None:
        self.recorded += sorted({self.search_key(case) for case in cases} - set(self.recorded))

    def search_key(self, case: Case, axis: Axis = Axis.MAX_SEQ_LEN) -> str:
        return f"{case.model.name} {case.bpw:g} {case.head_bits} {case.cache} {case.lazy} {case.max_input_len}"

    def replayer(self, case: Case, axis: Axis = Axis.MAX_SEQ_LEN) -> Line:
        if self.reason or self.search_key(case) not in self.recorded:
            raise NoPrediction(self.reason or "its recording came to no end")
        return Line(case)


def forecaster(*cases: Case, rows: Iterable[dict[str, Any]] = (), **shelf: Any) -> tuple[Forecaster, Shelf]:
    """A forecaster with the recordings of `cases`."""
    traces = Shelf(**shelf)
    made = Forecaster(cast(TraceLibrary, traces), rows)
    made.prepare(cases)
    traces.recorded_at_first = len(traces.recorded)  # type: ignore[attr-defined]
    return made, traces


def forecast(work: Case | Search) -> Forecast:
    case = work.longest if isinstance(work, Search) else work
    return forecaster(case)[0].forecast(work)


def sized(gib: float, **changed: Any) -> Case:
    return replace(CASE, device=replace(CARD, total_memory_bytes=int(gib * GIB)), **changed)


def advice(case: Case) -> tuple[str | None, list[str]]:
    """What is advised, and what was recorded to say so."""
    made, shelf = forecaster(case)
    said = made.advise(Search(case))
    return said, shelf.recorded[1:]


# What is said of a case or a search


def test_a_case_is_what_its_replay_says() -> None:
    case = sized(8, max_seq_len=4096)
    said = forecast(case)
    alone = Line(case).replay(4096, Limits(8 * GIB, 0, 128, 0, 3072))
    assert said.prediction is not None
    assert (said.prediction.fits, said.prediction.peak_allocated_bytes) == (True, alone.peak_allocated_bytes)
    assert said.prediction.peak_device_bytes == alone.peak_reserved_bytes + 400 * MIB
    assert sum(said.prediction.parts.values()) == alone.peak_allocated_bytes + 400 * MIB
    assert (said.fits_at, said.probes, said.reason) == (None, 1, None)


@pytest.mark.parametrize(
    ("gib", "fits_at", "length", "probes"), [(6, 14_592, 14_592, 2), (24, NATIVE, NATIVE, 1), (2, 0, 256, 1)]
)
def test_a_cell_is_predicted_where_it_ends(gib: float, fits_at: int, length: int, probes: int) -> None:
    said = forecast(Search(sized(gib)))
    assert (said.fits_at, said.probes) == (fits_at, probes)
    assert said.prediction is not None
    assert (said.prediction.length, said.prediction.fits) == (length, fits_at > 0)


def test_what_cannot_be_predicted_says_why_and_takes_a_search() -> None:
    made, _ = forecaster(CASE, reason="no such model")
    said = made.forecast(Search(CASE))
    assert (said.prediction, said.fits_at, said.reason) == (None, None, "no such model")
    assert said.probes == 10  # 512 pages, halved
    assert made.fits_at(Search(CASE)) is None
    assert made.predict(CASE) is None
    assert made.forecast(CASE).probes == 1


def test_a_speed_is_estimated_for_simulated_cards_where_the_case_fits() -> None:
    real = replace(CARD, kind="cuda", uuid="GPU-1")
    assert forecast(sized(24)).estimated_decode_tokens_per_s is not None
    assert forecast(sized(2)).estimated_decode_tokens_per_s is None
    assert forecast(replace(CASE, device=replace(real, total_memory_bytes=24 * GIB))).prediction is not None
    assert forecast(replace(CASE, device=real)).estimated_decode_tokens_per_s is None


# What is advised


def test_gains_are_one_step_of_each_kind() -> None:
    made, shelf = forecaster(sized(6, lazy=True))
    gains = dict(made.gains(Search(sized(6, lazy=True))))
    assert list(gains) == ["lazy=false", "cache=Q8", "bpw=3.5", "max_input_len=1024"]
    assert gains["lazy=false"] == 14_592
    assert len(shelf.recorded) == 5


def test_the_nearest_setting_that_fits_is_advised_and_it_does_fit() -> None:
    case = sized(3.5)
    said, _ = advice(case)
    assert said == "bpw=3 would fit 1,280 tokens (predicted)"
    assert forecast(Search(replace(case, bpw=3.0))).fits_at == 1280
    assert forecast(Search(replace(case, bpw=3.5))).fits_at == 0


def test_a_smaller_cache_is_advised_where_that_is_enough() -> None:
    short = sized((_at_the_first_page(CASE) - SEGMENT + MIB) / GIB)
    assert forecast(Search(short)).fits_at == 0
    said, _ = advice(short)
    assert said == "cache=Q8 would fit 256 tokens (predicted)"


def _at_the_first_page(case: Case) -> int:
    """The smallest card that takes 256 tokens."""
    return Line(case).replay(256, Limits(0, 0, 0, 0, 3072), endless=True).peak_reserved_bytes + 400 * MIB


def test_the_smallest_is_named_with_what_it_lacks() -> None:
    smallest = replace(CASE, bpw=2.0, cache="Q4", max_input_len=256)
    said, recorded = advice(sized(_at_the_first_page(smallest) / GIB - 0.02))
    assert said == "not even with lazy=false bpw=2 cache=Q4 max_input_len=256: 256 tokens need 0.1 GiB more (predicted)"
    assert recorded == ["mine 2 6 Q4 False 256"]


def test_no_recording_is_made_where_the_weights_alone_are_too_much() -> None:
    said, recorded = advice(sized(1, cache="Q8"))
    assert said is not None
    assert said.startswith("not even with lazy=false bpw=2 cache=Q4 max_input_len=256: the weights alone need 1.4 GiB")
    assert recorded == []


def test_what_cannot_save_enough_is_not_recorded() -> None:
    """No cache takes as much as is missing, and the weights of 3.5 bpw are too many by themselves."""
    said, recorded = advice(sized(3.5))
    assert said is not None
    assert said.startswith("bpw=3 ")
    assert recorded == ["mine 2 6 Q4 False 256", "mine 3 6 FP16 False 2048"]


def test_weights_that_are_there_are_not_told_to_shrink() -> None:
    mine = replace(CASE.model, path="/models/mine", bpw=4.0)
    said, _ = advice(sized(4, model=mine, head_bits=None))
    assert said is not None
    assert said.startswith("not even with lazy=false cache=Q4 max_input_len=256: ")
    assert "bpw" not in said


def test_an_unquantised_model_is_advised_with_the_head_that_it_would_get() -> None:
    case = sized(6, bpw=16.0, head_bits=None)
    said, recorded = advice(case)
    assert said == "bpw=6 would fit 1,536 tokens (predicted)"
    assert forecast(Search(replace(case, bpw=6.0, head_bits=6))).fits_at == 1536
    assert "mine 6 6 FP16 False 2048" in recorded


def test_where_nothing_can_be_predicted_nothing_is_advised() -> None:
    made, _ = forecaster(sized(4), reason="no such model")
    assert made.advise(Search(sized(4))) is None


# A real card that is not what was assumed


REAL = DeviceSpec("gpu", "cuda", "NVIDIA Some GPU", 24 * GIB, "8.9", index=0, uuid="GPU-1", driver_version="580.1")
WEIGHTS = ModelSpec("mine", CONFIG, "f1", "/models/mine", bpw=4.0)


@dataclass
class RealCard:
    """What is true of a card: CUDA sees less of it than the driver lists, the context is another one than assumed, and
    PyTorch has more in use than was predicted.
    """

    total_bytes: int
    context_bytes: int
    residual_bytes: int
    made: Forecaster
    probes: list[int] = field(default_factory=list)

    def measure(self, case: Case, again: bool = False) -> dict[str, Any]:
        limits = Limits(self.total_bytes, self.context_bytes + self.residual_bytes, 128, 0, 3072)
        replay = Line(case).replay(case.max_seq_len, limits)
        held = replay.peak_reserved_bytes + self.residual_bytes
        predicted = self.made.predict(case)
        row = {
            **dict.fromkeys(CaseRow.__annotations__),
            **(versions := installed_versions()),
            "engine": case.engine,
            "engine_version": versions[version_column(case.engine)],
            "case_id": str(case.max_seq_len),
            "device_kind": "cuda",
            "device_uuid": "GPU-1",
            "driver_version": "580.1",
            "device_total_bytes": self.total_bytes,
            "model_fingerprint": case.model.fingerprint,
            "cache": case.cache,
            "lazy": case.lazy,
            "max_seq_len": case.max_seq_len,
            "outcome": "fits" if replay.fits else "oom",
            "peak_allocated_bytes": replay.peak_allocated_bytes + self.residual_bytes,
            "predicted_peak_bytes": predicted and predicted.peak_allocated_bytes,
            "peak_reserved_bytes": min(held, self.total_bytes - self.context_bytes),
            "peak_device_bytes": min(held + self.context_bytes, self.total_bytes),
            "context_bytes": self.context_bytes,
        }
        self.made.learn(row)
        return row

    def find(self, search: Search) -> dict[str, Any]:
        row = find_boundary(search, "boundary", self.measure, self.made)
        assert row is not None
        limits = Limits(self.total_bytes, self.context_bytes + self.residual_bytes, 128, 0, 3072)
        assert row["certified"]
        assert Line(search.longest).replay(row["fits_at"], limits).fits
        self.probes.append(row["probes"])
        return row


def searches(gib: int) -> list[Search]:
    """Two ways of loading and four caches on a card as the driver lists it."""
    device = replace(REAL, total_memory_bytes=gib * GIB)
    base = replace(CASE, device=device, model=WEIGHTS, head_bits=None)
    return [Search(replace(base, cache=cache, lazy=lazy)) for lazy in (False, True) for cache in CACHE_BYTES]


@pytest.mark.parametrize(
    ("unseen", "context", "missed", "first"),
    [
        (0, 750 * MIB, 0, 3),  # 300 MiB more context than assumed
        (0, 150 * MIB, 0, 3),  # and less
        (500 * MIB, 450 * MIB, 0, 3),
        (0, 450 * MIB, 200 * MIB, 6),  # this is known once a case fits
        (500 * MIB, 700 * MIB, 100 * MIB, 6),
        (500 * MIB, 350 * MIB, -150 * MIB, 4),
    ],
)
@pytest.mark.parametrize("gib", [6, 9])
def test_the_first_cell_pays_for_what_was_assumed_and_the_others_do_not(
    gib: int, unseen: int, context: int, missed: int, first: int
) -> None:
    made, _ = forecaster(*(search.longest for search in searches(gib)))
    card = RealCard(gib * GIB - unseen, context, missed, made)
    rows = [card.find(search) for search in searches(gib)]
    assert card.probes[0] <= first
    assert card.probes[1:] == [1 if row["fits_at"] == NATIVE else 2 for row in rows[1:]]
    assert [row["predicted_fits_at"] for row in rows[1:]] == [row["fits_at"] for row in rows[1:]]


def test_what_one_run_has_learned_the_next_one_knows() -> None:
    earlier, _ = forecaster(*(search.longest for search in searches(6)))
    row = RealCard(6 * GIB - 500 * MIB, 700 * MIB, 100 * MIB, earlier).measure(searches(6)[0].at(4096))
    later, _ = forecaster(*(search.longest for search in searches(6)), rows=[row])
    card = RealCard(6 * GIB - 500 * MIB, 700 * MIB, 100 * MIB, later)
    card.find(searches(6)[0])
    assert card.probes == [2]
