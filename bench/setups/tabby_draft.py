"""TabbyAPI's keys for what proposes tokens."""

from __future__ import annotations

from pathlib import Path

from bench.core.errors import BadInput
from bench.core.printable import printable
from bench.setups.setup import Setup, is_typed
from bench.setups.tabby_keys import TabbyKeys

_SECTION = "draft_model"
_MODES = ("model", "disabled", "mtp", "ngram")
_ON_TOP = "its weights and its cache come on top"


def tell_draft(setup: Setup, keys: TabbyKeys, folder: Path) -> bool:
    """Tells `setup` of it; `folder` is that of the file. Whether a draft model is run. Raises `BadInput`."""
    mode, name = keys.get("draft_mode", _SECTION), keys.get("draft_model_name", _SECTION)
    if mode is not None and mode not in _MODES:
        raise BadInput(
            f"{setup.source}: draft_model.draft_mode={printable(str(mode))}: allowed are {', '.join(_MODES)}"
        )
    frontend = setup.frontend
    if not frontend.ngram and mode not in (None, "model"):
        setup.leave(f"draft_model.draft_mode: {mode}", f"{frontend.title} has none with {setup.engine.title}")
        mode = "model"
    count = keys.get("draft_num_tokens", _SECTION)
    has_draft = False
    if mode == "ngram":
        setup.take("draft_model.draft_mode: ngram", "draft=ngram")
    elif mode == "mtp":
        setup.leave("draft_model.draft_mode: mtp", f"the model's own layers for it are not run here: {_ON_TOP}")
    elif mode in (None, "model") and name:
        has_draft = _tell_model(setup, keys, name, folder)
    if count is None or mode == "disabled":
        return has_draft
    said = f"draft_model.draft_num_tokens: {count}"
    if frontend.draft_tokens is not None:
        setup.leave(said, f"{frontend.title} has {frontend.draft_tokens} proposed whatever it says")
    elif mode == "ngram" or has_draft:
        setup.take(said, f"num_draft_tokens={count}")
    else:
        setup.leave(said, "nothing that is run here proposes tokens")
    return has_draft


def _tell_model(setup: Setup, keys: TabbyKeys, name: str, folder: Path) -> bool:
    """Whether the draft model is run: the engine may not be, with one."""
    said = f"draft_model.draft_model_name: {printable(name)}"
    if not setup.engine.draft_models:
        setup.leave(said, f"{setup.engine.title} is not run with a draft model here: {_ON_TOP}")
        return False
    path = folder / (keys.get("draft_model_dir", _SECTION) or "models") / name
    if is_typed("draft.model", setup.typed):
        setup.leave(said, "the draft model was typed beside it")
    elif (path / "config.json").is_file():
        setup.take(said, "draft.model=local", f"draft.model.path={path.absolute()}")
    else:
        raise BadInput(
            f"{setup.source}: draft_model.draft_model_name is {path}, and there is no model here; name it beside it: "
            "draft.model=NAME draft.bpw=N, or draft.model.path=DIR"
        )
    setup.take("(a draft model)", "draft=model")
    if (mode := keys.get("draft_cache_mode", _SECTION)) is not None:
        told = f"draft_model.draft_cache_mode: {printable(str(mode))}"
        setup.take(told, f"draft.cache={setup.cache_of(told, mode)}")
    if split := keys.get("draft_gpu_split", _SECTION):
        setup.leave(f"draft_model.draft_gpu_split: {split}", "here the draft model is on one card")
    return True
