"""The help's list of keys beside the keys that there are."""

from __future__ import annotations

import re
from dataclasses import fields

from bench.commands.help_texts import KEYS
from bench.config.settings import DraftSettings, Settings

# Keys of Hydra, not of a sweep.
_HYDRA = {"hydra/launcher"}


def _named() -> list[str]:
    """The keys that have a line of their own, and those of the line `others`."""
    lines = re.findall(r"^  (\w+): (.*)$", KEYS, re.MULTILINE)
    (others,) = (text for name, text in lines if name == "others")
    beside = re.findall(r"\((\w+)=", KEYS)  # told on the line of the key that they depend on
    return [name for name, _ in lines if name != "others"] + others.split(", ") + beside


def test_every_key_is_in_the_help_and_the_help_names_no_other() -> None:
    named = set(_named()) - _HYDRA
    of_draft = {f"draft.{field.name}" for field in fields(DraftSettings)}
    assert named == {field.name for field in fields(Settings)} - {"draft_model"} | of_draft
