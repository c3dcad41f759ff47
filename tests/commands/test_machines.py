"""Several cards in one case, from the command line to the rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.conftest import Program

SMALL = 'total_memory_bytes: 1200MiB\ncontext_bytes: 100MiB\ncompute_capability: "8.9"\nmulti_processor_count: 20\n'
GIVEN = ("model=tinyllama_1_1b", "bpw=4.0", "max_seq_len=2048")


def _rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.rglob(f"{kind}.parquet")) for row in pq.read_table(path).to_pylist()]


def test_a_model_is_put_on_two_cards_in_every_way(in_process: Program, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    splits = "split=auto,tensor_parallel,[0.5,1.0],[0.2,0.3]"
    done = in_process("sweep", "device=2x./small.yaml", *GIVEN, splits)
    assert done.returncode == 0, done.stderr
    assert "tinyllama_1_1b on 2xsmall (simulated)" in done.stdout
    cases = {row["split"]: row for row in _rows(tmp_path / "results", "cases")}
    assert {split: row["outcome"] for split, row in cases.items()} == {
        "auto": "fits",
        "tensor_parallel": "fits",
        "gpu_split(0.5,1)": "fits",
        "gpu_split(0.2,0.3)": "oom",
    }
    cards: dict[str, list[dict[str, Any]]] = {}
    for row in _rows(tmp_path / "results", "memory"):
        cards.setdefault(row["case_id"], []).append(row)
    for split, row in cases.items():
        assert row["device_total_bytes"] == 2400 << 20
        assert len(json.loads(row["device_cards"])) == 2
        own = sorted(cards[row["case_id"]], key=lambda card: card["card"])
        assert [card["device_total_bytes"] for card in own] == [1200 << 20] * 2
        if row["outcome"] != "fits":
            continue
        for name in (
            "peak_allocated_bytes",
            "peak_reserved_bytes",
            "peak_device_bytes",
            "weights_bytes",
            "cache_bytes",
        ):
            assert row[name] == sum(card[name] for card in own), (split, name)
        left = [card["device_total_bytes"] - card["peak_device_bytes"] for card in own]
        assert [card["headroom_bytes"] for card in own] == left
        decides = 1 if split == "auto" else left.index(min(left))  # autosplit fills all but the last to the brim
        assert (row["tightest_card"], row["tightest_headroom_bytes"]) == (decides, left[decides])
    again = in_process("sweep", "device=2x./small.yaml", *GIVEN, splits)
    assert "4 of them stored already" in again.stderr


def test_a_plan_leaves_what_the_run_leaves(in_process: Program, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    planned = in_process("plan", "device=2x./small.yaml", *GIVEN, "--json")
    (told,) = json.loads(planned.stdout)["cases"]
    assert in_process("sweep", "device=2x./small.yaml", *GIVEN).returncode == 0
    (row,) = _rows(tmp_path / "results", "cases")
    assert (told["fits"], told["reason"], row["outcome"]) == (True, None, "fits")
    assert told["headroom_bytes"] == row["tightest_headroom_bytes"]
    assert told["predicted_peak_bytes"] == row["peak_allocated_bytes"] == row["predicted_peak_bytes"]


def test_each_card_has_a_limit_of_its_own(in_process: Program, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    limits = "vram_limit=[1100MiB,null],[1150MiB,1150MiB],1150MiB"
    done = in_process("sweep", "device=2x./small.yaml", *GIVEN, limits)
    assert done.returncode == 0, done.stderr
    assert "2xsmall (simulated), 2.34 GiB limited to 1.07 GiB + all" in done.stdout
    assert "2xsmall (simulated), 2.34 GiB limited to 2.25 GiB, 1.12 GiB each" in " ".join(done.stdout.split())
    cases = {row["vram_limits"]: row for row in _rows(tmp_path / "results", "cases")}
    assert cases.keys() == {None, f"[{1100 << 20}, null]"}  # the same limit for each is one limit, however it is typed
    assert {row["vram_limit_bytes"] for row in cases.values()} == {2300 << 20}
    row = cases[f"[{1100 << 20}, null]"]
    assert row["outcome"] == "fits"
    own = sorted(_rows(tmp_path / "results", "memory"), key=lambda card: card["card"])
    first, second = (card for card in own if card["case_id"] == row["case_id"])
    assert (first["vram_limit_bytes"], second["vram_limit_bytes"]) == (1100 << 20, None)
    assert 0 <= first["headroom_bytes"] == (1100 << 20) - first["peak_device_bytes"]
    assert second["headroom_bytes"] == row["tightest_headroom_bytes"] == (1200 << 20) - second["peak_device_bytes"]
    assert row["predicted_peak_bytes"] == row["peak_allocated_bytes"]
    refused = in_process("sweep", "device=2x./small.yaml", *GIVEN, "vram_limit=[1100MiB]")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "vram_limit=[1100MiB]: 1 sizes for 2 cards" in refused.stderr


def test_a_case_on_one_card_is_told_by_its_own_row_alone(in_process: Program, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    assert in_process("sweep", "device=./small.yaml", *GIVEN).returncode == 0
    (row,) = _rows(tmp_path / "results", "cases")
    assert (row["device_cards"], row["split"], row["tightest_card"], row["tightest_headroom_bytes"]) == (None,) * 4
    assert _rows(tmp_path / "results", "memory") == []


def test_what_each_card_held_is_told_again_or_skipped_in_words(in_process: Program, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    assert in_process("sweep", "device=2x./small.yaml", *GIVEN).returncode == 0
    again = in_process("report")
    assert (again.returncode, again.stdout.count("on the cards of 2xsmall")) == (0, 1)
    (path,) = (tmp_path / "results").rglob("memory.parquet")
    pq.write_table(pq.read_table(path).drop_columns(["ran_out"]), path)
    damaged = in_process("report", "--json")
    assert damaged.returncode == 1
    assert f"skipped {path.relative_to(tmp_path)}: damaged" in damaged.stderr
    assert len(json.loads(damaged.stdout)["skipped"]) == 1


def test_a_gpu_split_fits_where_a_shorter_length_does_not_and_the_best_is_found(
    in_process: Program, tmp_path: Path
) -> None:
    """A longer context moves a module to the next card; no boundary is contradictory, and two runs certify each."""
    (tmp_path / "small.yaml").write_text(SMALL.replace("1200MiB", "1000MiB"))
    given = ("device=2x./small.yaml", "model=llama_3_2_1b", "bpw=4.0", "cache=Q4")
    failing = in_process("sweep", *given, "split=[0.66,2],[0.2,0.3]", "max_seq_len=21504")
    assert failing.returncode == 0, failing.stderr
    found = in_process("sweep", *given, "split=[0.66,2],best", "max_seq_len=auto")
    assert found.returncode == 0, found.stderr
    cases = _rows(tmp_path / "results", "cases")
    errors = {row["split"]: row["error"] for row in cases if row["max_seq_len"] == 21504}
    error = errors["gpu_split(0.2,0.3)"]
    assert (
        "split=[0.2,0.3] is too small for the model at 21,504 tokens, before any cache: the engine counts 1." in error
    )
    assert "the smallest change that holds it is split=[0.2,1.3]" in error
    assert "out of memory" in errors["gpu_split(0.66,2)"]
    boundaries = {row["split"]: row for row in _rows(tmp_path / "results", "boundaries")}
    manual, best = boundaries["gpu_split(0.66,2)"], boundaries["best"]
    for row in (manual, best):
        assert (row["certified"], row["contradictory"], row["fails_at"]) == (True, False, row["fits_at"] + 256)
        assert row["predicted_fits_at"] == row["fits_at"]
    assert any(note.endswith("16,640 to 18,176, 20,736 to 21,504") for note in manual["notes"])
    assert (manual["best_split"], manual["predicted_auto_fits_at"]) == (None, None)
    assert best["fits_at"] >= manual["fits_at"]
    assert best["predicted_auto_fits_at"] == 0  # the last card has no room for the head and a chunk's logits
    gained = f"{best['fits_at']:,} tokens more than split=auto (with which nothing is predicted to fit)"
    assert f"split={best['best_split']} is the best gpu_split: {gained}" in " ".join(found.stdout.split())
    typed = in_process("sweep", *given, f"split={best['best_split']}", f"max_seq_len={best['fits_at']}")
    assert typed.returncode == 0, typed.stderr
    again = [row for row in _rows(tmp_path / "results", "cases") if row["max_seq_len"] == best["fits_at"]]
    peaks = {row["split"]: row["peak_reserved_bytes"] for row in again if row["outcome"] == "fits"}
    assert peaks.pop("best") == peaks[f"gpu_split({best['best_split'][1:-1]})"]


def test_what_a_second_card_gains_stands_beside_the_first_alone(in_process: Program, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    (tmp_path / "other.yaml").write_text(SMALL.replace("1200MiB", "1100MiB"))
    asked = ("model=tinyllama_1_1b", "bpw=3.0,6.0", "cache=FP16", "auto_up_to=65536")
    machines = "device=./small.yaml,2x./small.yaml,./small.yaml+./other.yaml,2x./other.yaml"
    done = in_process("sweep", machines, *asked)
    assert done.returncode == 0, done.stderr
    fits = {(row["device_name"], row["bpw"]): row["fits_at"] or 0 for row in _rows(tmp_path / "results", "boundaries")}
    (report,) = tmp_path.glob("results/*/report/tables.md")
    told = report.read_text().partition("## What more cards gain")[2].partition("\n## ")[0]
    assert told.count("### What is gained beside small: tinyllama_1_1b on ") == 2
    assert "2xother" not in told  # whose first card was not asked alone
    for machine in ("2xsmall", "small+other"):
        (table,) = (part for part in told.split("### ") if f" on {machine} " in part)
        for bpw in (3.0, 6.0):
            gained = fits[machine, bpw] - fits["small", bpw]
            assert gained  # on cards so small autosplit's reserve may cost more than the second one brings
            assert f"| {gained:+,} | auto |" in table


def test_a_length_that_only_the_search_ended_is_marked_so_beside_more_cards(
    in_process: Program, tmp_path: Path
) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    asked = ("model=tinyllama_1_1b", "bpw=3.0", "cache=FP16", "auto_up_to=512")
    done = in_process("sweep", "device=./small.yaml,2x./small.yaml", *asked)
    assert done.returncode == 0, done.stderr
    (report,) = tmp_path.glob("results/*/report/tables.md")
    told = report.read_text().partition("## What more cards gain")[2].partition("\n## ")[0]
    assert "| ≥ 512 | ≥ 512 | ? | auto |" in told  # how much further each goes is not known
    assert "≥: all fits up to where the search ended; auto_up_to=N goes further." in " ".join(told.split())
