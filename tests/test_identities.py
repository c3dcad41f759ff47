"""Random pairs that differ in exactly one fact: nothing that prints, keeps or compares may take one for the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.analysis.evidence import QUESTION, evidence
from bench.analysis.quality import PUBLISHED, read_quality, with_quality
from bench.analysis.recommend import recommend
from bench.analysis.tradeoffs import tradeoffs
from bench.comparison.pairing import join
from bench.core.case import Case, ModelSpec, Search
from bench.core.columns import CARD, IDENTITY, LIMIT, MODEL, SCHEMA_VERSION, CaseRow
from bench.core.device import DeviceSpec
from bench.core.identity import identity_of
from bench.report.comparison.names import Names as ComparisonNames
from bench.report.forecasts import ForecastRow
from bench.report.html.cases import case_table
from bench.report.html.summary import cards as cards_of
from bench.report.naming.models import Names
from bench.report.naming.work import WorkNames
from bench.report.tables.boundaries import boundary_tables
from bench.report.tables.card import CardTable
from bench.report.tables.forecasts import tables_of
from bench.report.tables.recommendations import Naming, copyables, recommendation_tables
from bench.report.tables.tradeoffs import front_tables
from bench.report.tables.verdicts import verdict_tables
from bench.store.schema import BOUNDARIES, CASES

GIB = 1 << 30
VERSIONS: dict[str, str | None] = {"torch_version": "2"}
NOW = datetime(2026, 1, 1, tzinfo=UTC)
PAIRS = settings(max_examples=1000, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
FRAMES = settings(PAIRS, max_examples=30)

_names = st.text("abcAB09_-./ ", min_size=1, max_size=6).map(lambda text: f"m{text}")
_sizes = st.one_of(st.integers(1, 200).map(lambda n: n * GIB), st.integers(24 * GIB, 24 * GIB + 9))
_optional_sizes = st.one_of(st.none(), st.integers(0, 9).map(lambda n: (400 << 20) + n), st.just(500 << 20))
_MODEL = {
    "name": _names,
    "fingerprint": st.text("0f", min_size=16, max_size=16),
}
_SIMULATED: dict[str, st.SearchStrategy[Any]] = {
    "name": _names,
    "total_memory_bytes": _sizes,
    "compute_capability": st.sampled_from([None, "7.5", "8.6", "8.9"]),
    "context_bytes": _optional_sizes,
    "workspace_bytes": _optional_sizes,
    "multi_processor_count": st.sampled_from([None, 82, 83, 128]),
    "memory_bandwidth_bytes_per_s": st.sampled_from([None, 936e9, 936.1e9, 1008e9]),
}
_REAL: dict[str, st.SearchStrategy[Any]] = {
    "name": _names,
    "total_memory_bytes": _sizes,
    "compute_capability": st.sampled_from(["7.5", "8.6"]),
    "uuid": st.text("0f", min_size=8, max_size=8).map(lambda text: f"GPU-{text}"),
}
_SETTING: dict[str, st.SearchStrategy[Any]] = {
    "bpw": st.sampled_from([2.5, 4.0, 4.0000001, 4.25, 8.0]),
    "head_bits": st.sampled_from([None, 6, 8]),
    "cache": st.sampled_from(["FP16", "Q8", "Q6", "Q4"]),
    "lazy": st.booleans(),
    "engine": st.sampled_from(["exllamav2", "exllamav3"]),
    "attention": st.sampled_from(["auto", "flash", "sdpa", "matmul"]),
    "batch_size": st.sampled_from([1, 2, 16]),
    "allocator": st.sampled_from(["native", "expandable"]),
    "max_input_len": st.sampled_from([512, 2048]),
    "max_attention_size": st.sampled_from([512**2, 2048**2]),
    "vram_limit_bytes": st.sampled_from([None, 8 * GIB, 8 * GIB + 1, 4 * GIB]),
    "max_seq_len": st.sampled_from([2048, 4096, 4352]),
}


_SPLITS = st.sampled_from(["auto", "auto(96,96)", "tensor_parallel", "gpu_split(20,24)", "gpu_split(20.5,24)"])


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Case, Case]:
    """Two cases that differ in one fact."""
    kind = draw(st.sampled_from(["simulated", "cuda"]))
    facts = {"simulated": _SIMULATED, "cuda": _REAL}[kind]
    model = {name: draw(values) for name, values in _MODEL.items()}
    device = {name: draw(values) for name, values in facts.items()}
    setting = {name: draw(values) for name, values in _SETTING.items()}
    case = Case(
        model=ModelSpec(config={"max_position_embeddings": 8192}, **model),
        device=DeviceSpec(kind=kind, full_name="a card", **device),
        **setting,
    )
    if case.vram_limit_bytes is not None and kind == "cuda":
        case = dataclasses.replace(case, vram_limit_by=draw(st.sampled_from(["process", "allocator"])))
    nodes: list[tuple[str, dict[str, st.SearchStrategy[Any]]]] = [("model", _MODEL), ("device", facts), ("", _SETTING)]
    if draw(st.booleans()):
        more = [{name: draw(values) for name, values in facts.items()} for _ in range(draw(st.integers(1, 2)))]
        others = tuple(DeviceSpec(kind=kind, full_name="a card", **each) for each in more)
        case = dataclasses.replace(case, more_devices=others, split=draw(_SPLITS))
        if draw(st.booleans()):
            last = others[-1]
            name = draw(st.sampled_from(sorted(facts)))
            value = draw(facts[name].filter(lambda value: value != getattr(last, name)))
            changed = dataclasses.replace(last, **{name: value})
            return case, dataclasses.replace(case, more_devices=(*others[:-1], changed))
        nodes.append(("", {"split": _SPLITS}))
        if draw(st.booleans()):  # the same sum, otherwise divided
            by = None if kind == "simulated" else draw(st.sampled_from(["process", "allocator"]))
            limits = draw(st.permutations([GIB, 2 * GIB, None, 3 * GIB]))[: len(case.devices)]
            case = dataclasses.replace(case, vram_limit_bytes=None, vram_limits_bytes=tuple(limits), vram_limit_by=by)
            return case, dataclasses.replace(case, vram_limits_bytes=(*limits[1:], limits[0]))
    node, strategies = draw(st.sampled_from(nodes))
    name = draw(st.sampled_from(sorted(strategies)))
    part = getattr(case, node) if node else case
    value = draw(strategies[name].filter(lambda value: value != getattr(part, name)))
    other = dataclasses.replace(part, **{name: value})
    return case, dataclasses.replace(case, **{node: other}) if node else other


def row_of(case: Case, number: int) -> dict[str, Any]:
    """A case that fits, as it is stored."""
    return {
        **dict.fromkeys(CaseRow.__annotations__),
        **identity_of(case),
        "schema_version": SCHEMA_VERSION,
        "run_id": "run",
        "case_id": str(number),
        "started_at": NOW,
        "attention": case.attention,
        "native_max_seq_len": 8192,
        "max_seq_len": case.max_seq_len,
        "outcome": "fits",
        "phase": "done",
        "peak_device_bytes": GIB + number,
        "peak_reserved_bytes": GIB,
        "cache_bytes": GIB >> 2,
        "weights_bytes": GIB >> 1,
        "estimated_decode_tokens_per_s": 50.0 + number,
    }


def cases_of(*cases: Case) -> pd.DataFrame:
    return pa.Table.from_pylist([row_of(case, n) for n, case in enumerate(cases)], schema=CASES).to_pandas()


def boundaries_of(*cases: Case) -> pd.DataFrame:
    rows = [
        {
            **row_of(case, number),
            "boundary_id": str(number),
            "finished_at": NOW,
            "fits_at": case.max_seq_len,
            "fails_at": case.max_seq_len + 256,
            "certified": True,
            "contradictory": False,
            "case_ids": [],
        }
        for number, case in enumerate(cases)
    ]
    names = set(BOUNDARIES.names)
    return pa.Table.from_pylist([{k: v for k, v in row.items() if k in names} for row in rows], BOUNDARIES).to_pandas()


def forecast_of(case: Case) -> ForecastRow:
    told: dict[str, Any] = {"native_max_seq_len": 8192, "is_search": False, "probes": 1, "stored": False}
    return ForecastRow(identity=identity_of(case), max_seq_len=case.max_seq_len, **told)


def lines_of(tables: Sequence[CardTable]) -> list[tuple[str, ...]]:
    """Each line that is printed, below the title of its table, without what was measured."""
    return [
        (table.title, *body[: 2 + ("cache" in table.header()) + len(table.varying)])
        for table in tables
        for body in table.body()
    ]


def differ(one: Case, other: Case, *columns: str) -> bool:
    left, right = identity_of(one), identity_of(other)
    return any(left[name] != right[name] for name in columns)


@PAIRS
@given(pairs())
def test_what_is_named_and_kept_before_it_is_run_is_told_apart(pair: tuple[Case, Case]) -> None:
    one, other = pair
    assert one.case_id(VERSIONS) != other.case_id(VERSIONS)
    names = WorkNames(pair)
    assert names.title(one) != names.title(other)
    cells = Search(one), Search(other)
    assert cells[0].boundary_id(VERSIONS) != cells[1].boundary_id(VERSIONS)
    assert len(set(map(WorkNames(cells).title, cells))) == 2
    planned = [
        (table.title, table.name(row)) for table in tables_of(list(map(forecast_of, pair))) for row in table.rows
    ]
    assert len(set(planned)) == len(planned) == 2


@PAIRS
@given(pairs())
def test_rows_are_compared_with_themselves_and_told_apart(pair: tuple[Case, Case]) -> None:
    rows = [row_of(case, number) for number, case in enumerate(pair)]
    joined = join(rows, rows[::-1])
    assert sorted((p.base.row["case_id"], p.head.row["case_id"]) for p in joined.pairs) == [("0", "0"), ("1", "1")]
    assert (joined.missing, joined.new, joined.refused) == ([], [], [])
    names = ComparisonNames(rows)
    assert names.title(rows[0]) != names.title(rows[1])
    called = Names(rows)
    if differ(*pair, *CARD, *LIMIT):
        assert len(set(map(called.card, rows))) == len(set(map(called.card_title, rows))) == 2
        assert len({called.card_slug(row).lower() for row in rows}) == 2
    if differ(*pair, *MODEL):
        assert len(set(map(called.model, rows))) == 2


@FRAMES
@given(pairs())
def test_tables_and_the_page_tell_them_apart(pair: tuple[Case, Case]) -> None:
    frame = cases_of(*pair)
    names = Names.of_frames(frame)
    tables: list[CardTable] = list(verdict_tables(frame))
    is_length = not differ(*pair, *IDENTITY)
    assert sum(row is not None for table in tables for cells in table.cells for row in cells) == 2
    found = boundary_tables(boundaries_of(*pair))
    assert sum(row is not None for table in found for cells in table.cells for row in cells) == 2 - is_length
    assert len(set(lines_of(tables))) == 2 - is_length  # two lengths of one setting stand side by side
    shown = case_table(frame, names)
    words = [
        i for i, column in enumerate(shown.columns) if "GiB" not in column["title"] and "tok" not in column["title"]
    ]
    assert len({tuple(row[i] for i in words) for row in shown.rows}) == 2
    assert len(cards_of(frame, boundaries_of(), names)) == 1 + differ(*pair, *CARD, *LIMIT)


@FRAMES
@given(pairs())
def test_recommendations_and_tradeoffs_tell_them_apart(pair: tuple[Case, Case]) -> None:
    frame, none = cases_of(*pair), boundaries_of()
    shown = evidence(frame, none)
    assert len(shown) == 2
    asked = frame.reindex(columns=[*QUESTION, "native_max_seq_len"]).drop_duplicates(QUESTION)
    answers = recommend(shown, asked, contexts=(2048,), headroom_bytes=0)
    naming = Naming.of(answers)
    tables = recommendation_tables(answers, naming)
    apart = differ(*pair, *QUESTION)
    assert len({table.title for table in tables}) == len(tables) == 1 + apart
    told = [
        (table.title, each.title) for table, of in zip(tables, copyables(answers, naming), strict=True) for each in of
    ]
    assert len(set(told)) == len(told)
    fronts = front_tables(with_quality(tradeoffs(shown), read_quality(PUBLISHED)))
    assert len({table.title for table in fronts}) == len(fronts) == 1 + apart
