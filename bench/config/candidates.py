"""Which models of the catalogue come into question for an engine and a length, the largest first: by config.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.config import compose as config
from bench.config.lengths import lengths_of
from bench.config.model_size import weights_of
from bench.engines.registry import engine_of

_NO_MODELS = ("hub", "local")  # of the catalogue's files those that stand for others


@dataclass
class Candidates:
    """The names of models and about how many weights each has, the largest first; the names of the others by why."""

    weights: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)


def candidates_of(engine: str, min_tokens: int, searched: Sequence[str] = ()) -> Candidates:
    """Those that `engine` can run and that are made for `min_tokens`; `searched` names folders of the user's own."""
    names = [name for name in config.listed("model", searched) if name not in _NO_MODELS]
    asked = config.combinations([*searched, f"model={','.join(names)}"])
    spec, found, sizes = engine_of(engine), Candidates(), dict[str, int]()
    for name, plain in zip(names, asked, strict=True):
        told = config.validate(plain).model.config
        lengths, weights = lengths_of(told, engine), weights_of(told)
        if next(iter(told.get("architectures") or []), None) not in spec.architectures:
            reason = f"{spec.title} has no code for them"
        elif not lengths.is_limit_known:
            reason = "config.json does not tell for what length they are made"
        elif (lengths.limit or 0) < min_tokens:
            reason = f"they are made for less than {min_tokens:,} tokens"
        elif weights is None:
            reason = "config.json does not tell how large they are; ask with model=NAME"
        else:
            sizes[name] = weights
            continue
        found.left_out.setdefault(reason, []).append(name)
    found.weights = dict(sorted(sizes.items(), key=lambda item: -item[1]))
    return found
