"""The Pareto front, what people say, and quality that others have measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.analysis.claims import answers
from bench.analysis.evidence import evidence
from bench.analysis.quality import PUBLISHED, UnusableQuality, read_quality, with_quality
from bench.analysis.tradeoffs import dominators, tradeoffs
from tests.analysis.rows_as_read import GIB, boundaries_of, boundary, cases_of, fits

NO_BOUNDARIES = boundaries_of()
_SMALL = st.integers(0, 4)


def better(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((a >= b).all() and (a > b).any())


@given(st.lists(st.tuples(_SMALL, _SMALL, _SMALL), max_size=40))
def test_nothing_on_the_front_is_dominated_and_everything_else_is_by_one_that_is(
    values: list[tuple[int, int, int]],
) -> None:
    points = np.array(values, dtype=float).reshape(-1, 3)
    found = dominators(points)
    for i, by in enumerate(found):
        if by < 0:
            assert not any(better(other, points[i]) for other in points)
        else:
            assert better(points[by], points[i])
            assert found[by] == -1


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from(["FP16", "Q4"]), st.integers(1, 5), _SMALL, st.booleans()), max_size=20))
def test_the_same_holds_for_rows_of_each_card(values: list[tuple[str, int, int, bool]]) -> None:
    rows = [
        fits(256 * n, cache=cache, bpw=2.0 + i / 8, estimated_decode_tokens_per_s=float(speed), device_name=str(other))
        for i, (cache, n, speed, other) in enumerate(values)
    ]
    points = tradeoffs(evidence(cases_of(*rows), NO_BOUNDARIES))
    assert len(points) == len(rows)
    for _, own in points.groupby("question"):
        axes = own[["peak_device_bytes", "max_seq_len", "tokens_per_s", "bpw"]].to_numpy(float) * [-1, 1, 1, 1]
        places = own.set_index("place")
        for axis, (_, row) in zip(axes, own.iterrows(), strict=True):
            assert bool(row["on_front"]) is not any(better(other, axis) for other in axes)
            if not row["on_front"]:
                by = places.loc[row["dominated_by"]]
                assert by["on_front"]
                assert by["device_name"] == row["device_name"]


def test_more_bits_are_worth_what_they_cost() -> None:
    rows = [fits(4096, bpw=bpw) for bpw in (2.5, 4.0, 6.0)]
    finer = fits(4096, bpw=6.0, head_bits=8, peak_device_bytes=15 * GIB)
    points = tradeoffs(evidence(cases_of(*rows, finer), NO_BOUNDARIES))
    assert points["on_front"].all()
    worse = fits(4096, bpw=4.0, lazy=True, peak_device_bytes=20 * GIB)
    points = tradeoffs(evidence(cases_of(*rows, worse), NO_BOUNDARIES))
    assert points.loc[points["on_front"].eq(False), ["bpw", "lazy"]].to_numpy().tolist() == [[4.0, True]]


def test_what_cannot_be_compared_is_neither_in_nor_out() -> None:
    rows = (fits(4096), fits(8192, estimated_decode_tokens_per_s=None), fits(2048, peak_device_bytes=None))
    points = tradeoffs(evidence(cases_of(*rows), NO_BOUNDARIES)).set_index("max_seq_len")["on_front"]
    assert points.loc[4096]
    assert points.loc[[2048, 8192]].isna().all()


def test_where_no_speed_is_known_the_others_count() -> None:
    rows = (fits(n, cache=cache, estimated_decode_tokens_per_s=None) for n in (4096, 8192) for cache in ("FP16", "Q4"))
    points = tradeoffs(evidence(cases_of(*rows), NO_BOUNDARIES))
    assert points.loc[points["on_front"], "cache"].unique().tolist() == ["Q4"]


def test_measured_and_estimated_speeds_are_not_compared() -> None:
    real = {"device_kind": "cuda", "device_uuid": "GPU-1"}
    points = tradeoffs(
        evidence(cases_of(fits(4096, decode_tokens_per_s_full=9.0, **real), fits(8192, **real)), NO_BOUNDARIES)
    ).set_index("max_seq_len")
    assert points["tokens_per_s_basis"].tolist() == ["measured", None]
    assert points["on_front"].isna().tolist() == [False, True]


def said_of(fits_at: int | None, **values: Any) -> dict[str, Any]:
    """A boundary of the model that the sayings are about."""
    return boundary(fits_at, **{"model": "phi_3_medium_128k", **values})


@pytest.mark.parametrize(
    ("model", "counts"),
    [("Phi-3-medium-128k-instruct-exl2@2.5", 1), ("phi_3_mini_128k", 0), ("qwen2_5_32b", 0), ("phi_3_medium_4k", 0)],
)
def test_folklore_speaks_of_one_model(model: str, counts: int) -> None:
    assert len(answers(boundaries_of(said_of(8192, device_total_bytes=24 * GIB, model=model)))) == counts


@pytest.mark.parametrize(
    ("total_gib", "lengths", "verdict"),
    [
        (23.5, [16384, 131072], "too low: all 2 settings reach 2,048"),
        (23.5, [1024, 131072], "depends: 1 of 2 settings reach 2,048"),
        (23.5, [None, 1024], "too high: no setting reaches 2,048"),
        (23.5, [2048, 2048], "holds: no setting goes further than 2,048"),
        (39.5, [8192, 131072], "holds: all 2 settings reach 4,096"),
        (39.5, [2048], "too high: no setting reaches 4,096"),
    ],
)
def test_folklore_is_answered_by_boundaries(total_gib: float, lengths: list[int | None], verdict: str) -> None:
    rows = [said_of(n, bpw=2.0 + i, device_total_bytes=int(total_gib * GIB)) for i, n in enumerate(lengths)]
    (answer,) = answers(boundaries_of(*rows))
    assert answer.verdict == verdict
    assert (answer.least["fits_at"], answer.most["fits_at"]) == (lengths[0], lengths[-1])


def test_folklore_speaks_of_no_other_card_and_of_no_doubtful_boundary() -> None:
    other = said_of(8192, device_total_bytes=16 * GIB)
    open_end = said_of(8192, device_total_bytes=24 * GIB, certified=False)
    assert answers(boundaries_of(other, open_end)) == []
    inside = said_of(8192, device_total_bytes=80 * GIB, vram_limit_bytes=24 * GIB)
    assert len(answers(boundaries_of(inside))) == 1


def test_simulated_and_real_cards_have_answers_of_their_own() -> None:
    rows = (said_of(1024), said_of(8192, device_kind="cuda", device_uuid="GPU-1"))
    assert [answer.least["fits_at"] for answer in answers(boundaries_of(*rows))] == [8192, 1024]


def test_published_figures_are_the_documents() -> None:
    quality = read_quality(PUBLISHED)
    figures = {(row.model, row.bpw, row.cache): row.quality for row in quality.itertuples()}
    assert len(figures) == 24
    assert figures["mixtral_8x7b", 4.0, "FP16"] == 10.09
    assert figures["mixtral_8x7b", 4.0, "Q4"] == 10.19
    assert quality["quality_source"].notna().all()


def test_quality_is_joined_where_it_is_known_and_null_elsewhere() -> None:
    rows = pd.DataFrame({"model": ["mixtral_8x7b"] * 3, "bpw": [4.0, 4.0, 4.5], "cache": ["Q4", "Q8", "Q4"]})
    joined = with_quality(rows.assign(engine=[None, "exllamav2", "exllamav2"]), read_quality(PUBLISHED))
    assert joined["quality"].fillna(-1).tolist() == [10.19, -1, -1]


def test_quality_of_one_engine_is_not_that_of_another(tmp_path: Path) -> None:
    """A figure of EXL2 weights says nothing of EXL3 ones with as many bits."""
    rows = pd.DataFrame(
        {"model": ["m"] * 2, "bpw": [4.0] * 2, "cache": ["Q4"] * 2, "engine": ["exllamav2", "exllamav3"]}
    )
    path = tmp_path / "quality.csv"
    path.write_text("model,bpw,cache,quality\nm,4,Q4,7\n")
    assert with_quality(rows, read_quality(path))["quality"].fillna(-1).tolist() == [7, -1]
    path.write_text("model,bpw,cache,engine,quality\nm,4,Q4,exllamav3,6\nm,4,Q4,,7\n")
    assert with_quality(rows, read_quality(path))["quality"].tolist() == [7, 6]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "no such file"),
        ("", "not a readable CSV"),
        ("model,bpw,cache\nm,4,Q4\n", "no column quality"),
        ("model,bpw,cache,quality\nm,4,Q4,good\n", "quality 'good' of row 1 is no number"),
        ("model,bpw,cache,quality\nm,4,Q4,1\nm,4.0,Q4,2\n", "m 4.0 Q4 exllamav2 is there twice"),
        ("\x00\x01", "no column"),
    ],
)
def test_a_file_that_cannot_be_used_is_told(tmp_path: Path, text: str | None, told: str) -> None:
    path = tmp_path / "quality.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UnusableQuality, match=r"quality\.csv") as raised:
        read_quality(path)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_remarks_and_sources_with_a_hash_are_read(tmp_path: Path) -> None:
    path = tmp_path / "quality.csv"
    path.write_text("# mine\nmodel,bpw,cache,quality,quality_source\nm,4,Q4,7.5,issue #12\n")
    assert read_quality(path)["quality_source"].tolist() == ["issue #12"]
