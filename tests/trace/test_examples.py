"""The worked examples in the docstrings of the trace's modules come out as they say."""

from __future__ import annotations

import doctest
from types import ModuleType

import pytest

from bench.trace import handed_on, parametric, replay, solve


@pytest.mark.parametrize("module", [solve, parametric, replay, handed_on], ids=lambda module: module.__name__)
def test_the_worked_example(module: ModuleType) -> None:
    failed, examples = doctest.testmod(module)
    assert examples > 2
    assert not failed
