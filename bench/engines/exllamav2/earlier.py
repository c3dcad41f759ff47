"""What earlier versions of ExLlamaV2 are known to have held otherwise, by their own source."""

from __future__ import annotations

from bench.core.case import UNQUANTISED_BPW, Case

_HEAD_IN_SCRATCH_UNTIL = (0, 1, 0)
_ITEM_BYTES, _ALIGNED_BYTES = 4, 128


def more_after_loading_bytes(case: Case, version: tuple[int, ...]) -> int:
    """What `version` holds more than the simulated one once a model is loaded, as far as it is known; 0 where nothing.

    Before 0.1.0 the scratch buffer had room for the output layer's own result besides what it dequantises to: 4 bytes
    for each word and token of a chunk (exllamav2/linear.py, temp_fwd_size; from 0.1.0 on only of layers inside of
    others). Unquantised weights take no scratch.
    """
    vocabulary = case.model.config.get("vocab_size")
    if case.bpw == UNQUANTISED_BPW or not isinstance(vocabulary, int) or version >= _HEAD_IN_SCRATCH_UNTIL:
        return 0
    return vocabulary * case.max_input_len * case.batch_size * _ITEM_BYTES + _ALIGNED_BYTES
