"""What a sweep is expected to find: as people read it, and as JSON."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from bench.core.columns import IDENTITY
from bench.report.forecasts import Expectation, ForecastRow, Gain, document
from bench.report.tables.forecasts import as_rich, show, summary, tables_of
from bench.report.text.parts_bar import Scale, draw, scale_for, segments
from tests.report.columns_shown import broken_within_words

GIB = 1 << 30


def row(**values: Any) -> ForecastRow:
    usual: dict[str, Any] = {
        "device_name": "rtx_4060_8gb",
        "device_kind": "simulated",
        "device_uuid": None,
        "device_total_bytes": 8 * GIB,
        "vram_limit_bytes": None,
        "vram_limit_by": None,
        "model": "tiny",
        "model_fingerprint": "f00f00f00",
        "bpw": 4.0,
        "head_bits": 6,
        "cache": "FP16",
        "lazy": False,
        "attention_requested": "auto",
        "batch_size": 1,
        "max_input_len": 2048,
        "max_attention_size": 2048**2,
        "native_max_seq_len": 131072,
        "is_search": True,
        "probes": 2,
        "stored": False,
    }
    return forecast_row(**{**usual, **values})


def forecast_row(**values: Any) -> ForecastRow:
    """From values that are not told apart; what is not told of its card is unknown."""
    identity: Any = {name: values.pop(name, None) for name in IDENTITY}
    return ForecastRow(identity=identity, **values)


def holding(weights: float, kv: float, rest: float, held: float = 0.0, **values: Any) -> ForecastRow:
    """A row whose card holds so many GiB, and a context of half of one."""
    parts = {"weights": weights, "cache": kv, "scratch": rest, "logits": 0.0, "context": 0.5}
    used = int((weights + kv + rest + 0.5) * GIB)
    device = used + int(held * GIB)
    fits = values.get("fits", used <= 8 * GIB)
    usual = {
        "fits": fits,
        "predicted_peak_bytes": used - GIB // 2,
        "predicted_peak_reserved_bytes": device - GIB // 2 if fits else None,
        "predicted_peak_device_bytes": device if fits else None,
        "parts": {f"{part}_bytes": int(size * GIB) for part, size in parts.items()},
        "headroom_bytes": 8 * GIB - (device if fits else used),
        "estimated_decode_tokens_per_s": 28.4 if fits else None,
    }
    return row(**{**usual, **values})


def ends(fits_at: int, weights: float, kv: float, **values: Any) -> ForecastRow:
    return holding(weights, kv, 1.0, 0.25, max_seq_len=fits_at, predicted_fits_at=fits_at, **values)


CELLS = [
    ends(22528, 3.25, 3.0, gains=[Gain("cache=Q8", 39936), Gain("bpw=3.5", 26624)]),
    ends(131072, 3.25, 1.0, cache="Q4", estimated_decode_tokens_per_s=7.84, probes=0, stored=True),
    ends(4096, 6.25, 0.0, bpw=8.0, assumed=["context_bytes assumed"]),
    holding(11.0, 1.0, 0.5, 50.0, bpw=16.0, failed_in="load", max_seq_len=256, advice="bpw=8 would fit 2,048 tokens"),
    row(bpw=5.0, lazy=True, reason="Unsupported: ExLlamaV2 0.3.2 does not know the architecture TinyForCausalLM"),
]
AT_80 = """\
tiny on rtx_4060_8gb (simulated), 8.00 GiB: predicted
                           peak left needs                           est.
bpw cache how   fits up to  GiB  GiB   GiB              verdict     tok/s
  4 FP16  load      22,528  8.0  0.0       ███▓▓▒■│     fits           28
  4 Q4    load 131,072 max  6.0  2.0       ███▓▒  │     fits          7.8 stored
  5 FP16  lazy           –    –    –                    unsupported     –
  8 FP16  load       4,096  8.0  0.0       █████▒■│     fits           28
 16 FP16  load        none    –    –  13.0 ███████│███» OOM load        –
5 bpw FP16 lazy: unsupported: ExLlamaV2 0.3.2 does not know the architecture
TinyForCausalLM
4 bpw FP16 load: largest part the weights, 3.2 of 8.0 GiB; cache=Q8: 39,936
(+17,408); bpw=3.5: 26,624 (+4,096)
16 bpw FP16 load: largest part the weights, 11.0 of 13.0 GiB; bpw=8 would fit
2,048 tokens
What the CUDA context takes (context_bytes) is assumed, as nobody measured it on
such a card; a real one may fit a little more or less (docs/simulation.md).
"""


def rendered(rows: list[ForecastRow], width: int, most_rows: int | None = None) -> str:
    console = Console(file=io.StringIO(), width=width)
    for table in tables_of(rows):
        console.print(as_rich(table, most_rows))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return "".join(f"{line.rstrip()}\n" for line in lines)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"stored_outcome": "fits", "stored_fits_at": 4096}, "stored: 4,096"),
        ({"stored_outcome": "oom"}, "stored: none"),
        ({"stored_outcome": "oom", "is_search": False, "max_seq_len": 2048}, "stored: oom"),
    ],
)
def test_what_is_not_predicted_and_stored_is_told_as_it_is_stored(values: dict[str, Any], said: str) -> None:
    reason = "split=gpu_split is not predicted: only split=auto is"
    told = row(stored=True, probes=0, reason=reason, **values)
    text = rendered([told], 120)
    assert f"not predicted {said}" in text
    assert "unknown" not in text
    assert told.to_json()["stored_outcome"] == values["stored_outcome"]
    assert "stored_outcome" not in CELLS[1].to_json()  # the prediction says more


def test_a_table_at_80_columns() -> None:
    assert rendered(CELLS, 80) == AT_80


def test_a_table_at_120_columns_has_longer_bars_and_no_more() -> None:
    lines = rendered(CELLS, 120).splitlines()
    assert lines[3].startswith("  4 FP16  load      22,528  8.0  0.0       █████████████▓▓▓▓▓▓▓▓▓▓▓▓▒▒▒▒■■░│ ")
    assert lines[3].endswith("│                 fits           28")
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_wider_than_the_screen(width: int) -> None:
    rows = [
        ends(131072, 3.25, 1.0, attention_requested=name, head_bits=n) for name in ("flash", "sdpa") for n in (6, 8)
    ]
    assert max(map(len, rendered(rows, width).splitlines())) <= width


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_number_is_cut_and_no_name_within_a_word_whatever_varies(width: int) -> None:
    varying = {
        "head_bits": (6, 8),
        "attention_requested": ("xformers", "matmul"),
        "batch_size": (1, 16),
        "max_input_len": (1024, 2048),
        "max_attention_size": (1048576, 4194304),
    }
    rows = [
        ends(131072, 3.25, 1.0, estimated_decode_tokens_per_s=1234.5, **dict(zip(varying, values, strict=True)))
        for values in product(*varying.values())
    ]
    shown = rendered(rows, width).splitlines()
    names = [
        "bpw",
        "cache",
        "how",
        "attention",
        *varying,
        "fits up to",
        "peak GiB",
        "left GiB",
        "verdict",
        "est. tok/s",
    ]
    assert max(map(len, shown)) <= width
    assert broken_within_words(names, shown, "4") == []
    told = set(" ".join(shown).split())
    assert {"1,234", "4194304", "1048576", "xformers", "FP16", "load", "131,072", "max", "fits"} <= told
    assert not any("…" in word for word in told)


def test_cases_have_a_table_of_their_own_with_the_length_that_was_asked() -> None:
    fits = holding(3.0, 1.0, 1.0, is_search=False, max_seq_len=8192)
    fails = holding(3.0, 6.0, 1.0, is_search=False, max_seq_len=32768, failed_in="cache")
    searches, cases = tables_of([ends(4096, 6.0, 0.0), fails, fits])
    assert [r.max_seq_len for r in cases.rows] == [8192, 32768]
    assert [r.max_seq_len for r in searches.rows] == [4096]
    text = rendered([fails, fits], 80)
    assert "max_seq_len" in text
    assert "OOM cache" in text


def test_what_would_make_a_case_fit_is_said() -> None:
    gains = [Gain("cache=Q8", 32768), Gain("bpw=3.5", 20480)]
    told: dict[str, Any] = {"gains": gains, "advice": "16,384 tokens would fit"}
    fails = holding(3.0, 6.0, 1.0, is_search=False, max_seq_len=32768, failed_in="cache", **told)
    (table,) = tables_of([fails])
    assert [note.plain for note in table.notes] == [
        "4 bpw FP16 load 32,768: largest part the cache, 6.0 of 10.5 GiB; 16,384 tokens would fit; cache=Q8: fits; "
        "bpw=3.5: up to 20,480"
    ]


def test_what_would_be_in_use_counts_where_it_does_not_fit_not_what_pytorch_would_keep() -> None:
    fails = holding(3.0, 6.0, 1.0, held=100.0, failed_in="prefill")
    assert fails.predicted_needed_bytes == int(10.5 * GIB)
    assert "–    –  10.5" in rendered([fails], 80)
    (case,) = document([fails], Expectation(1, 1.0))["cells"]
    assert case["predicted_needed_bytes"] == int(10.5 * GIB)
    assert document([ends(4096, 3.0, 1.0)], Expectation(1, 1.0))["cells"][0]["predicted_needed_bytes"] is None


def test_what_does_not_fit_never_looks_as_if_it_did() -> None:
    """As much would be in use as the card has, but in pieces that are too small: no bar within the limit, no peak."""
    rows = [ends(2048, 3.0, 1.0), holding(5.0, 1.0, 1.0, bpw=5.0, fits=False, failed_in="prefill")]
    told = [row.strip() for row in rendered(rows, 80).splitlines() if row.strip().endswith(("28", "–"))]
    assert "│" in told[0]
    assert "│" not in told[1]
    assert "–    –   7.5" in told[1]
    assert "lies in pieces too small" in rendered([*rows[:1], replace(rows[1], advice="less would fit")], 80)


def test_a_reason_that_all_share_is_told_once() -> None:
    rows = [row(bpw=bpw, reason="no recording") for bpw in (2.0, 3.0, 4.0)]
    (table,) = tables_of(rows)
    assert [note.plain for note in table.notes] == ["no prediction: no recording"]


def test_models_of_one_name_are_told_apart() -> None:
    titles = [table.title for table in tables_of([row(), row(model_fingerprint="abcdef012")])]
    assert ["f00f00" in titles[0], "abcdef" in titles[1]] == [True, True]
    (alone,) = tables_of([row()])
    assert "f00f00" not in alone.title


def test_what_differs_is_shown_and_what_does_not_is_not() -> None:
    (table,) = tables_of([ends(4096, 3.0, 1.0, batch_size=n) for n in (1, 2)])
    assert table.varying == ["batch_size"]
    assert "batch_" in rendered(table.rows, 80)
    limited = tables_of([row(vram_limit_bytes=6 * GIB, attention_requested="flash")])[0]
    assert limited.title == "tiny on rtx_4060_8gb (simulated), 8.00 GiB limited to 6.00 GiB, flash attention: predicted"


def test_a_real_card_is_called_so_and_has_no_estimated_speeds() -> None:
    text = rendered([ends(4096, 3.0, 1.0, device_kind="cuda", estimated_decode_tokens_per_s=None)], 80)
    assert "(cuda)" in text
    assert "tok/s" not in text


def test_a_screen_gets_the_first_rows_of_a_long_table_and_a_file_all() -> None:
    rows = [ends(256 * n, 3.0, 1.0, bpw=2 + n / 100) for n in range(1, 61)]

    def shown(is_terminal: bool) -> str:
        console = Console(file=io.StringIO(), width=80, force_terminal=is_terminal, color_system=None)
        show(rows, Expectation(120, 60.0), console)
        return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]

    assert "and 20 more" in shown(True)
    assert shown(True).count("│ fits ") == 40
    assert "more" not in shown(False)
    assert shown(False).count("│ fits ") == 60


def test_several_cards_stand_in_one_table_first_and_assumptions_are_told_once() -> None:
    small = {"device_name": "small", "device_total_bytes": 6 * GIB}
    rows = [ends(8192, 3.0, 1.0, bpw=bpw, assumed=["context_bytes assumed"]) for bpw in (3.0, 4.0)]
    rows += [ends(2048, 3.0, 1.0, bpw=4.0, assumed=["context_bytes assumed"], **small)]
    rows += [holding(3.0, 6.0, 1.0, bpw=4.0, is_search=False, max_seq_len=32768, failed_in="cache")]
    console = Console(file=io.StringIO(), width=80)
    show(rows, Expectation(4, 4.0), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    first, second, *_ = text.split("\n\n")[1:]
    assert [line.split() for line in first.splitlines()[1:4]] == [
        ["card", "3", "bpw", "4", "bpw"],
        ["small", "(simulated),", "6.00", "GiB", "2,048"],
        ["rtx_4060_8gb", "(simulated),", "8.00", "GiB", "8,192", "8,192"],
    ]
    assert "Predicted: the longest max_seq_len that fits." in first
    assert second.startswith("tiny on")  # of cases there is one card
    assert text.count("What the CUDA context takes") == 1


def test_the_summary_comes_first_and_the_key_says_what_it_is() -> None:
    console = Console(file=io.StringIO(), width=80)
    show(CELLS, Expectation(7, 7.0, assumed=True), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.startswith("5 cells (1 stored already): 7 probes expected, about 7.0 s (assumed)\n3 predicted to fit")
    told = " ".join(text.split())
    for words in ("nothing here is measured", "estimated from memory bandwidth", "█ weights ▓ cache ▒ rest", "max:"):
        assert words in told


@pytest.mark.parametrize(
    ("expectation", "told"),
    [
        (Expectation(1, 90.0), "1 probe expected, about 1 min 30 s (by stored rows)"),
        (Expectation(3, 3.0, assumed=True), "3 probes expected, about 3.0 s (assumed)"),
        (Expectation(3, None), "3 probes expected, for how long is not known: no row of such a GPU is stored"),
        (Expectation(0, 0.0), "0 probes expected, nothing to run"),
    ],
)
def test_how_long_it_takes_in_words(expectation: Expectation, told: str) -> None:
    assert summary([ends(4096, 3.0, 1.0)], expectation) == f"1 cell: {told}\n1 predicted to fit"


def test_json_has_cells_and_cases_in_plain_values() -> None:
    case = holding(3.0, 1.0, 1.0, is_search=False, max_seq_len=8192)
    found = json.loads(json.dumps(document([*CELLS, case], Expectation(7, 7.5, assumed=True))))
    assert (len(found["cells"]), len(found["cases"])) == (5, 1)
    assert (found["probes"], found["expected_s"], found["expected_basis"]) == (7, 7.5, "assumed")
    first, unknown = found["cells"][0], found["cells"][4]
    assert first["gains"][0] == {"setting": "cache=Q8", "predicted_fits_at": 39936}
    assert first["parts"]["context_bytes"] == GIB // 2
    assert "is_search" not in first
    assert (unknown["fits"], unknown["predicted_fits_at"], unknown["parts"]) == (None, None, None)
    nothing = found["cells"][3]
    assert (nothing["fits"], nothing["predicted_fits_at"]) == (False, None)


@pytest.mark.parametrize(("seconds", "assumed", "basis"), [(None, False, None), (1.0, False, "stored rows")])
def test_the_basis_of_the_time(seconds: float | None, assumed: bool, basis: str | None) -> None:
    assert document([], Expectation(1, seconds, assumed))["expected_basis"] == basis


SIZES = {"weights": 4 * GIB, "cache": 2 * GIB, "rest": 1 * GIB, "context": 1 * GIB, "held": 0}


@pytest.mark.parametrize(
    ("sizes", "scale", "width", "bar"),
    [
        (SIZES, Scale(8 * GIB, 8 * GIB), 9, "████▓▓▒■│"),
        (SIZES, Scale(16 * GIB, 16 * GIB), 9, "██▓■    │"),
        (SIZES, Scale(6 * GIB, 8 * GIB), 9, "████▓▓│▒■"),
        (SIZES, Scale(4 * GIB, 6 * GIB), 7, "████│▓»"),
        ({**SIZES, "held": 2 * GIB}, Scale(10 * GIB, 10 * GIB), 11, "████▓▓▒■░░│"),
        ({**SIZES, "held": 1}, Scale(8 * GIB, 12 * GIB), 10, "███▓▒■│░  "),
        (SIZES, Scale(8 * GIB, 8 * GIB), 2, ""),
        (SIZES, Scale(1 * GIB, 8 * GIB), 3, "█│█"),
    ],
)
def test_a_bar(sizes: dict[str, int], scale: Scale, width: int, bar: str) -> None:
    assert draw(sizes, scale, width).plain == bar


@pytest.mark.parametrize("width", range(3, 60))
@pytest.mark.parametrize("total", [0.1, 7.9, 8.0, 8.1, 11.9, 30.0])
def test_a_bar_is_as_wide_as_it_may_and_crosses_the_limit_when_it_is_over(width: int, total: float) -> None:
    sizes = {**dict.fromkeys(SIZES, 0), "weights": int(total * GIB)}
    bar: Text = draw(sizes, scale_for(8 * GIB, 30 * GIB), width)
    inside, beyond = bar.plain.split("│")
    assert len(bar.plain) == width
    assert bool(beyond.strip()) == (total > 8)
    if total > 8:
        assert " " not in inside


def test_the_segments_are_all_that_the_device_holds() -> None:
    parts = {"weights_bytes": 4, "cache_bytes": 3, "scratch_bytes": 2, "other_bytes": 1, "context_bytes": 5}
    assert segments(parts, 20) == {"weights": 4, "cache": 3, "rest": 3, "context": 5, "held": 5}
    assert sum(segments(parts, 15).values()) == 15
