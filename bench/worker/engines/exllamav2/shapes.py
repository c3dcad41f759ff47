"""Which shapes ExLlamaV2's modules take of a checkpoint: as their `load` reads tensors, and their kernels check them.

An EXL2 layer must be exact: the kernels compare rows and columns (exllamav2_ext/ext_qmatrix.cpp).
Of an unquantised embedding or head the engine takes what rows there are; some more than words, as padding makes them,
change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bench.worker.interfaces.engine import Misshapen, Shape

_PADDING = 1024  # words to whose multiple a vocabulary is padded, at most: 128 for each of 8 GPUs (Megatron-LM)


def misshapen(modules: Iterable[Any], shapes: Mapping[str, Shape]) -> list[Misshapen]:
    """All tensors of `shapes` (by the engine's names) that do not suit `modules`, the leaves of an ExLlamaV2 model."""
    modules = list(modules)
    ends: dict[str, int] = {}  # the rows that a fused tensor has, by what its last part is
    for module in modules:
        fused = getattr(module, "f_key", None)
        if fused:
            ends[fused] = max(ends.get(fused, 0), module.f_end)
    found: dict[str, Misshapen] = {}
    for module in modules:
        for each in _of_module(module, shapes, ends):
            found.setdefault(each.tensor, each)
    return list(found.values())


def _of_module(module: Any, shapes: Mapping[str, Shape], ends: Mapping[str, int]) -> Iterator[Misshapen]:
    from exllamav2.embedding import ExLlamaV2Embedding
    from exllamav2.headnorm import ExLlamaV2HeadNorm
    from exllamav2.linear import ExLlamaV2Linear
    from exllamav2.pos_embedding import ExLlamaV2PosEmbedding

    config = module.model.config
    if isinstance(module, ExLlamaV2Linear):
        yield from _of_linear(module, shapes, ends)
    elif isinstance(module, ExLlamaV2Embedding):
        yield from _of_words(f"{module.key}.weight", shapes, config.vocab_size, config.hidden_size)
    elif isinstance(module, ExLlamaV2PosEmbedding):
        name = f"{module.key}.weight"
        found = shapes.get(name)
        if found is not None and (len(found) != 2 or found[0] < config.max_seq_len or found[1] != config.hidden_size):
            yield Misshapen(name, found, (config.max_seq_len, config.hidden_size))
    elif isinstance(module, ExLlamaV2HeadNorm):
        name, expected = f"{module.key}.weight", (module.num_heads, module.head_dim)
        if name in shapes and shapes[name] not in (expected, (module.head_dim,)):
            yield Misshapen(name, shapes[name], expected)
    else:  # a norm
        for part in ("weight", "bias"):
            yield from _unless(f"{module.key}.{part}", shapes, (config.hidden_size,))


def _of_linear(module: Any, shapes: Mapping[str, Shape], ends: Mapping[str, int]) -> Iterator[Misshapen]:
    """As ExLlamaV2Module.load_weight_fused and load_weight find it, in their order."""
    fused = module.f_key
    whole = next((name for name in (fused, f"{fused}.weight") if fused and name in shapes), None)
    if whole is not None:
        yield from _of_fused(module, whole, shapes, ends[fused])
        return
    inputs, outputs = module.in_features, module.out_features
    own = outputs - module.padding
    for key in filter(None, (module.key, module.alt_key)):
        bias = f"{key}.bias"
        if f"{key}.q_weight" in shapes:
            rows, columns = shapes[f"{key}.q_weight"][:1] or (0,), (outputs,)
            yield from _unless(f"{key}.q_weight", shapes, rows + columns)
            yield from _unless(f"{key}.q_invperm", shapes, (inputs,))
            groups = shapes.get(f"{key}.q_scale", (0,))[:1]
            yield from _unless(f"{key}.q_scale", shapes, (*groups, outputs // 8))
            yield from _bias(module, bias, shapes, (outputs,))
            return
        if f"{key}.weight" in shapes:
            if key == module.alt_key or module.key.endswith("lm_head"):
                yield from _of_words(f"{key}.weight", shapes, own, inputs)
            else:
                turned = module.model.config.arch.orig_weights_transposed and bias in shapes
                yield from _unless(f"{key}.weight", shapes, (inputs, own) if turned else (own, inputs))
            yield from _bias(module, bias, shapes, (own,))
            return


def _of_fused(module: Any, name: str, shapes: Mapping[str, Shape], rows: int) -> Iterator[Misshapen]:
    """One tensor for several layers, of which each takes the rows from `f_beg` to `f_end`."""
    inputs, outputs = module.in_features, module.out_features - module.padding
    found = shapes[name]
    expected = (rows, inputs)
    if module.f_end - module.f_beg == inputs != outputs:  # as it is, or turned round when it was cut out
        expected = (rows, outputs)
    turned = module.model.config.arch.orig_weights_transposed and len(found) == 2
    if (found[::-1] if turned else found) != expected:
        yield Misshapen(name, found, expected[::-1] if turned else expected)
    if module.has_bias:
        yield from _unless(f"{module.f_key}.bias", shapes, (rows,))


def _of_words(name: str, shapes: Mapping[str, Shape], words: int, width: int) -> Iterator[Misshapen]:
    """A row for each word, and some that are padding."""
    found = shapes.get(name)
    if found is not None and (len(found) != 2 or found[1] != width or not 0 <= found[0] - words < _PADDING):
        yield Misshapen(name, found, (words, width))


def _bias(module: Any, name: str, shapes: Mapping[str, Shape], expected: Shape) -> Iterator[Misshapen]:
    if module.has_bias:
        yield from _unless(name, shapes, expected)
    elif name in shapes:  # ExLlamaV2Linear.load asserts that there is none
        yield Misshapen(name, shapes[name], None)


def _unless(name: str, shapes: Mapping[str, Shape], expected: Shape) -> Iterator[Misshapen]:
    if name in shapes and shapes[name] != expected:
        yield Misshapen(name, shapes[name], expected)
