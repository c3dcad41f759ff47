"""Recommendations, folklore and fronts as people read them: golden tables, snippets that hold, and bad rows."""

from __future__ import annotations

import ast
import io
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from omegaconf import OmegaConf
from rich.console import Console

from bench.analysis.evidence import evidence
from bench.analysis.recommend import Recommendation, recommend
from bench.config.cases import plan_sweep
from bench.engines.base import Chosen
from bench.engines.exllamav2.snippets import exllamav2, tabbyapi
from bench.report.publish import ReportOptions, publish
from bench.report.tables.recommendations import recommendation_tables
from bench.report.tables.snippets import check_command
from bench.report.text.render import as_rich
from tests.analysis.rows_as_read import GIB, boundaries_of, boundary, cases_of, fits, oom
from tests.report.conftest import FrameOf

WISHES = ReportOptions(contexts=(4096, 16384), headroom_bytes=GIB)
ROWS = (
    fits(16384, bpw=4.0, notes=["context_bytes assumed"]),
    fits(8192, bpw=6.0, cache="Q4"),
    fits(4096, bpw=6.0, lazy=True),
    oom(32768, bpw=6.0, cache="Q4"),
    fits(8192, bpw=6.0, cache="Q4", lazy=True, peak_device_bytes=9 * GIB),
)

GOLDEN = """\
## card (simulated), 24.00 GiB

quality: the highest bpw that gives this max_seq_len, then the finest cache; fast: among the most
tokens/s with it, as speeds that differ by less than their error (estimated 29 %) count as equal,
and flash attention, load and the most left decide; longest: the longest max_seq_len. All of them
leave 1.00 GiB of the card or more. rests on: a run that fits at this length, + where it is
certified that 256 more fail; fewer tokens are taken to need no more. tokens/s: decoding with the
context full. est.: estimated from that run, never measured.

| model | for | bpw | cache | how | max_seq_len | left, GiB | tokens/s | rests on | basis |
| --- | --- | ---: | --- | --- | ---: | ---: | ---: | ---: | --- |
| tiny | quality, 4,096 | 6 | FP16 | lazy | 4,096 | 14.0 | 100 est. | 4,096 | simulated, fits at 4,096, \
tokens/s estimated |
| tiny | quality, 16,384 | 4 | FP16 | load | 16,384 | 4.0 | 50 est. | 16,384+ | simulated, certified at 16,384, \
tokens/s estimated |
| tiny | fast, 4,096 | 4 | FP16 | load | 4,096 | 16.0 est. | 125 est. | 16,384+ | simulated, certified at 16,384, \
headroom estimated, tokens/s estimated |
| tiny | fast, 16,384 | 4 | FP16 | load | 16,384 | 4.0 | 50 est. | 16,384+ | simulated, certified at 16,384, \
tokens/s estimated |
| tiny | longest | 4 | FP16 | load | ≥ 16,384 | 4.0 | 50 est. | 16,384+ | simulated, certified at 16,384, \
tokens/s estimated |

- tiny, longest: of the lengths tried; longer ones were not tried, use max_seq_len=auto
- What the CUDA context takes (context_bytes) is assumed, as nobody measured it on such a card; a
  real one may fit a little more or less (docs/simulation.md).
"""
FRONT = """\
| bpw | cache | how | max_seq_len | VRAM, GiB | tokens/s |
| ---: | --- | --- | ---: | ---: | ---: |
| 4 | FP16 | load | 16,384 | 20.00 | 50 est. |
| 6 | Q4 | load | 8,192 | 8.25 | 41 est. |
| 6 | FP16 | lazy | 4,096 | 10.00 | 100 est. |
"""


def published(tmp_path: Path, cases: pd.DataFrame, boundaries: pd.DataFrame, options: ReportOptions = WISHES) -> Path:
    files = publish(cases, boundaries, tmp_path, echo=False, options=options, plots=False).files
    assert all(file.stat().st_size for file in files)
    return tmp_path


def test_the_page_of_recommendations(tmp_path: Path) -> None:
    out = published(tmp_path, cases_of(*ROWS), boundaries_of(boundary(16384)))
    text = (out / "recommendations.md").read_text()
    assert GOLDEN in text
    assert "case c0, boundary b0" in text
    assert "What people say" not in text  # of another model


def test_what_to_copy_is_said_once_for_a_setting_with_all_its_lengths(tmp_path: Path) -> None:
    out = published(tmp_path, cases_of(*ROWS), boundaries_of(boundary(16384)))
    text = (out / "recommendations.md").read_text()
    assert re.findall(r"^### (.*)$", text, re.MULTILINE) == [
        "tiny: 6 bpw, FP16 cache, lazy, 4,096 tokens",
        "tiny: 4 bpw, FP16 cache, load, 16,384 and 4,096 tokens",
    ]
    assert text.count("```python") == text.count("```yaml") == 2
    told = " ".join(text.split())
    assert "- 16,384 tokens, for quality, 16,384; fast, 16,384; longest: simulated, certified at 16,384" in told
    assert "- 4,096 tokens, for fast, 4,096: simulated, certified at 16,384" in told
    prose = [line for line in text.splitlines() if not line.startswith(("|", "#", "  vram-bench", "<"))]
    assert max(map(len, prose)) <= 100
    assert "to copy, with 16,384 tokens; for 4,096 tokens write that length" in text
    assert {"max_seq_len=16384", "max_seq_len=4096"} <= set(re.findall(r"max_seq_len=\d+", text))


def test_the_page_of_tradeoffs(tmp_path: Path) -> None:
    out = published(tmp_path, cases_of(*ROWS), boundaries_of())
    text = (out / "tradeoffs.md").read_text()
    assert FRONT in text
    assert "3 of 4 settings and lengths" in text
    points = pd.read_csv(out / "tradeoffs.csv")
    assert points["on_front"].tolist() == [True, True, True, False]
    assert points.loc[3, "dominated_by"] == 2


def test_the_csv_says_the_same(tmp_path: Path) -> None:
    out = published(tmp_path, cases_of(*ROWS), boundaries_of(boundary(16384)))
    frame = pd.read_csv(out / "recommendations.csv")
    assert frame["max_seq_len"].tolist() == [4096, 16384, 4096, 16384, 16384]
    assert frame["headroom_bytes"].tolist() == [14 * GIB, 4 * GIB, 16 * GIB, 4 * GIB, 4 * GIB]
    assert (frame["demanded_headroom_bytes"] == GIB).all()
    assert frame["check_command"].str.startswith("vram-bench sweep model=local model.path=DIR device=cuda").all()


def test_a_reason_is_told_once_for_all_that_it_holds_for() -> None:
    rows = cases_of(fits(16384, estimated_decode_tokens_per_s=None), oom(32768))
    (table,) = recommendation_tables(recommend(evidence(rows, boundaries_of()), rows, (4096, 8192, 131072)))
    notes = [note for note in table.notes if "tokens/s" in note]
    assert notes == ["fast, 4,096; fast, 8,192: the rows tell no tokens/s"]


@pytest.mark.parametrize("cards", [None, "[]"])
def test_headroom_is_that_of_the_card_that_decides(cards: str | None) -> None:
    rows = cases_of(fits(16384, device_cards=cards, tightest_headroom_bytes=None if cards is None else 2 * GIB))
    (table,) = recommendation_tables(recommend(evidence(rows, boundaries_of()), rows))
    assert ("of the card (of several: of the one that decides) or more" in table.legend) is (cards is not None)


def test_quality_stands_beside_where_it_is_known(tmp_path: Path) -> None:
    out = published(tmp_path, cases_of(fits(16384, model="mixtral_8x7b", cache="Q4")), boundaries_of())
    assert "| 10.19 perplexity (lower is better) |" in (out / "recommendations.md").read_text()
    assert "| 10.19 |" in (out / "tradeoffs.md").read_text()
    assert "exllamav2 doc/qcache_eval.md" in (out / "tradeoffs.md").read_text()


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_holds_every_number(width: int) -> None:
    rows = cases_of(fits(131072, bpw=2.25, cache="Q4", device_total_bytes=100 * GIB), fits(4096))
    answers = recommend(evidence(rows, boundaries_of()), rows)
    console = Console(width=width, record=True, file=io.StringIO())
    for table in recommendation_tables(answers):
        console.print(as_rich(table))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert re.search(r"quality, 131,072 +2\.25 +Q4 +load +131,072 ", text)
    assert text.count("quality: the highest") == 1


def chosen_of(answer: Recommendation) -> Chosen:
    assert answer.setting is not None
    assert answer.max_seq_len is not None
    return Chosen(answer.identity["model"], answer.setting, answer.batch_size or 1, answer.max_seq_len)


def answer_of(**values: Any) -> Recommendation:
    rows = cases_of(fits(8192, **values))
    return recommend(evidence(rows, boundaries_of()), rows, (8192,), 0)[0]


@pytest.mark.parametrize(
    "values",
    [{}, {"cache": "Q6"}, {"lazy": True}, {"batch_size": 4, "max_input_len": 512}, {"attention_requested": "matmul"}],
)
def test_the_python_to_copy_is_what_the_scenario_does(values: dict[str, Any]) -> None:
    answer = answer_of(**values)
    text, setting = exllamav2(chosen_of(answer)), answer.as_row()
    ast.parse(text)
    name = "ExLlamaV2Cache" if setting["cache"] == "FP16" else f"ExLlamaV2Cache_{setting['cache']}"
    assert f"cache = {name}(model, batch_size={answer.batch_size}, max_seq_len=8192" in text
    assert f"config.max_input_len = {setting['max_input_len']}\n" in text
    if setting["lazy"]:
        assert text.index("lazy=True") < text.index("model.load_autosplit(cache)")
    else:
        assert text.index("model.load()") < text.index("cache =")
    assert ("config.no_flash_attn = True" in text) is (setting["attention_requested"] == "matmul")


def test_the_lines_for_tabbyapi_are_its_keys() -> None:
    lines = OmegaConf.to_container(
        OmegaConf.create(tabbyapi(chosen_of(answer_of(cache="Q6", batch_size=2, max_input_len=1024))))
    )
    assert lines == {
        "model": {
            "model_name": "DIR",
            "backend": "exllamav2",
            "max_seq_len": 8192,
            "cache_size": 16384,
            "cache_mode": "Q6",
            "chunk_size": 1024,
            "max_batch_size": 2,
        },
        "memory": {"cuda_malloc_async": False},
    }


def test_tabbyapis_cache_has_whole_pages() -> None:
    rows = cases_of(fits(2000, native_max_seq_len=2000))
    answer = recommend(evidence(rows, boundaries_of()), rows, (2000,), 0)[0]
    assert answer.max_seq_len == 2000
    assert OmegaConf.create(tabbyapi(chosen_of(answer))).model.cache_size == 1792


@pytest.mark.parametrize(
    "values", [{}, {"cache": "Q4", "lazy": True, "batch_size": 2, "attention_requested": "matmul"}]
)
def test_the_command_that_checks_is_one_that_plans(tmp_path: Path, values: dict[str, Any]) -> None:
    words = check_command(answer_of(**values)).split()
    assert words[:2] == ["vram-bench", "sweep"]
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(
        '{"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 8192, "hidden_size": 64, "vocab_size": 99,'
        ' "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 64}'
    )
    here = {"model.path=DIR": f"model.path={model}", "device=cuda": "device=rtx_4090"}
    planned = plan_sweep([here.get(word, word) for word in words[2:]])
    (case,) = planned.cases
    for name in ("cache", "lazy", "batch_size"):
        assert getattr(case, name) == values.get(name, getattr(case, name))
    assert case.max_seq_len == 8192


def test_rows_with_nulls_everywhere_are_told_and_make_no_empty_table(
    bare_frame_of: FrameOf, bare_boundaries_of: FrameOf, tmp_path: Path
) -> None:
    out = published(tmp_path, bare_frame_of({}, {"cache": "Q4", "outcome": "crash"}), bare_boundaries_of({}))
    page = (out / "recommendations.md").read_text()
    assert "the rows do not tell what was left of the card" in page
    assert "no row tells the VRAM of a setting that fits" in (out / "tradeoffs.md").read_text()
    assert pd.read_csv(out / "recommendations.csv")["reason"].notna().all()


def test_what_people_say_is_told_of_the_model_that_it_is_about(tmp_path: Path) -> None:
    about = {"model": "phi_3_medium_128k"}
    out = published(tmp_path, cases_of(fits(16384, **about)), boundaries_of(boundary(16384, **about)))
    text = (out / "recommendations.md").read_text()
    assert "Of Phi-3-medium-128k alone" in text
    assert "too low: all 1 settings reach 2,048" in text


def test_lengths_that_were_chosen_answer_for_no_others(tmp_path: Path) -> None:
    """Up to 4,096 fits and 131,072 does not: what lies between is not known, and nothing says that it does not fit."""
    about = {"model": "phi_3_medium_128k"}
    rows = cases_of(fits(2048, **about), fits(4096, **about), oom(131072, **about))
    out = published(tmp_path, rows, boundaries_of(), ReportOptions(contexts=(8192,), headroom_bytes=0))
    page = (out / "recommendations.md").read_text()
    assert "quality, 8192" not in page
    assert "quality, 8,192: not known: 4,096 is the longest of the lengths tried" in page
    assert "others were not tried: use max_seq_len=auto" in page
    assert "| longest | 4 | FP16 | load | ≥ 4,096 |" in page
    assert "Only certified boundaries on such cards answer; there are none among these rows" in page
    assert "≥ 4,096" in (out / "tables.md").read_text()
    answers = pd.read_csv(out / "recommendations.csv").set_index("policy")
    assert answers.loc["longest", "is_lower_bound"]


def test_a_certified_end_of_every_setting_leaves_nothing_open(tmp_path: Path) -> None:
    out = published(tmp_path, cases_of(fits(4096), oom(4352)), boundaries_of(boundary(4096)))
    page = (out / "recommendations.md").read_text()
    assert "≥" not in page
    assert "not tried" not in page
    assert "no setting that was run reaches it" in page


def test_a_single_row_that_failed_is_told(tmp_path: Path) -> None:
    out = published(tmp_path, cases_of(oom(4096)), boundaries_of())
    assert "no row shows that anything fits" in (out / "recommendations.md").read_text()
    assert "no row shows that anything fits" in (out / "tradeoffs.md").read_text()


def test_a_single_row_that_fits_is_enough(tmp_path: Path) -> None:
    out = published(tmp_path, cases_of(fits(4096)), boundaries_of())
    assert "| tiny | longest | 4 | FP16 | load | ≥ 4,096 |" in (out / "recommendations.md").read_text()
    assert "1 of 1 settings and lengths" in (out / "tradeoffs.md").read_text()


def test_real_cards_come_first_and_are_called_measured(tmp_path: Path) -> None:
    real = fits(4096, device_kind="cuda", device_name="NVIDIA X", device_uuid="GPU-123456")
    page = (published(tmp_path, cases_of(fits(4096), real), boundaries_of()) / "recommendations.md").read_text()
    assert 0 < page.index("## NVIDIA X (measured), 24.00 GiB") < page.index("## card (simulated)")
