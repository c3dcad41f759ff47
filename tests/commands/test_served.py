"""`scenario=generator` through the command line: certified, told in the row, and refused before the engine would."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import Program

DRAFT = ["draft.model=tinyllama_1_1b"]
CELL = ["model=tinyllama_1_1b", "device=rtx_4090", "bpw=4.0", "vram_limit=1200MiB"]


def test_a_boundary_is_certified_by_two_runs(in_process: Program, tmp_path: Path) -> None:
    asked = [*CELL, "scenario=generator", "cache=FP16", "batch_size=8", f"results_dir={tmp_path}", "run_id=one"]
    done = in_process("sweep", *asked)
    assert done.returncode == 0, done.stderr
    boundary = pd.read_parquet(tmp_path / "one" / "boundaries.parquet").iloc[0]
    assert boundary["scenario"] == "generator"
    assert bool(boundary["certified"])
    assert boundary["probes"] == 2
    assert boundary["fits_at"] == boundary["predicted_fits_at"]
    assert boundary["fails_at"] == boundary["fits_at"] + 256
    cases = pd.read_parquet(tmp_path / "one" / "cases.parquet")
    assert list(cases["cache_size"].isna()) == [True, True]  # max_seq_len for each of the jobs
    assert "generator" in done.stdout


def test_the_largest_cache_is_certified_by_two_runs(in_process: Program, tmp_path: Path) -> None:
    asked = [*CELL, "scenario=generator", "cache=FP16", "batch_size=2", "max_seq_len=512,1000", "cache_size=auto"]
    (planned,) = [json.loads(in_process("plan", *asked, "--json").stdout)["cells"]]
    done = in_process("sweep", *asked, f"results_dir={tmp_path}", "run_id=one")
    assert done.returncode == 0, done.stderr
    boundaries = pd.read_parquet(tmp_path / "one" / "boundaries.parquet").sort_values("max_seq_len")
    assert list(boundaries["max_seq_len"]) == [512, 1000]
    assert set(boundaries["search_axis"]) == {"cache_size"}
    assert boundaries["cache_size"].isna().all()
    assert boundaries["certified"].all()
    assert list(boundaries["probes"]) == [2, 2]
    assert list(boundaries["fails_at"] - boundaries["fits_at"]) == [256, 256]
    assert list(boundaries["fits_at"]) == [cell["cache_size"] for cell in planned]
    cases = pd.read_parquet(tmp_path / "one" / "cases.parquet")
    assert set(cases["cache_size"]) == {*boundaries["fits_at"], *boundaries["fails_at"]}
    fits = cases[cases["outcome"] == "fits"]
    assert list(fits["peak_allocated_bytes"]) == list(fits["predicted_peak_bytes"])
    largest = boundaries["fits_at"].iloc[0]
    assert f"{largest:,} ({largest // 512} users)" in " ".join(done.stdout.split())
    assert f"fits up to a cache_size of {largest:,}, fails at {largest + 256:,}" in done.stderr
    again = in_process("sweep", *asked, f"results_dir={tmp_path}", "run_id=two")
    assert "2 of them stored already" in again.stderr


def test_a_largest_cache_that_the_search_has_ended_is_a_lower_bound(in_process: Program, tmp_path: Path) -> None:
    asked = [*CELL, "scenario=generator", "max_seq_len=512", "cache_size=auto", "auto_up_to=1k"]
    assert in_process("sweep", *asked, f"results_dir={tmp_path}", "run_id=one").returncode == 0
    boundary = pd.read_parquet(tmp_path / "one" / "boundaries.parquet").iloc[0]
    assert (boundary["fits_at"], boundary["searched_up_to"], bool(boundary["certified"])) == (1024, 1024, False)
    assert "≥ 1,024 (2 users)" in (tmp_path / "one" / "report" / "tables.md").read_text()


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (
            ["cache_size=8192"],
            "cache_size=8192: it is a generator's; scenario=forward has a cache of max_seq_len tokens",
        ),
        (["max_batch_size=2"], "max_batch_size=2: it is a generator's"),
        (["scenario=generator", "cache_size=1000"], "whole pages of 256 tokens; give 768 or 1024"),
        (["scenario=generator", "max_seq_len=1000"], "give 768 or 1024, or a cache_size"),
        (["scenario=generator", "max_seq_len=2048", "cache_size=1k"], "give a cache_size of at least 2048"),
        (["scenario=generator", "max_seq_len=512", "cache_size=1k", "batch_size=8"], "a cache_size of 2048 or more"),
        (
            ["scenario=generator", "max_seq_len=512", "batch_size=4", "max_batch_size=2"],
            "a max_batch_size of at least 4",
        ),
        (["draft=ngram"], "draft=ngram: it is a generator's"),
        (["cache_size=auto"], "cache_size=auto: it is a generator's"),
        (["scenario=generator", "cache_size=auto"], "only one of them can be searched; give max_seq_len=N"),
        (["scenario=generator", "cache_size=auto", "max_seq_len=512,auto"], "only one of them can be searched"),
        (
            ["scenario=generator", "cache_size=auto", "max_seq_len=1000", "auto_up_to=512"],
            "the smallest cache for max_seq_len=1000 and batch_size=1 has 1024 tokens",
        ),
        (["scenario=generator", "num_draft_tokens=2"], "nothing proposes tokens; give draft=ngram or draft=model"),
        (["scenario=generator", "draft=ngram", "num_draft_tokens=8"], "proposes at most 7 tokens at a time"),
        (["scenario=generator", "draft=none_such"], "draft=none_such: allowed are none, ngram, model"),
        (
            ["scenario=generator", "draft=model"],
            "draft=model: which model proposes tokens? Name it by draft.model",
        ),
        (["scenario=generator", "draft.bpw=4.0"], "draft.bpw=4.0: which model proposes tokens?"),
        (["scenario=generator", "draft=ngram", *DRAFT], "draft=ngram: it takes no model; give draft=model"),
        (DRAFT, "draft=model: it is a generator's"),
        (
            ["scenario=generator", "draft.model=llama_3_2_1b"],
            "its vocabulary has 128,256 tokens, and that of",
        ),
        (
            ["scenario=generator", *DRAFT, "max_seq_len=4096", "model.config.max_position_embeddings=4096"],
            "it has 2,048 tokens, fewer than max_seq_len=4096",
        ),
        (["scenario=generator", *DRAFT, "draft.bpw=9"], "draft.bpw=9: EXL2 weights have 2.0 to 8.0 bits"),
        (["scenario=generator", *DRAFT, "draft.cache=k8v5"], "draft.cache=k8v5: allowed with ExLlamaV2 are FP16, Q8"),
        (["scenario=generator", *DRAFT, "draft.cache=Q3"], "draft.cache=Q3: allowed are FP16"),
        (["scenario=generator", "draft.model=none_such"], "draft.model: unknown model 'none_such'"),
        (
            ["scenario=generator", "draft.model=/none/such"],
            "draft.model=local draft.model.path=/none/such",
        ),
        (["scenario=generator", "draft.model.path=/none/such"], "draft.model.path=/none/such: no such directory"),
        (["scenario=generator", "draft.modl=x"], "unknown key 'draft.modl'. Did you mean draft.model"),
        (["scenario=generator", "draft_model=x"], "a draft model is draft.model=NAME"),
        (["scenario=generator", *DRAFT, "device=2xrtx_3090"], "draft models are run on one card here"),
        (["load=tabbyapi"], "load=tabbyapi: TabbyAPI serves by the engine's generator; give scenario=generator"),
        (
            ["scenario=generator", "load=tabbyapi", "max_input_len=1000"],
            "chunks of whole pages of 256 tokens; give 1024",
        ),
        (
            ["scenario=generator", "load=tabbyapi", "max_attention_size=1024"],
            "TabbyAPI sets it to max_input_len squared (4194304); leave it out",
        ),
        (["load=tabbyapi", "engine=exllamav3"], "load=tabbyapi: exllamav3 is not loaded so here"),
        (
            ["scenario=generator", "load=tabbyapi", *DRAFT],
            "TabbyAPI loads a draft model by autosplit, and tries a chunk with it, which is not done here",
        ),
        (["load=vllm"], "load=vllm: allowed are single, autosplit or tabbyapi"),
        (["scenario=serve"], "scenario=serve: allowed are forward, generator"),
        (["scenario=generator", "cache_size=zero"], "'zero' is not a number of tokens"),
    ],
)
def test_what_does_not_go_together_ends_before_anything_is_run(in_process: Program, keys: list[str], told: str) -> None:
    done = in_process("plan", *CELL, *keys)
    assert done.returncode == 2
    assert told in done.stderr


def test_a_name_of_before_is_the_same_scenario(in_process: Program, tmp_path: Path) -> None:
    asked = [*CELL, "max_seq_len=256", f"results_dir={tmp_path}"]
    assert in_process("sweep", *asked, "scenario=fill", "run_id=one").returncode == 0
    assert pd.read_parquet(tmp_path / "one" / "cases.parquet")["scenario"][0] == "forward"
    again = in_process("sweep", *asked, "run_id=two")
    assert "1 of them stored already" in again.stderr


def test_what_is_copied_makes_the_generator_of_the_row(in_process: Program, tmp_path: Path) -> None:
    asked = [*CELL[:3], "scenario=generator", "max_seq_len=1024", "cache_size=2048", "batch_size=4", "draft=ngram"]
    done = in_process("sweep", *asked, f"results_dir={tmp_path}", "run_id=one")
    assert done.returncode == 0, done.stderr
    assert "scenario generator, batch_size 4, cache_size 2048, draft ngram" in " ".join(done.stdout.split())
    told = (tmp_path / "one" / "report" / "recommendations.md").read_text()
    assert "cache = ExLlamaV2Cache(model, batch_size=1, max_seq_len=2048)" in told
    assert "ExLlamaV2Tokenizer(config), use_ngram_draft=True, num_draft_tokens=4)" in told
    assert "\n  cache_size: 2048\n" in told
    assert "\n  max_batch_size: 4\n" in told


def test_exllamav3_is_certified_and_rows_say_what_its_jobs_got(in_process: Program, tmp_path: Path) -> None:
    keys = ["engine=exllamav3", "scenario=generator", "batch_size=8", "draft=ngram", "max_batch_size=12"]
    done = in_process("sweep", *CELL, *keys, f"results_dir={tmp_path}", "run_id=one")
    assert done.returncode == 0, done.stderr
    boundary = pd.read_parquet(tmp_path / "one" / "boundaries.parquet").iloc[0]
    assert (bool(boundary["certified"]), boundary["probes"]) == (True, 2)
    assert boundary["fits_at"] == boundary["predicted_fits_at"]
    cases = pd.read_parquet(tmp_path / "one" / "cases.parquet")
    fits = cases[cases["outcome"] == "fits"].iloc[0]
    assert (fits["generated_tokens"], fits["drafted_tokens"]) == (8 * 5, 8 * 5 * 4)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (["scenario=generator", "draft=ngram", "num_draft_tokens=16"], "proposes at most 15 tokens at a time"),
        (["load=autosplit", "max_input_len=1000"], "measures a chunk in whole pages of 256 tokens; give 768 or 1024"),
        (["load=autosplit", "max_seq_len=512"], "room for 512 tokens; give max_input_len=512 or less, or load=single"),
    ],
)
def test_what_exllamav3_would_assert_is_told_before(in_process: Program, keys: list[str], told: str) -> None:
    done = in_process("plan", *CELL, "engine=exllamav3", *keys)
    assert done.returncode == 2
    assert told in done.stderr


def test_a_draft_model_is_told_and_predicted(in_process: Program, tmp_path: Path) -> None:
    asked = [*CELL[:3], "vram_limit=1600MiB", "scenario=generator", *DRAFT, "draft.bpw=2.5", "draft.cache=Q4,FP16"]
    asked += ["num_draft_tokens=2", "max_input_len=512"]
    done = in_process("sweep", *asked, f"results_dir={tmp_path}", "run_id=one")
    assert done.returncode == 0, done.stderr
    boundaries = pd.read_parquet(tmp_path / "one" / "boundaries.parquet").set_index("draft_cache")
    assert list(boundaries["probes"]) == [2, 2]
    assert list(boundaries["fits_at"]) == list(boundaries["predicted_fits_at"])
    assert boundaries["fits_at"]["Q4"] > boundaries["fits_at"]["FP16"]
    assert set(boundaries["draft_model"]) == {"tinyllama_1_1b"}
    cases = pd.read_parquet(tmp_path / "one" / "cases.parquet")
    fits = cases[cases["outcome"] == "fits"]
    assert list(fits["peak_allocated_bytes"]) == list(fits["predicted_peak_bytes"])
    assert (fits["draft_weights_bytes"] > 0).all()
    assert "draft.cache Q4" in " ".join(done.stderr.split())


def test_what_is_copied_loads_the_draft_model(in_process: Program, tmp_path: Path) -> None:
    asked = [*CELL[:3], "scenario=generator", *DRAFT, "draft.bpw=2.5", "draft.cache=Q4", "num_draft_tokens=2"]
    done = in_process("sweep", *asked, "max_seq_len=1024", f"results_dir={tmp_path}", "run_id=one")
    assert done.returncode == 0, done.stderr
    told = (tmp_path / "one" / "report" / "recommendations.md").read_text()
    assert 'draft_config = ExLlamaV2Config("DRAFT_DIR")  # tinyllama_1_1b at 2.5 bpw' in told
    assert "draft_cache = ExLlamaV2Cache_Q4(draft_model, batch_size=1, max_seq_len=1024)" in told
    assert "draft_model=draft_model, draft_cache=draft_cache, num_draft_tokens=2)" in told
    assert "\n  draft_model_name: DRAFT_DIR" in told
    assert "draft.model.path=DRAFT_DIR" in told


def test_a_launcher_is_not_handed_a_draft_model(in_process: Program) -> None:
    done = in_process("sweep", *CELL, "scenario=generator", *DRAFT, "max_seq_len=512", "hydra/launcher=basic")
    assert (done.returncode, "a launcher is not handed a draft model" in done.stderr) == (2, True), done.stderr


def test_what_asks_for_no_draft_model_stands_alone(in_process: Program) -> None:
    asked = [*CELL, "scenario=generator", "max_seq_len=512", "draft=none,ngram,model", *DRAFT, "draft.bpw=3.0,4.0"]
    planned = in_process("plan", *asked, "--json")
    assert planned.returncode == 0, planned.stderr
    told = [(case["draft"], case["draft_model"], case["draft_bpw"]) for case in json.loads(planned.stdout)["cases"]]
    assert sorted(told, key=str) == [
        ("model", "tinyllama_1_1b", 3.0),
        ("model", "tinyllama_1_1b", 4.0),
        ("ngram", None, None),
        (None, None, None),
    ]


def test_every_table_of_a_page_says_that_it_is_of_a_generator(in_process: Program, tmp_path: Path) -> None:
    asked = ["model=tinyllama_1_1b", "bpw=4.0", "device=rtx_4090,rtx_3060_12gb", "scenario=generator", "batch_size=2"]
    assert in_process("sweep", *asked, f"results_dir={tmp_path}", "run_id=one").returncode == 0
    report = tmp_path / "one" / "report"
    told = ", scenario generator, batch_size 2"
    assert f"All cards: tinyllama_1_1b, 4 bpw, FP16, load{told}" in (report / "cards.md").read_text()
    assert (report / "tables.md").read_text().count(told) == 2
    planned = in_process("plan", *asked).stdout
    assert " ".join(planned.split()).count(told.removeprefix(", ")) >= 2


def test_that_one_job_runs_where_there_is_room_for_more_is_told(in_process: Program) -> None:
    hint = "max_batch_size=8: room for so many jobs, of which one is run (batch_size=1); batch_size=8 runs all"
    one = in_process("plan", *CELL, "scenario=generator", "max_seq_len=512", "max_batch_size=8")
    assert (one.returncode, hint in " ".join(one.stderr.split())) == (0, True), one.stderr
    all_of_them = in_process("plan", *CELL, "scenario=generator", "max_seq_len=512", "max_batch_size=8", "batch_size=8")
    assert "room for so many jobs" not in all_of_them.stderr


def test_what_tabbyapi_sets_is_in_the_row_and_in_what_is_copied(in_process: Program, tmp_path: Path) -> None:
    asked = ["model=tinyllama_1_1b", "bpw=4.0", "scenario=generator", "load=tabbyapi", "max_seq_len=1024"]
    devices = "device=rtx_4090,2xrtx_3060_12gb"
    done = in_process("sweep", *asked, devices, "max_input_len=512", f"results_dir={tmp_path}", "run_id=one")
    assert done.returncode == 0, done.stderr
    cases = pd.read_parquet(tmp_path / "one" / "cases.parquet").sort_values("device_name")
    assert list(cases["load_as"]) == ["tabbyapi"] * 2
    assert cases["split"].iloc[0] == "auto(96,0)"
    assert pd.isna(cases["split"].iloc[1])  # on one card it does not autosplit
    assert list(cases["lazy"]) == [True, False]
    assert list(cases["max_attention_size"]) == [512**2] * 2
    assert list(cases["predicted_peak_bytes"]) == list(cases["peak_allocated_bytes"])
    for notes in cases["notes"]:
        assert any("max_output_len=16, max_input_len=512" in note for note in notes)
    told = (tmp_path / "one" / "report" / "recommendations.md").read_text()
    assert "config.max_output_len = 16" in told
    assert "model.load_autosplit(cache, reserve_vram=[100663296, 0], last_id_only=True)" in told
    assert "unlike the rows" not in told
