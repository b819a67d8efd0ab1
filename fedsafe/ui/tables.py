"""Rounds and findings of a run as comma-separated values."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from fedsafe.report.reading import Reading

# What a spreadsheet takes for a formula, at the start of text from a file.
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")


def rounds_csv(reading: Reading) -> bytes:
    """One row for each complete round: its metrics, and the planned epsilon so far of each unit.

    Args:
        reading: The run.
    """
    metrics = list(dict.fromkeys(name for line in reading.rounds for name in line.metrics))
    units = list(dict.fromkeys(name for line in reading.rounds for name in line.spend))
    rows = (
        [
            line.round,
            *(line.metrics.get(name) for name in metrics),
            *(line.spend.get(unit) for unit in units),
            line.accepted,
        ]
        for line in reading.rounds
    )
    return _csv(["round", *metrics, *(f"epsilon_{unit}" for unit in units), "accepted"], rows)


def findings_csv(reading: Reading) -> bytes:
    """One row for each finding of every assessment.

    Args:
        reading: The run.
    """
    heads = (
        "round",
        "assessor",
        "metric",
        "where",
        "status",
        "value",
        "low",
        "high",
        "n",
        "unit",
        "data",
        "reason",
    )
    rows = []
    for line in reading.findings:
        ends = line.get("interval") or (None, None)
        where = json.dumps(line.get("where") or {}, sort_keys=True, ensure_ascii=False)
        plain = {**line, "where": where, "low": ends[0], "high": ends[1]}
        rows.append([plain.get(head) for head in heads])
    return _csv(heads, rows)


def _csv(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in (heads, *rows):
        writer.writerow([_safe(value) for value in row])
    return text.getvalue().encode("utf-8", "replace")


def _safe(value: Any) -> Any:
    if value is None or isinstance(value, int | float):
        return value
    text = str(value)
    return f"'{text}" if text.startswith(_FORMULAS) else text
