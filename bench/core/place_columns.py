"""Where a scheduler had something run, by the scheduler's own numbers, and what it was asked for."""

from __future__ import annotations

from typing import Annotated, TypedDict

from bench.core.column import Column, Role


def _told(doc: str) -> Column:
    return Column(Role.RECORD, doc, later=True)


class PlaceColumns(TypedDict):
    """Null of what no scheduler has started."""

    scheduler: Annotated[
        str | None,
        _told("who had it run where it did: `slurm` or `ray` ([scale](scale.md)); null where nobody was asked"),
    ]
    scheduler_node: Annotated[str | None, _told("the node, as the scheduler calls it")]
    scheduler_job: Annotated[str | None, _told("the scheduler's own number of the job; of a task of an array `25_1`")]
    scheduler_step: Annotated[str | None, _told("the step of the job, as Slurm numbers it, or the task, as Ray does")]
    scheduler_gpus: Annotated[
        str | None,
        _told("the GPUs that it was given, as the scheduler numbers them: only `device_uuid` says which card that is"),
    ]
    cell_id: Annotated[
        str | None,
        _told(
            "where a scheduler chose the card, a hash of what was asked for, where, and with which versions: whichever "
            "card answered, it is not asked again"
        ),
    ]


PLACE = tuple(name for name in PlaceColumns.__annotations__ if name != "cell_id")
