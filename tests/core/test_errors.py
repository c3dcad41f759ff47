"""What is said of an error of somebody else's."""

from __future__ import annotations

import pytest

from bench.core.errors import first_line


@pytest.mark.parametrize(
    ("error", "said"),
    [(ValueError("no\nway"), "no"), (ValueError(), "ValueError"), (RuntimeError("\nlater"), "RuntimeError")],
)
def test_an_error_is_one_line_and_never_none(error: Exception, said: str) -> None:
    assert first_line(error) == said
