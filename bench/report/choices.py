"""What to run on each card, or where to run each model, for a terminal, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.analysis.ranking import Basis, Choice
from bench.core.identity_columns import IdentityColumns
from bench.engines.registry import engine_of
from bench.report.naming.models import Names
from bench.report.tables.assumptions import in_words
from bench.report.text.console import console_for
from bench.report.text.plain_table import PlainTable
from bench.report.text.render import Told, as_markdown, as_rich
from bench.report.text.units import gib, size, tokens

_NAMED = 6  # of the models that were left out for one reason
_LEGEND = (
    "certified: a stored run fits there, and one a page longer does not; run: a stored run of that length or a longer "
    "one; predicted: nothing was run, `vram-bench sweep` certifies it. left: at {wanted}, {headroom} or more; pred.: "
    "predicted, where the line rests on runs. fits up to: the longest, all: as long as the model's own limit."
)
_RANKING = (
    "Of each model its best setting: the most bpw, then the finest cache; where one better than a run has shown is "
    "predicted, that, too. What runs have shown comes first; {ranked}. size: about how many weights, in 10⁹, by "
    "config.json."
)
_BY_QUALITY = "in each part by published quality where there is one ({source}), the others by size"
_BY_SIZE = "in each part by size, as of none of these settings a quality was published"
_INCOMPARABLE = "Perplexities of models with different tokenizers say little of each other."


@dataclass(frozen=True)
class ChosenFor:
    """What to run on the card of `identity` with an engine, the best first, and the models that are left out by why.

    `ends` are the model's own limit, or where its search ends, by the number of a choice.
    """

    identity: IdentityColumns
    headroom_bytes: int
    choices: Sequence[Choice]
    ends: Mapping[int, int]
    left_out: Mapping[str, Sequence[str]]
    assumed: Sequence[str]
    engine: str

    def fits_up_to(self, choice: Choice) -> str:
        """`40,960 all`."""
        is_end = choice.fits_at is not None and choice.fits_at == self.ends[choice.number]
        return tokens(choice.fits_at) + (" all" if is_end else "")


def tables_of(answers: Sequence[ChosenFor], min_tokens: int, by_model: bool) -> list[PlainTable]:
    """A table for each card, or with `by_model` for each model with the cards as rows; the last tells how to read."""
    names = Names([answer.identity for answer in answers], real="cuda")
    tables = list(_by_model(answers, min_tokens, names) if by_model else _by_card(answers, min_tokens, names))
    wanted = f"{min_tokens:,} tokens"
    legend = _LEGEND.format(wanted=wanted, headroom=size(answers[0].headroom_bytes))
    if not by_model:
        legend += f" {_RANKING.format(ranked=_ranking(answers))}"
        if any(choice.ranked_by == "quality" for answer in answers for choice in answer.choices):
            legend += f" {_INCOMPARABLE}"
    return [*tables[:-1], replace(tables[-1], legend=legend)]


def show(answers: Sequence[ChosenFor], min_tokens: int, by_model: bool) -> None:
    """Prints them, at home in 80 columns."""
    console, told = console_for(), Told()
    for number, table in enumerate(tables_of(answers, min_tokens, by_model)):
        if number:
            console.print()
        console.print(as_rich(table, told))


def as_text(answers: Sequence[ChosenFor], min_tokens: int, by_model: bool) -> str:
    """As Markdown, for a wiki."""
    return "\n".join(as_markdown(table) for table in tables_of(answers, min_tokens, by_model))


def as_document(answers: Sequence[ChosenFor], min_tokens: int) -> dict[str, Any]:
    """As JSON has it."""
    return {"min_tokens": min_tokens, "cards": [_as_json(answer) for answer in answers]}


def _as_json(answer: ChosenFor) -> dict[str, Any]:
    card = {name: value for name, value in answer.identity.items() if name.startswith("device")}
    return {
        **card,
        "vram_limit_bytes": answer.identity["vram_limit_bytes"],
        "engine": answer.engine,
        "demanded_headroom_bytes": answer.headroom_bytes,
        "choices": [
            {
                "model": choice.model,
                "estimated_weights": choice.weights,
                "bpw": choice.bpw,
                "head_bits": choice.head_bits,
                "cache": choice.cache,
                "basis": choice.basis,
                "ranked_by": choice.ranked_by,
                "quality": choice.quality.figure if choice.quality else None,
                "quality_metric": choice.quality.metric if choice.quality else None,
                "quality_source": choice.quality.source if choice.quality else None,
                "fits_at": choice.fits_at,
                "fits_at_basis": choice.fits_at_basis,
                "searched_up_to": answer.ends[choice.number],
                "headroom_bytes": choice.headroom_bytes,
                "headroom_basis": _headroom_basis(choice, answer.identity["device_kind"]),
            }
            for choice in answer.choices
        ],
        "left_out": [{"reason": reason, "models": list(models)} for reason, models in answer.left_out.items()],
        "assumed": list(answer.assumed),
    }


def _headroom_basis(choice: Choice, kind: str | None) -> str:
    return ("simulated" if kind == "simulated" else "measured") if choice.is_headroom_of_run else "predicted"


def _by_card(answers: Sequence[ChosenFor], min_tokens: int, names: Names) -> Iterator[PlainTable]:
    for answer in answers:
        has_quality = any(choice.ranked_by == "quality" for choice in answer.choices)
        columns = ["model", "bpw", "cache", "size", "fits up to", "left, GiB", "shown by"]
        lines = [
            [
                choice.model,
                f"{choice.bpw:g}",
                choice.cache,
                "?" if choice.weights is None else f"{choice.weights / 1e9:.1f}",
                *_told(answer, choice),
                *([_quality(choice)] if has_quality else []),
            ]
            for choice in answer.choices
        ]
        yield PlainTable(
            title=f"{engine_of(answer.engine).title} on {names.card_title(answer.identity)}, "
            f"{min_tokens:,} tokens or more",
            legend="",
            columns=[*columns, *(["quality"] if has_quality else [])],
            lines=lines,
            notes=[*([] if lines else ["none: nothing that was looked at fits"]), *_left_out(answer.left_out)],
            assumptions=in_words(answer.assumed),
        )


def _by_model(answers: Sequence[ChosenFor], min_tokens: int, names: Names) -> Iterator[PlainTable]:
    models = dict.fromkeys(
        (answer.engine, model)
        for answer in answers
        for model in [*(each.model for each in answer.choices), *_all(answer)]
    )
    for engine, model in models:
        lines, reasons, assumed = [], dict[str, list[str]](), dict[str, None]()
        for answer in sorted(answers, key=lambda answer: answer.identity["device_total_bytes"] or 0):
            if answer.engine != engine:
                continue
            card = names.card_title(answer.identity)
            own = [choice for choice in answer.choices if choice.model == model]
            for choice in own:
                lines.append([card, f"{choice.bpw:g}", choice.cache, *_told(answer, choice)])
                assumed |= dict.fromkeys(answer.assumed)
            if not own:
                reason = next((why for why, left in answer.left_out.items() if model in left), "not looked at")
                reasons.setdefault(reason, []).append(names.card(answer.identity))
                is_open = reason.startswith(("not predicted", "a row shows"))
                lines.append([card, "", "", "?" if is_open else "none", "", ""])
        yield PlainTable(
            title=f"{model} with {engine_of(engine).title}, {min_tokens:,} tokens or more",
            legend="",
            columns=["card", "bpw", "cache", "fits up to", "left, GiB", "shown by"],
            lines=lines,
            notes=[f"{', '.join(cards)}: {reason}" for reason, cards in reasons.items()],
            assumptions=in_words(assumed),
        )


def _all(answer: ChosenFor) -> list[str]:
    return [model for models in answer.left_out.values() for model in models]


def _told(answer: ChosenFor, choice: Choice) -> list[str]:
    """How far it goes, what is left, and by what that is known."""
    is_mixed = choice.is_shown and not choice.is_headroom_of_run
    further = " pred." if choice.is_shown and choice.fits_at_basis is Basis.PREDICTED else ""
    left = gib(choice.headroom_bytes) + (" pred." if is_mixed else "")
    return [answer.fits_up_to(choice) + further, left, str(choice.basis)]


def _quality(choice: Choice) -> str:
    return f"{choice.quality.figure:g}" if choice.quality and choice.ranked_by == "quality" else "–"


def _ranking(answers: Sequence[ChosenFor]) -> str:
    told = dict.fromkeys(
        ", ".join(filter(None, (choice.quality.metric, choice.quality.source)))
        for answer in answers
        for choice in answer.choices
        if choice.quality is not None and choice.ranked_by == "quality"
    )
    return _BY_QUALITY.format(source="; ".join(told)) if told else _BY_SIZE


def _left_out(left_out: Mapping[str, Sequence[str]]) -> list[str]:
    """`Left out: 71, as …`, a line for each reason."""
    lines = []
    for reason, models in left_out.items():
        few = ", ".join(models[:_NAMED]) + (f" and {len(models) - _NAMED} more" if len(models) > _NAMED else "")
        lines.append(f"left out, {len(models)}: {reason} ({few})")
    return lines
