"""What a generator has given its jobs, and what it holds on the host."""

from __future__ import annotations

from typing import Annotated, TypedDict

from bench.core.column import Column, Role


class GivenColumns(TypedDict):
    """Of a case: null without a generator, but for `peak_host_bytes`."""

    host_buffers_bytes: Annotated[
        int | None,
        Column(
            Role.SIZE,
            "with `scenario=generator`, what the engine's generator reserves in host memory for its buffers: logits of "
            "as many jobs as it takes at a time where it samples there, the tokens of each page, and states that it "
            "has put by. A server touches what its jobs use",
            "bytes",
            later=True,
        ),
    ]
    peak_host_bytes: Annotated[
        int | None,
        Column(
            Role.SIZE,
            "host memory that the child held at its highest, its libraries in it; null on a simulated card",
            "bytes",
            later=True,
        ),
    ]
    generated_tokens: Annotated[
        int | None,
        Column(
            Role.LENGTH,
            "with `scenario=generator`, what the jobs that filled the cache were given, all together, without their "
            "prompts: an engine may cut what a job asks for",
            "tokens",
            later=True,
        ),
    ]
    drafted_tokens: Annotated[
        int | None,
        Column(
            Role.LENGTH,
            "what was proposed to these jobs, taken or not: on a real card as often as their text has it, on a "
            "simulated one for every token",
            "tokens",
            later=True,
        ),
    ]
