"""What a recorder must know of ExLlamaV2: how a case is made shallow, and where its passes and layers begin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

from bench.core.case import MAX_SEQ_LEN, PAGE, Case
from bench.core.split import Split, SplitBy
from bench.engines.exllamav2.setup import Setup, asked_by
from bench.trace.recording import DraftDepth
from bench.trace.template import SHOWN_PERIODS
from bench.worker.engines.base import Beginning, Division, Listener, Recordable
from bench.worker.engines.exllamav2.choices import choose_attention, read_back
from bench.worker.engines.exllamav2.divisions import chosen, on_cards_alike
from bench.worker.engines.exllamav2.drafts import is_draft
from bench.worker.engines.exllamav2.map_sizes import map_sizes
from bench.worker.engines.exllamav2.readable import read_config
from bench.worker.engines.exllamav2.several_cards import begin_a_card, on_two_cards
from bench.worker.engines.exllamav2.shallow import with_draft_layers, with_layers
from bench.worker.interfaces.card import Machine


def recordable(case: Case, machine: Machine) -> Recordable:
    """How `case` is recorded on a machine like `machine`. Raises `Unsupported`."""
    config = read_config(case.model.config)
    setup = _setup(case, config, choose_attention(config, case.attention, machine))
    num_layers, period = _depth(case, config)
    shallow = case if num_layers == config.num_hidden_layers else with_layers(case, num_layers)
    beginnings: tuple[Beginning, ...] = ()
    divisions: tuple[Division, ...] = ()
    if case.split is not None and Split.parse(case.split).by is SplitBy.TENSOR_PARALLEL:
        shallow, divisions = on_cards_alike(shallow)
    elif case.more_devices:
        shallow, beginnings = on_two_cards(shallow, config, num_layers, period)
    draft: DraftDepth | None = None
    if case.of_draft is not None:
        of_draft = read_config(case.of_draft.model.config)
        draft = DraftDepth(*_depth(case.of_draft, of_draft), of_draft.num_hidden_layers)
        setup = setup._replace(draft=_of_model(of_draft))
        shallow = with_draft_layers(shallow, draft.num_layers)
    return Recordable(
        case=shallow,
        num_layers=num_layers,
        period=period,
        depth=config.num_hidden_layers,
        setup=setup,
        reading=read_back(config, setup.attention),
        beginnings=beginnings,
        divisions=divisions,
        draft=draft,
    )


def _setup(case: Case, config: Any, attention: str) -> Setup:
    of_model = _of_model(config)
    rope_limit = of_model["rope_limit"]
    return Setup(
        **asked_by(case),
        attention=attention,
        # Beyond the engine's default other tables may be made; what is recorded must show them.
        # A tokenizer's 10^30 for `no limit`, or 0, is no length.
        native_max_seq_len=min(max(config.max_seq_len, 2 * (rope_limit or 0), PAGE), MAX_SEQ_LEN),
        **of_model,
    )


def _of_model(config: Any) -> dict[str, Any]:
    """What of a model decides which of its passes are alike."""
    slides = config.arch.lm.swa or config.arch.lm.alternating_swa
    return {
        "window": config.sliding_window or None if slides else None,
        "rope_limit": config.yarn_rope_original_max_position_embeddings if config.alt_rope_method == "yarn" else None,
        "num_experts": (config.num_experts if config.arch.lm.is_moe else None) or 1,
        "experts_per_token": config.num_experts_per_token or 1,
    }


def _depth(case: Case, config: Any) -> tuple[int, int]:
    """As few layers as show them all, and after how many they repeat."""
    period = 1
    if config.arch.lm.alternating_swa:  # ExLlamaV2.__init__
        period = config.sliding_window_pattern if config.sliding_window_pattern > 1 else 2
    shown = SHOWN_PERIODS * period
    fewest = shown + 1 + (config.num_hidden_layers - shown - 1) % period  # so that the last layer falls where it does
    if case.model.has_weights:
        return config.num_hidden_layers, period
    return fewest if case.more_devices else min(fewest, config.num_hidden_layers), period


@contextmanager
def marked(listener: Listener, how: Beginning | Division | None = None) -> Iterator[None]:
    """While it lasts, models, passes and layers tell `listener` that they begin.

    With a beginning, its module goes to the second card: of the first it is told that it does not fit. With a division,
    layers are divided so.
    """
    from exllamav2.embedding import ExLlamaV2Embedding
    from exllamav2.model import ExLlamaV2

    make, forward_chunk = ExLlamaV2.__init__, ExLlamaV2.forward_chunk

    def marked_make(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        of_draft = is_draft(self)
        listener.scratch(_scratch(self), of_draft)
        layer, number = -1, -1
        numbered = []
        for module in self.modules:
            own = getattr(module, "layer_idx", None)
            before, layer = layer, own if own is not None else (-1 if layer < 0 else self.config.num_hidden_layers)
            number = number + 1 if layer == before else 0
            for name in ("set_device_idx", "load", "forward"):
                setattr(module, name, _marking(getattr(module, name), listener, layer, number, of_draft))
            if not isinstance(module, ExLlamaV2Embedding):  # they stay on the host
                numbered.append((layer, number, module))
            if isinstance(how, Beginning) and (layer, number) == (how.layer, how.module):
                begin_a_card(module)
        if how is None:
            self.set_device_map = telling(self, numbered)

    def telling(model: Any, numbered: list[tuple[int, int, Any]]) -> Callable[..., Any]:
        set_device_map = model.set_device_map

        def told(*args: Any, **kwargs: Any) -> Any:
            listener.split_sizes(lambda: map_sizes(model, numbered).to_plain())
            return set_device_map(*args, **kwargs)

        return told

    def marked_forward_chunk(self: Any, **kwargs: Any) -> Any:
        q_len = kwargs["input_ids"].shape[1]
        listener.enter(q_len, _k_len(q_len, kwargs["cache"], kwargs.get("attn_params")))
        return forward_chunk(self, **kwargs)

    with (
        chosen(how, listener) if isinstance(how, Division) else nullcontext(),
        mock.patch.object(ExLlamaV2, "__init__", marked_make),
        mock.patch.object(ExLlamaV2, "forward_chunk", marked_forward_chunk),
    ):
        yield


def _k_len(q_len: int, cache: Any, attn_params: Any) -> int:
    """The keys that a pass reckons with: of a paged one, what its block table [sequences, pages] has room for."""
    if attn_params is None:
        return int(cache.current_seq_len) + q_len
    if attn_params.paged:
        return int(attn_params.block_index.shape[1]) * PAGE
    return int(attn_params.past_len) + q_len


def _scratch(model: Any) -> list[tuple[int, int]]:
    """What each module wants of scratch, as a line over max_input_len; those that others outdo are left out."""
    config, lines = model.config, set()
    asked = config.max_input_len
    for module in model.modules[1:]:  # the embeddings stay on the host
        config.max_input_len = 0
        fixed = module.scratch_space_fixed()
        config.max_input_len = 1
        lines.add((fixed, module.scratch_space_fixed() - fixed))
    config.max_input_len = asked
    return [line for line in lines if not any(a >= line[0] and b >= line[1] and (a, b) != line for a, b in lines)]


def _marking(
    method: Callable[..., Any], listener: Listener, layer: int, number: int, of_draft: bool
) -> Callable[..., Any]:
    def marked(*args: Any, **kwargs: Any) -> Any:
        listener.layer, listener.module, listener.of_draft = layer, number, of_draft
        return method(*args, **kwargs)

    return marked
