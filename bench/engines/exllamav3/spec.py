"""All that the parent knows of exllamav3 1.6."""

from __future__ import annotations

from bench.core.case import EXPANDABLE
from bench.engines.base import EngineSpec, Package, SimulatedSeconds, Weights
from bench.engines.exllamav3 import caches
from bench.engines.exllamav3.architectures import ARCHITECTURES
from bench.engines.exllamav3.frontends import FRONTENDS
from bench.engines.exllamav3.served import SPARE_TOKENS

SPEC = EngineSpec(
    name="exllamav3",
    title="exllamav3",
    extension="exllamav3_ext",
    caches=caches.CACHES,
    caches_in_words=caches.IN_WORDS,
    cache_synonyms=caches.SYNONYMS,
    # It has kernels of its own, and no way to ask for others (exllamav3/modules/attention_fn/dispatch.py).
    attentions=(),
    attention_synonyms={},
    allocator=EXPANDABLE,  # exllamav3/__init__.py, where PYTORCH_CUDA_ALLOC_CONF is not set
    # exllamav3/conversion/convert_model.py: --bits and --head_bits. Single tensors have whole bits, or 1.5, 2.5 or 3.5
    # with its default codebook (allocation.py, HALF_RATES); their mean is any number.
    least_bpw=1.0,
    most_bpw=8.0,
    head_bits=(1, 2, 3, 4, 5, 6, 7, 8),
    default_head_bits=6,
    has_max_attention_size=False,
    context_step=256,  # exllamav3/constants.py, PAGE_SIZE; cache/fp16.py and cache/quant.py assert it
    scenarios=("forward", "generator"),
    default_draft_tokens=4,  # generator/generator.py, num_draft_tokens
    most_draft_tokens=15,  # it bounds none; with more a pass is no graph (attention_fn/bc_attn.py, up to 16 queries)
    job_spare_tokens=SPARE_TOKENS,
    draft_models=False,
    servers={},
    frontends=FRONTENDS,
    several_cards=False,
    makes_checkpoints=True,
    layout_note=(
        "bit widths as exllamav3 1.6.5's converter gives them for bpw and head_bits alone: those of -hq, recipes and "
        "older converters differ (model=hub or model=local reads their headers)"
    ),
    architectures=ARCHITECTURES,
    # exllamav3/model/config.py reads it and bounds nothing by it: the cache has the length that it is made with.
    length_keys=("max_position_embeddings",),
    default_length=None,
    learned_positions=frozenset(),
    weights=Weights(
        quantised="EXL3",
        plain_types=("F16", "BF16", "F32"),
        in_words="exllamav3 loads EXL3 weights, and unquantised ones of F16, BF16 or F32",
        why_not={"FP8": "exllamav3 unpacks some of them to FP16 as it loads, and vram-bench lays none of them out"},
    ),
    # Nobody has published speeds by card, bits and context for this version from which it could be taken.
    decode_efficiency=None,
    unpacks_cache=False,  # its kernels read a quantised cache as it is (attention_fn/dispatch.py, _fns_qc)
    warm_up_tokens=256,  # assumed: its graphs are captured at the second call (libtorch/attention.cpp)
    # CPU time with expandable segments, on a machine with others at work, times the ratios of docs/exllamav3.md since.
    simulated_seconds=SimulatedSeconds(
        load_layer=0.0095,
        load_unquantised_layer=0.006,
        load_expert=0.00124,
        chunk_layer={"triton": 0.00022},
        unquantised_chunk_layer=0.0,
        decode_layer=0.0008,
        expert=0.004,
        repeated_expert=0.00001,
    ),
    oom_texts=(
        r"Insufficient VRAM in split for model and cache",  # exllamav3/model/model_ls.py and model_tp_alloc.py
        # Buffers that its extension takes from the driver (exllamav3_ext/quant/exl3_devctx.cu)
        r"exl3 (workspace|lock buffer) allocation failed",
    ),
    packages={
        "exllamav3_ext": Package(
            "install the wheel of exllamav3's releases that is for this torch and Python: the one of PyPI builds its "
            "extension at the first import",
            "measuring",
        ),
        "triton": Package("install the triton that this torch asks for (pip show torch)", "measuring"),
    },
)
