"""`vram-bench recommend`: what fits a card, what has shown it, and what was left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.config.compose import names
from tests.conftest import Program

ASK = ("recommend", "device=rtx_4060_8gb", "model=tinyllama_1_1b,smollm2_135m", "min_tokens=1k", "bpw=4.0", "cache=Q4")
MODELS = {"tinyllama_1_1b", "smollm2_135m"}


def told(program: Program, *arguments: str) -> dict[str, Any]:
    made = program(*ASK, "--json", *arguments)
    assert made.returncode == 0, made.stderr
    (card,) = json.loads(made.stdout)["cards"]
    return dict(card)


def test_models_are_ranked_by_size_where_no_quality_is_published(in_process: Program) -> None:
    card = told(in_process)
    assert [choice["model"] for choice in card["choices"]] == ["tinyllama_1_1b", "smollm2_135m"]
    assert {choice["ranked_by"] for choice in card["choices"]} == {"size"}
    assert {choice["basis"] for choice in card["choices"]} == {"predicted"}
    assert card["choices"][0]["fits_at"] == card["choices"][0]["searched_up_to"] == 2048


def test_the_same_is_told_as_by_plan(in_process: Program) -> None:
    plan = in_process("plan", *ASK[1:3], "bpw=4.0", "cache=Q4", "max_seq_len=1024", "--json")
    planned = {case["model"]: case["headroom_bytes"] for case in json.loads(plan.stdout)["cases"]}
    assert {choice["model"]: choice["headroom_bytes"] for choice in told(in_process)["choices"]} == planned


def test_what_was_run_comes_first_and_says_so(in_process: Program) -> None:
    common = ("device=rtx_4060_8gb", "model=smollm2_135m", "bpw=4.0", "cache=Q4")
    assert in_process("sweep", *common, "max_seq_len=1024").returncode == 0
    first, second = told(in_process)["choices"]
    assert (first["model"], first["basis"], first["headroom_basis"]) == ("smollm2_135m", "run", "simulated")
    assert (second["model"], second["basis"], second["headroom_basis"]) == ("tinyllama_1_1b", "predicted", "predicted")
    assert in_process("sweep", *common, "max_seq_len=auto", "auto_up_to=2k").returncode == 0
    first = told(in_process, "auto_up_to=2k")["choices"][0]
    assert (first["basis"], first["fits_at"], first["fits_at_basis"]) == ("certified", 2048, "certified")


def test_a_figure_ranks_before_size_and_is_told_with_its_source(in_process: Program, tmp_path: Path) -> None:
    columns = "model,bpw,cache,quality,quality_metric,quality_source"
    figure = "smollm2_135m,4,Q4,20.5,perplexity (lower is better),made up for a test"
    (tmp_path / "own.csv").write_text(f"{columns}\n{figure}\n")
    first, second = told(in_process, "--quality", "own.csv")["choices"]
    assert (first["model"], first["ranked_by"], first["quality"]) == ("smollm2_135m", "quality", 20.5)
    assert (second["ranked_by"], second["quality"]) == ("size", None)
    (tmp_path / "own.csv").write_text(f"{columns}\n{figure.replace(' (lower is better)', '')}\n")
    first = told(in_process, "--quality", "own.csv")["choices"][0]  # which direction is better nobody says
    assert (first["model"], first["ranked_by"]) == ("tinyllama_1_1b", "size")


def test_what_does_not_fit_or_is_made_for_less_is_left_out_by_name(in_process: Program) -> None:
    card = told(in_process, "min_tokens=16k")
    assert card["choices"] == []
    assert {model for left in card["left_out"] for model in left["models"]} == MODELS
    card = told(in_process, "vram_limit=700MiB")
    assert card["choices"] == []
    assert {model for left in card["left_out"] for model in left["models"]} == MODELS


def test_cards_are_the_rows_where_models_are_named(in_process: Program, tmp_path: Path) -> None:
    cards = "device=rtx_4060_8gb,rtx_3060_12gb"
    made = in_process(ASK[0], cards, *ASK[2:], "--markdown")
    assert made.returncode == 0, made.stderr
    assert in_process(ASK[0], cards, *ASK[2:], "--out", "wiki.md").stdout == ""
    assert (tmp_path / "wiki.md").read_text() == made.stdout
    headings = [line for line in made.stdout.splitlines() if line.startswith("### ")]
    assert [heading.split()[1] for heading in headings] == ["tinyllama_1_1b", "smollm2_135m"]
    rows = [line for line in made.stdout.splitlines() if line.startswith("| rtx")]
    assert [row.split()[1] for row in rows] == ["rtx_4060_8gb", "rtx_3060_12gb"] * 2
    assert all(row.endswith("predicted |") for row in rows)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("min_tokens=16k",), "which card?"),
        (("device=rtx_3060_12gb", "min_tokens=much"), "is not a number of tokens"),
        (("device=rtx_3060_12gb", "max_seq_len=16k"), "min_tokens=N here"),
        (("device=cuda",), "the catalogue has no weights for a real GPU"),
        (("device=rtx_3060_12gb", "bpw=99"), "bpw=99"),
        (("device=rtx_3060_12gb", "--top", "0"), "at least 1"),
        (("device=rtx_3060_12gb", "--out", "none/wiki.md"), "no such folder"),
        (("device=rtx_3060_12gb", "--quality", "none.csv"), "none.csv: no such file"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_line(in_process: Program, typed: tuple[str, ...], said: str) -> None:
    made = in_process("recommend", *typed)
    assert (made.returncode, made.stdout) == (2, "")
    assert said in made.stderr
    assert made.stderr.count("\n") <= 2


def test_every_model_of_the_catalogue_is_chosen_or_left_out_with_a_reason(in_process: Program) -> None:
    tiny = ("device=rtx_4060_8gb", "vram_limit=380MiB", "min_tokens=1k", "bpw=4.0", "cache=Q4")
    made = in_process("recommend", *tiny, "--headroom", "0", "--top", "1", "--json")
    assert made.returncode == 0, made.stderr
    (card,) = json.loads(made.stdout)["cards"]
    told = [choice["model"] for choice in card["choices"]]
    told += [model for left in card["left_out"] for model in left["models"]]
    assert sorted(told) == sorted(set(names("model")) - {"hub", "local"})
    by_why = {left["reason"]: left["models"] for left in card["left_out"]}
    assert "glm_4_7" in by_why["ExLlamaV2 has no code for them"]
    assert "llama_3_1_70b" in next(models for why, models in by_why.items() if why.startswith("their weights alone"))
