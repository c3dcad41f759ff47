"""Any config.json, as far as it says something of lengths: what no model has, too."""

from __future__ import annotations

from hypothesis import strategies as st

# Those that ExLlamaV2 reads, in its order.
LENGTH_KEYS = ("max_sequence_length", "model_max_length", "max_position_embeddings", "max_seq_len", "n_positions")

_numbers = st.one_of(
    st.integers(-(10**6), 10**6), st.integers(-(10**400), 10**400), st.sampled_from([1024, 32768, 131072, 10**30])
)
_anything = st.one_of(
    st.none(),
    st.booleans(),
    _numbers,
    st.floats(),
    st.text(max_size=4),
    st.lists(st.integers(), max_size=2),
    st.just({}),
)
_kinds = st.sampled_from(["yarn", "linear", "dynamic", "llama3", "su", "longrope", "default", "mrope", "", None, 5])
_scaling = st.fixed_dictionaries(
    {},
    optional={
        "type": _kinds,
        "rope_type": _kinds,
        "factor": _anything,
        "alpha": _anything,
        "original_max_position_embeddings": _anything,
        "full_attention": st.fixed_dictionaries({}, optional={"rope_type": _kinds, "factor": _anything}),
    },
)
_scope = {
    **dict.fromkeys(LENGTH_KEYS, st.one_of(_numbers, _anything)),
    "rope_scaling": st.one_of(_scaling, _anything),
    "rope_parameters": st.one_of(_scaling, _anything),
    "model_type": st.one_of(st.sampled_from(["gemma3", "gemma2", "llama", "mistral", "qwen2"]), _anything),
    "architectures": st.one_of(st.just(["GPT2LMHeadModel"]), st.just(["LlamaForCausalLM"]), _anything, st.just([{}])),
}
configs = st.fixed_dictionaries(
    {}, optional={**_scope, "text_config": st.one_of(st.fixed_dictionaries({}, optional=_scope), _anything)}
)
