"""A replay is the allocator fed with a program's events, one by one; whatever it leaves out makes no difference."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.allocator import flash
from bench.allocator.caching import CachingAllocator, OutOfMemory
from bench.allocator.limits import Limits
from bench.allocator.parts import PARTS
from bench.core.outcome import Phase
from bench.trace import template as columns
from bench.trace.parametric import ParametricTrace
from bench.trace.passes import NoPrediction
from bench.trace.recording import Op, Size
from bench.trace.replay import Replayer
from bench.trace.template import DENOMINATOR, Array
from tests.trace import requests
from tests.trace.synthetic_recordings import PLAIN, free, malloc, template, trace_of

KIB, MIB = 1 << 10, 1 << 20
ENDLESS = 1 << 50


def limits(total_bytes: int = ENDLESS, num_sms: int = 108) -> Limits:
    return Limits(total_bytes, context_bytes=0, num_sms=num_sms, workspace_bytes=8 * MIB + 1, sort_tile=3072)


def one_by_one(trace: ParametricTrace, max_seq_len: int, card: Limits, tensor_bytes: dict[str, int]) -> dict[str, Any]:
    """The program's requests put to an allocator, every section in full, until memory runs out."""
    allocator = CachingAllocator(card.torch_bytes, len(PARTS))
    failed_in = None
    for each, (_, _, asked) in zip(
        trace.passes(max_seq_len), requests.of_program(trace, tensor_bytes, card, max_seq_len), strict=True
    ):
        rows: dict[Any, int] = {}
        try:
            for request in asked:
                if request[0] == "malloc":
                    _, number, size_bytes, stream, part = request
                    rows[number] = allocator.malloc(int(size_bytes), int(stream), int(part))
                elif request[0] == "free":
                    allocator.free(rows[request[1]])
                else:
                    allocator.empty_cache()
        except OutOfMemory:
            failed_in = each.phase
            break
    stats = allocator.stats
    return {
        "failed_in": failed_in,
        "peak_allocated_bytes": stats.peak_allocated_bytes,
        "peak_requested_bytes": stats.peak_requested_bytes,
        "peak_reserved_bytes": stats.peak_reserved_bytes,
        "parts_at_peak": tuple(allocator.parts_at_peak),
        "peak_held_bytes": stats.peak_reserved_bytes,  # nothing is taken beside PyTorch
    }


@st.composite
def sections(draw: st.DrawFn, keeps: bool) -> Array:
    """Allocations of random sizes that grow with the lengths or do not, freed in any order, or not at all."""
    rows: list[dict[int, int]] = []
    held: list[int] = []
    for _ in range(draw(st.integers(0, 12))):
        action = draw(st.sampled_from(["malloc", "malloc", "malloc", "free", "empty_cache"]))
        if action == "malloc":
            held.append(len(rows))
            fixed = draw(st.sampled_from([0, 1, 700, 600 * KIB, 3 * MIB, 15 * MIB, 40 * MIB]))
            by_length = draw(st.sampled_from([[], [0, 0, 0, 0], [50], [0, 700], [0, 0, 2048], [0, 0, 0, 8]]))
            rows.append(malloc(fixed, *by_length, stream=draw(st.integers(0, 1)), part=draw(st.integers(0, 9))))
        elif action == "free" and held:
            rows.append(free(held.pop(draw(st.integers(0, len(held) - 1)))))
        elif action == "empty_cache" and draw(st.booleans()):
            rows.append({columns.OP: Op.EMPTY_CACHE})
    if not keeps:
        rows += [free(index) for index in draw(st.permutations(held))]
    return template(rows)


@given(
    load=sections(True),
    cache=sections(True),
    prompt=sections(False),
    prefill=sections(False),
    decode=sections(False),
    leaks=sections(True),
    chunk=st.sampled_from([64, 16, 1024]),
    length=st.integers(40, 900),
    shares=st.lists(st.floats(0.2, 1.1), min_size=3, max_size=3),
)
@settings(max_examples=200, deadline=None)
def test_a_replay_is_the_allocator_event_by_event(
    load: Array,
    cache: Array,
    prompt: Array,
    prefill: Array,
    decode: Array,
    leaks: Array,
    chunk: int,
    length: int,
    shares: list[float],
) -> None:
    """On an endless card and on some that are full, over dozens of equal sections, most of which a replay skips."""
    setup = PLAIN._replace(max_input_len=chunk)
    trace = trace_of(setup, load=load, cache=cache, prompt=prompt, prefill=prefill, decode=decode, warm_up_0=leaks)
    replayer = Replayer(trace, {})
    need = one_by_one(trace, length, limits(), {})
    assert vars(replayer.replay(length, limits(), endless=True)) == need
    for share in shares:
        card = limits(int(need["peak_reserved_bytes"] * share))
        assert vars(replayer.replay(length, card)) == one_by_one(trace, length, card, {})


@given(prefill=sections(True), length=st.integers(40, 600))
@settings(max_examples=50, deadline=None)
def test_sections_that_keep_what_they_allocate_are_never_skipped(prefill: Array, length: int) -> None:
    trace = trace_of(prefill=prefill, decode=prefill)
    assert vars(Replayer(trace, {}).replay(length, limits())) == one_by_one(trace, length, limits(), {})


def test_a_section_whose_sizes_change_back_is_run_again() -> None:
    """Decoding at the end of the context, and then at its start: other sizes of the same kind."""
    decode = template([malloc(0, 0, 300 * KIB), malloc(0, 0, 10 * KIB), free(0), free(1)])
    trace = trace_of(decode=decode)
    assert vars(Replayer(trace, {}).replay(500, limits())) == one_by_one(trace, 500, limits(), {})


_FLASH = (Size.FLASH_0, Size.FLASH_1, Size.FLASH_2)


def test_every_rule_gives_its_size() -> None:
    flash_call = {
        columns.BATCH: 1,
        columns.HEADS: 8,
        columns.HEAD_DIM: 128,
        columns.KV_HEADS: 2,
        columns.WINDOW: -1,
        columns.Q_TERMS + 3: DENOMINATOR,
        columns.K_TERMS + 2: DENOMINATOR,
    }
    decode = template(
        [
            *({columns.SIZE_RULE: rule, columns.PART: rule, **flash_call} for rule in _FLASH),
            {columns.SIZE_RULE: Size.WORKSPACE, columns.PART: 2},
            {columns.SIZE_RULE: Size.SCRATCH, columns.PART: 3},
            {columns.SIZE_RULE: Size.SORT, columns.PART: 4, columns.SIZE_TERMS: 8192 * DENOMINATOR},
            {columns.SIZE_RULE: Size.TENSOR, columns.TENSOR: 0, columns.LAYER: 0, columns.PART: 1},
            *(free(index) for index in range(7)),
        ]
    )
    trace = trace_of(tensors=["layers.{}.w"], scratch=[[5, 3], [500, 2]], decode=decode)
    card, sizes = limits(num_sms=132), {"layers.0.w": 12345}
    replay = Replayer(trace, sizes).replay(4096, card)
    assert vars(replay) == one_by_one(trace, 4096, card, sizes)
    lse, lse_accumulators, out_accumulators = flash.temporaries(1, 1, 8, 128, 4096, 2, -1, 132)
    assert lse_accumulators > 0
    assert replay.peak_requested_bytes == (
        lse + lse_accumulators + out_accumulators + card.workspace_bytes + (500 + 2 * 64) + 110_079 + 12345
    )


def test_the_scratch_of_lazy_loading_is_bounded_by_the_length() -> None:
    trace = trace_of(scratch=[[1, 3]])
    assert [trace.scratch_bytes(length) for length in (40, 64, 99)] == [192, 192, 192]
    lazy = replace(trace, setup=PLAIN._replace(lazy=True))
    assert [lazy.scratch_bytes(length) for length in (40, 64, 99)] == [120, 192, 192]


def test_segments_without_number_are_no_matter() -> None:
    """Chunks that grow leave one segment each behind: more than there are events, and than there first are rows."""
    setup = PLAIN._replace(max_input_len=16, native_max_seq_len=1 << 20)
    trace = trace_of(setup, prefill=template([malloc(0, 0, 1 << 20), free(0)]))
    assert vars(Replayer(trace, {}).replay(8000, limits())) == one_by_one(trace, 8000, limits(), {})


def test_an_endless_card_is_of_the_same_kind() -> None:
    trace = trace_of(load=template([{columns.SIZE_RULE: Size.WORKSPACE}]))
    full = Replayer(trace, {}).replay(40, limits(MIB))
    assert (full.fits, full.failed_in, full.peak_allocated_bytes) == (False, "load", 0)
    endless = Replayer(trace, {}).replay(40, limits(MIB), endless=True)
    assert (endless.fits, endless.peak_requested_bytes) == (True, 8 * MIB + 1)


def test_the_phase_that_fails_is_told() -> None:
    for kind, phase in {
        "cache": "cache",
        "prompt": Phase.PREFILL,
        "warm_up_1": Phase.PREFILL,
        "prefill": Phase.PREFILL,
        "decode": Phase.DECODE,
    }.items():
        trace = trace_of(**{kind: template([malloc(3 * MIB)])})
        assert Replayer(trace, {}).replay(40, limits(MIB)).failed_in == phase


def test_a_tensor_that_is_not_there_is_named() -> None:
    loads = template([{columns.SIZE_RULE: Size.TENSOR, columns.TENSOR: 0, columns.LAYER: 0}])
    with pytest.raises(NoPrediction, match=r"no tensor 'layers\.0\.w'"):
        Replayer(trace_of(tensors=["layers.{}.w"], load=loads), {"layers.1.w": 1})


def test_lengths_that_break_a_relation_are_refused() -> None:
    trace = replace(trace_of(), null_space={**trace_of().null_space, "load": [[100, -1, 0, 0, 0, 0, 0]]})
    replayer = Replayer(trace, {})
    assert replayer.replay(100, limits()).fits
    with pytest.raises(NoPrediction, match=r"leave open what is taken by a load \(load\)"):
        replayer.replay(101, limits())


def test_kinds_that_were_never_recorded_are_refused() -> None:
    trace = trace_of()
    del trace.templates["decode"]
    with pytest.raises(NoPrediction, match=r"no recording shows a decode of 1 tokens after 96 \(decode\)"):
        Replayer(trace, {}).replay(100, limits())


def _num_splits_heuristic(batch_nheads_mblocks: int, num_sms: int, num_n_blocks: int, max_splits: int) -> int:
    """flash_api.cpp, line by line; `float` is single precision there."""
    if np.float32(batch_nheads_mblocks) >= np.float32(0.8) * np.float32(num_sms):
        return 1
    max_splits = min(max_splits, num_sms, num_n_blocks)
    max_efficiency = np.float32(0)
    efficiency = []

    def ceildiv(a: int, b: int) -> int:
        return (a + b - 1) // b

    def is_split_eligible(num_splits: int) -> bool:
        return num_splits == 1 or ceildiv(num_n_blocks, num_splits) != ceildiv(num_n_blocks, num_splits - 1)

    for num_splits in range(1, max_splits + 1):
        if not is_split_eligible(num_splits):
            efficiency.append(np.float32(0))
        else:
            n_waves = np.float32(batch_nheads_mblocks * num_splits) / np.float32(num_sms)
            eff = n_waves / np.ceil(n_waves)
            max_efficiency = max(max_efficiency, eff)
            efficiency.append(eff)
    for num_splits in range(1, max_splits + 1):
        if not is_split_eligible(num_splits):
            continue
        if float(efficiency[num_splits - 1]) >= 0.85 * float(max_efficiency):
            return num_splits
    return 1


def _temporaries(call: flash.Call, num_sms: int) -> tuple[int, int, int]:
    """mha_fwd and set_params_splitkv, as far as they allocate."""
    batch_size, seqlen_q, num_heads, head_size, seqlen_k, num_heads_k, window = call
    window_size_left = window_size_right = -1 if window >= seqlen_k else window
    seqlenq_ngroups_swapped = (
        seqlen_q == 1 and num_heads > num_heads_k and window_size_left < 0 and window_size_right < 0
    )
    if seqlenq_ngroups_swapped:
        ngroups = num_heads // num_heads_k
        seqlen_q, num_heads = ngroups, num_heads_k

    def round_multiple(x: int, m: int) -> int:
        return (x + m - 1) // m * m

    head_size_rounded = round_multiple(head_size, 32 if head_size <= 128 else 64)
    softmax_lse = batch_size * num_heads * seqlen_q * 4
    block_n = 256 if head_size <= 64 else (128 if head_size <= 128 else 64)
    num_n_blocks = (seqlen_k + block_n - 1) // block_n
    num_m_blocks = (seqlen_q + 64 - 1) // 64
    num_splits = _num_splits_heuristic(batch_size * num_heads * num_m_blocks, num_sms * 2, num_n_blocks, 128)
    if num_splits <= 1:
        return softmax_lse, 0, 0
    softmax_lse_accum = num_splits * batch_size * num_heads * seqlen_q * 4
    out_accum = num_splits * batch_size * num_heads * seqlen_q * head_size_rounded * 4
    return softmax_lse, softmax_lse_accum, out_accum


@given(
    batch_size=st.integers(1, 8),
    q_len=st.one_of(st.just(1), st.integers(1, 300), st.integers(1, 4096)),
    num_kv_heads=st.integers(1, 16),
    groups=st.integers(1, 12),
    head_dim=st.sampled_from([32, 40, 64, 72, 80, 96, 112, 128, 136, 160, 192, 224, 256]),
    k_len=st.one_of(st.integers(1, 300), st.integers(1, 200_000)),
    window=st.one_of(st.just(-1), st.integers(1, 5000)),
    num_sms=st.one_of(st.sampled_from([24, 34, 40, 58, 82, 84, 108, 128, 132, 142, 170]), st.integers(1, 200)),
)
@settings(max_examples=500, deadline=None)
def test_flash_attn_takes_what_its_source_says(
    batch_size: int,
    q_len: int,
    num_kv_heads: int,
    groups: int,
    head_dim: int,
    k_len: int,
    window: int,
    num_sms: int,
) -> None:
    call = flash.Call(batch_size, q_len, num_kv_heads * groups, head_dim, k_len, num_kv_heads, window)
    assert flash.temporaries(*call, num_sms) == _temporaries(call, num_sms)


def test_splitting_is_worth_while_for_few_queries_and_many_keys_only() -> None:
    splits = {k_len: flash.num_splits(8, 128, k_len, 108) for k_len in (64, 1024, 65536)}
    assert splits[64] == 1
    assert splits[65536] > splits[1024] > 1
    assert flash.num_splits(174, 128, 65536, 108) == 1


@pytest.mark.parametrize(
    ("work_items", "num_sms"), [(122, 108), (42, 39), (97, 89), (149, 132), (192, 170), (272, 170)]
)
def test_ties_are_decided_by_rounding_as_in_the_original(work_items: int, num_sms: int) -> None:
    """Numbers of splits that use the card to 85 % of the best exactly, and just enough work not to split at all."""
    for num_blocks in range(1, 300):
        expected = _num_splits_heuristic(work_items, 2 * num_sms, num_blocks, 128)
        assert flash.num_splits(work_items, 128, 128 * num_blocks, num_sms) == expected


def test_what_is_loaded_beforehand_is_all_that_a_replay_runs() -> None:
    script = """
from bench.engines.exllamav2 import chunks
from bench.trace import replay, sections
from tests.trace.test_replay import limits
from tests.trace.synthetic_recordings import malloc, template, trace_of
chunks.load_compiled()
replay.load_compiled()
compiled = (sections._replay, sections._all_sizes, sections._fill, chunks.chunks_of)
before = [each.signatures for each in compiled]
assert all(len(each) == 1 for each in before), before
trace = trace_of(load=template([malloc(512)]))
assert replay.Replayer(trace, {}).replay(512, limits()).fits
assert [each.signatures for each in compiled] == before
"""
    subprocess.run([sys.executable, "-c", script], check=True)
