"""About how many weights a model has, held against the names of the catalogue's models."""

from __future__ import annotations

import re

from bench.config.compose import model_settings, names
from bench.config.model_size import weights_of


def test_the_size_of_a_model_is_about_what_its_name_says() -> None:
    checked = 0
    for name in names("model"):
        said = re.search(r"(?<!\d)_(\d+)b(?:_|$)", name)
        weights = weights_of(model_settings(name).config) if said else None
        if said and weights and int(said[1]) >= 8 and not re.search(r"\d_\d+b", name.replace("_0_", "_")):
            assert abs(weights / 1e9 / int(said[1]) - 1) < 0.12, name
            checked += 1
    assert checked > 30


def test_layers_of_a_kind_that_is_not_counted_have_no_size() -> None:
    assert weights_of(model_settings("nemotron_nano_12b_v2").config) is None
    assert weights_of({}) is None
