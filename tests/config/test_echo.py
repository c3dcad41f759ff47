"""A number that is refused is said as it was typed."""

from __future__ import annotations

import pytest

from bench.config.cases import plan_checkpoint, plan_sweep
from bench.core.errors import BadInput

ON = ["model=llama_3_1_8b", "device=rtx_4090"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("max_seq_len=1e3", "max_seq_len=1e3: give a number of tokens"),
        ("max_seq_len=512,1e3", "max_seq_len=1e3: give a number of tokens"),
        ("max_seq_len=[512,1e3]", "max_seq_len=1e3: give a number of tokens"),
        ("max_seq_len=1000.0", "max_seq_len=1000.0: give a number of tokens"),
        ("max_seq_len=2_5.5", "max_seq_len=2_5.5: give a number of tokens"),
        ("auto_up_to=1e9", "auto_up_to=1e9: "),
        ("bpw=1e3", "bpw=1e3: "),
        ("batch_size=1e30", "batch_size=1e30: "),
    ],
)
def test_a_number_is_repeated_as_it_was_typed(override: str, said: str) -> None:
    with pytest.raises(BadInput) as refused:
        plan_sweep([*ON, override])
    assert str(refused.value).startswith(said)


def test_so_it_is_for_a_checkpoint() -> None:
    with pytest.raises(BadInput, match=r"^bpw=1e3: "):
        plan_checkpoint(["model=llama_3_1_8b", "bpw=1e3"])
