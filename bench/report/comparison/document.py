"""A comparison as one JSON document, raw: bytes, tokens, tokens a second."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from bench.comparison.compare import Finding
from bench.comparison.pairing import AnyRefusal
from bench.core.columns import IDENTITY, ResultRow
from bench.core.identity import key_of
from bench.report.comparison.content import ComparisonReport, Side
from bench.store.schema import Kind

_IDENTITY = (*IDENTITY, "max_seq_len")


def document(report: ComparisonReport) -> dict[str, Any]:
    """Everything. A boundary has no `max_seq_len`; null is unknown."""
    comparison = report.comparison
    joins = comparison.joined.items()
    return {
        "passed": comparison.passed,
        "headline": report.headline,
        "gates": asdict(comparison.gates),
        "base": _side(report.base),
        "head": _side(report.head),
        "compared": {str(kind): len(joined.pairs) for kind, joined in joins},
        "findings": [_finding(finding) for finding in comparison.findings],
        "missing": [_identity(row, kind) for kind, joined in joins for row in joined.missing],
        "new": [_identity(row, kind) for kind, joined in joins for row in joined.new],
        "refused": [_refusal(refusal, kind) for kind, joined in joins for refusal in joined.refused],
        "skipped": list(report.skipped),
    }


def _side(side: Side) -> dict[str, Any]:
    return {"from": side.name, "rows": {str(kind): len(rows) for kind, rows in side.rows.items()}}


def _finding(finding: Finding) -> dict[str, Any]:
    speeds = finding.speeds
    tested = {"p_value": speeds.p_value, "samples": [speeds.base_count, speeds.head_count]} if speeds else {}
    return {
        "change": finding.change,
        "fails": finding.fails,
        "column": finding.column,
        "base": finding.base,
        "head": finding.head,
        **tested,
        **_identity(finding.pair.head.row, finding.kind),
    }


def _refusal(refusal: AnyRefusal, kind: Kind) -> dict[str, Any]:
    (base,), (head,) = (key_of(row, [refusal.column]) for row in (refusal.base, refusal.head))
    return {"column": refusal.column, "base": base, "head": head, **_identity(refusal.base, kind)}


def _identity(row: ResultRow, kind: Kind) -> dict[str, Any]:
    names = _IDENTITY if kind is Kind.CASES else tuple(name for name in _IDENTITY if name != "max_seq_len")
    return {"kind": kind, **dict(zip(names, key_of(row, names), strict=True))}
