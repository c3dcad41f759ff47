"""What reaches an allocator, event by event and in the same words for a recording and for a program.

The program is read literally here, in plain Python: nothing of the replay takes part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bench.allocator import flash, sort
from bench.allocator.limits import Limits
from bench.trace import template as columns
from bench.trace.parametric import ParametricTrace
from bench.trace.passes import Pass
from bench.trace.recording import Op, Recording, Section, Size
from bench.trace.template import DENOMINATOR, NUM_TERMS, Array, terms

# ("malloc", number in the section, bytes, stream, part), ("free", number) or ("empty_cache",).
Request = tuple[str | int, ...]


def of_recording(recording: Recording, limits: Limits) -> Iterator[tuple[int, int, list[Request]]]:
    """Each section's lengths and requests, on the card of `limits`."""
    for section in recording.sections:
        yield section.q_len, section.k_len, list(_of_section(section, limits))


def of_program(
    trace: ParametricTrace, tensor_bytes: Mapping[str, int], limits: Limits, max_seq_len: int
) -> Iterator[tuple[int, int, list[Request]]]:
    """The same as a program has it; `program` has all its layers."""
    scratch_bytes = trace.scratch_bytes(max_seq_len)
    for number, each in enumerate(trace.passes(max_seq_len)):
        lengths = (0, 0) if number < 2 else (each.q_len, each.k_len)  # a recording of loading has none
        yield *lengths, list(_of_pass(trace, each, tensor_bytes, limits, scratch_bytes, max_seq_len))


def _of_section(section: Section, limits: Limits) -> Iterator[Request]:
    numbers: dict[int, int | None] = {}
    count = 0
    for event in section.events:
        if event.op is Op.MALLOC:
            size_bytes = event.size_bytes
            if event.size is Size.WORKSPACE:
                size_bytes = limits.workspace_bytes
            elif event.size is Size.SORT:
                size_bytes = sort.workspace_bytes(size_bytes, limits.sort_tile)
            elif event.call is not None:
                size_bytes = flash.temporaries(*event.call, limits.num_sms)[event.size - Size.FLASH_0]
            numbers[event.block] = count if size_bytes else None
            if size_bytes:
                yield "malloc", count, size_bytes, event.stream, event.part
                count += 1
        elif event.op is Op.FREE:
            number = numbers[event.block]
            if number is not None:
                yield "free", number
        else:
            yield ("empty_cache",)


def _of_pass(
    trace: ParametricTrace,
    each: Pass,
    tensor_bytes: Mapping[str, int],
    limits: Limits,
    scratch_bytes: int,
    max_seq_len: int,
) -> Iterator[Request]:
    made_of = [int(term) for term in terms(each.q_len, each.k_len, max_seq_len)]
    numbers: dict[int, int | None] = {}
    count = 0
    for index, row in enumerate(trace.templates[each.kind]):
        if row[columns.OP] == Op.MALLOC:
            rule = Size(int(row[columns.SIZE_RULE]))
            if rule is Size.WORKSPACE:
                size_bytes = limits.workspace_bytes
            elif rule is Size.SCRATCH:
                size_bytes = scratch_bytes
            elif rule is Size.TENSOR:
                size_bytes = tensor_bytes[trace.tensors[row[columns.TENSOR]].format(row[columns.LAYER])]
            elif rule is Size.LENGTHS:
                size_bytes = _value(row, columns.SIZE_TERMS, made_of)
            elif rule is Size.SORT:
                size_bytes = sort.workspace_bytes(_value(row, columns.SIZE_TERMS, made_of), limits.sort_tile)
            else:
                call = flash.Call(
                    batch_size=int(row[columns.BATCH]),
                    q_len=_value(row, columns.Q_TERMS, made_of),
                    num_heads=int(row[columns.HEADS]),
                    head_dim=int(row[columns.HEAD_DIM]),
                    k_len=_value(row, columns.K_TERMS, made_of),
                    num_kv_heads=int(row[columns.KV_HEADS]),
                    window=int(row[columns.WINDOW]),
                )
                size_bytes = flash.temporaries(*call, limits.num_sms)[rule - Size.FLASH_0]
            numbers[index] = count if size_bytes else None
            if size_bytes:
                yield "malloc", count, size_bytes, int(row[columns.STREAM]), int(row[columns.PART])
                count += 1
        elif row[columns.OP] == Op.FREE:
            number = numbers[int(row[columns.BLOCK])]
            if number is not None:
                yield "free", number
        else:
            yield ("empty_cache",)


def _value(row: Array, start: int, made_of: list[int]) -> int:
    coefficients = [int(c) for c in row[start : start + NUM_TERMS]]
    value, rest = divmod(sum(c * term for c, term in zip(coefficients, made_of, strict=True)), DENOMINATOR)
    assert rest == 0, "a size that is no whole number of bytes"
    return value
