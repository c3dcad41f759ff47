"""Predictions and predicted boundaries: against every page, replayed one after the other."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.allocator.limits import Limits
from bench.allocator.parts import PARTS
from bench.forecast.predict import predict, predict_boundary, predict_fits_at
from bench.forecast.search import grid
from bench.trace.passes import NoPrediction
from bench.trace.replay import Replayer
from tests.trace.synthetic_recordings import PLAIN, free, malloc, template, trace_of
from tests.worker.predicted_and_simulated import case_of, little_garbage, tensor_bytes_of
from tests.worker.predicted_and_simulated import trace_of as recorded_program_of

KIB, MIB = 1 << 10, 1 << 20
CONTEXT_BYTES = 300 * MIB
NATIVE = 8192


def limits(torch_bytes: int) -> Limits:
    return Limits(torch_bytes + CONTEXT_BYTES, CONTEXT_BYTES, num_sms=108, workspace_bytes=8_519_680, sort_tile=3072)


def made_up_replayer(weights: int, per_token: int, per_chunk: int, activations: int) -> Replayer:
    """A model whose cache is a line over the length."""
    decode = template([malloc(activations), malloc(0, 0, 8), free(0), free(1)])
    return Replayer(
        trace_of(
            PLAIN._replace(max_input_len=1024, native_max_seq_len=NATIVE),
            load=template([malloc(weights, part=0)]),
            cache=template([malloc(0, per_token, part=1), malloc(0, per_token, part=1)]),
            prefill=template([malloc(0, 0, 0, per_chunk, part=6), malloc(0, 0, 0, 0, 1, part=4), free(0), free(1)]),
            decode=decode,
        ),
        {},
    )


def fitting_pages(replayer: Replayer, card: Limits, native: int) -> list[int]:
    """Every length of the grid that fits, by trying them all."""
    return [length for length in grid(native) if replayer.replay(length, card).fits]


def assert_is_the_boundary(replayer: Replayer, card: Limits, native: int) -> bool:
    """Whether what fits is all that lies below one length; then that is what must be found."""
    found, fitting, pages = predict_fits_at(replayer, card, native), fitting_pages(replayer, card, native), grid(native)
    if fitting == pages[: len(fitting)]:
        assert found == (fitting[-1] if fitting else 0)
        return True
    # Where a longer one fits again, both sides of what was found must have been seen.
    following = next((page for page in pages if page > found), None)
    assert found in fitting or found == 0
    assert following is None or following not in fitting
    return False


@given(
    weights=st.integers(1, 600 * MIB),
    per_token=st.integers(0, 40 * KIB),
    per_chunk=st.integers(0, 100 * KIB),
    activations=st.integers(0, 30 * MIB),
    torch_bytes=st.integers(MIB, 1400 * MIB),
    native=st.sampled_from([100, 256, 300, 4000, 4096, NATIVE]),
)
@settings(max_examples=150, deadline=None)
def test_the_boundary_is_that_of_trying_every_page(
    weights: int, per_token: int, per_chunk: int, activations: int, torch_bytes: int, native: int
) -> None:
    assert_is_the_boundary(made_up_replayer(weights, per_token, per_chunk, activations), limits(torch_bytes), native)


@pytest.mark.parametrize(
    "axes", [{}, {"lazy": True, "cache": "Q4"}, {"attention": "matmul"}], ids=["load", "lazy", "matmul"]
)
def test_the_boundary_of_a_recorded_model_is_that_of_trying_every_page(tmp_path: Path, axes: dict[str, Any]) -> None:
    search = case_of("LlamaForCausalLM", 6, **axes)
    with little_garbage():
        replayer = Replayer(recorded_program_of(search, tmp_path), tensor_bytes_of(search, tmp_path))
    least, most = (replayer.replay(length, limits(1 << 50)).peak_allocated_bytes for length in (256, NATIVE))
    between = range(least - 10 * MIB, most + 200 * MIB, (most - least) // 12)
    whole = [assert_is_the_boundary(replayer, limits(torch_bytes), NATIVE) for torch_bytes in between]
    assert sum(whole) > len(whole) // 2
    found = [predict_fits_at(replayer, limits(torch_bytes), NATIVE) for torch_bytes in between]
    assert found[0] == 0
    assert found[-1] == NATIVE
    assert all(a <= b for a, b in pairwise(found))
    assert len(set(found)) > 5


def test_a_case_that_fits_is_told_with_its_peaks() -> None:
    replayer = made_up_replayer(100 * MIB, 10 * KIB, 0, 0)
    prediction = predict(replayer, limits(400 * MIB), 4096)
    assert (prediction.length, prediction.fits, prediction.failed_in) == (4096, True, None)
    replay = replayer.replay(4096, limits(400 * MIB))
    assert prediction.peak_allocated_bytes == replay.peak_allocated_bytes
    assert prediction.peak_reserved_bytes == replay.peak_reserved_bytes
    assert prediction.peak_device_bytes == replay.peak_reserved_bytes + CONTEXT_BYTES
    assert prediction.parts["weights"] == 100 * MIB
    assert prediction.parts["cache"] == 2 * 4096 * 10 * KIB
    assert prediction.parts["context"] == CONTEXT_BYTES
    assert sum(prediction.parts.values()) == prediction.peak_allocated_bytes + CONTEXT_BYTES
    assert set(prediction.parts) == {*PARTS, "context"}


def test_a_case_that_does_not_fit_is_told_with_what_it_would_need() -> None:
    replayer = made_up_replayer(100 * MIB, 10 * KIB, 0, 0)
    there, short = (predict(replayer, limits(size), 4096) for size in (400 * MIB, 150 * MIB))
    assert (short.fits, short.failed_in) == (False, "cache")
    assert replace(short, fits=True, failed_in=None) == there


def test_what_a_full_card_holds_on_to_is_not_what_is_needed() -> None:
    """Cached segments are given back where a card is full; the need is told for a card that is not."""
    setup = PLAIN._replace(max_input_len=1024, native_max_seq_len=NATIVE)
    load = template([malloc(20 * MIB), malloc(30 * MIB), free(1)])
    replayer = Replayer(trace_of(setup, load=load, cache=template([malloc(40 * MIB)])), {})
    need = predict(replayer, limits(1 << 40), 8000)
    enough = predict(replayer, limits(70 * MIB), 8000)
    assert enough.fits
    assert (need.peak_reserved_bytes, enough.peak_reserved_bytes) == (90 * MIB, 60 * MIB)
    assert enough.peak_allocated_bytes == need.peak_allocated_bytes


@pytest.mark.parametrize(("torch_bytes", "pages"), [(MIB, 0), (124 * MIB, 4), (1 << 40, NATIVE // 256)])
def test_the_case_at_the_boundary_is_the_longest_or_else_the_first_page(torch_bytes: int, pages: int) -> None:
    replayer = made_up_replayer(100 * MIB, 10 * KIB, 0, 0)
    boundary = predict_boundary(replayer, limits(torch_bytes), NATIVE)
    assert (boundary.length, boundary.fits) == (256 * max(1, pages), pages > 0)
    assert boundary == predict(replayer, limits(torch_bytes), boundary.length)


def test_a_model_whose_needs_do_not_grow_has_a_boundary() -> None:
    replayer = made_up_replayer(100 * MIB, 0, 0, 0)
    assert predict_fits_at(replayer, limits(300 * MIB), NATIVE) == NATIVE
    assert predict_fits_at(replayer, limits(50 * MIB), NATIVE) == 0


def test_what_is_unpredictable_has_no_boundary() -> None:
    trace = trace_of(PLAIN._replace(native_max_seq_len=NATIVE))
    refused = replace(trace, refused={"decode": "nobody knows"})
    with pytest.raises(NoPrediction, match="nobody knows"):
        predict_fits_at(Replayer(refused, {}), limits(MIB), NATIVE)
