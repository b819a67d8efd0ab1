"""The page of finished runs beside each other, from what ``fedsafe.runs.comparison_runs`` found alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedsafe.report import formats
from fedsafe.report.page import page

_BETTER = {"higher": "higher is better", "lower": "lower is better", "none": "no direction is better"}


def render_runs(body: Mapping[str, Any]) -> str:
    """The page of finished runs, with its style sheet inside.

    Args:
        body: What ``compare_runs`` returned.
    """
    return page(
        "comparison_runs.html.j2",
        body=body,
        claims=[_claim(claim) for claim in body["claims"]],
        measures=[_row(row, body["runs"]) for row in body["measures"]],
        groups=[_row(row, body["runs"]) for row in body["groups"]],
        reading=_reading(body),
    )


def closing_lines(body: Mapping[str, Any]) -> list[str]:
    """What the command says: the claims, the measures, and how many settings differ."""
    names = [run["name"] for run in body["runs"]]
    lines = []
    for claim in body["claims"]:
        shown = ", ".join(
            f"{name} {formats.epsilon(epsilon)}{_conditions(epsilon, delta, simulated)}"
            for name, epsilon, delta, simulated in zip(
                names,
                claim["epsilons"],
                claim["deltas"],
                [run["reproducible"] for run in body["runs"]],
                strict=True,
            )
        )
        lines.append(
            f"{claim['unit']}-level epsilons are not compared: {claim['refused']}"
            if claim["refused"]
            else f"epsilon per {claim['unit']}: {shown}"
        )
    for row in body["measures"]:
        values = ", ".join(
            f"{name} {formats.quantity(value, row['unit'])}"
            for name, value in zip(names, row["values"], strict=True)
        )
        lines.append(f"{row['title']} ({_BETTER[row['direction']]}): {values}")
    lines.append(f"{len(body['settings'])} settings differ")
    return lines


def _conditions(epsilon: float | None, delta: float, simulated: bool) -> str:
    if epsilon is None:
        return ""
    return f" at delta {formats.delta(delta)}{' (simulated: no guarantee)' if simulated else ''}"


def _claim(claim: Mapping[str, Any]) -> dict[str, Any]:
    rows = zip(claim["epsilons"], claim["deltas"], claim["equivalents"], strict=True)
    return {
        **claim,
        "rows": [
            {
                "epsilon": "no guarantee"
                if epsilon is None
                else f"{formats.epsilon(epsilon)} at delta {formats.delta(delta)}",
                "mu": formats.number(words["mu"], 3),
                "posterior": formats.ABSENT
                if words["posterior"] is None
                else f"{100 * words['posterior']:.3g} %",
                "found": formats.ABSENT
                if words["true_positives"] is None
                else f"{100 * words['true_positives']:.2g} %",
            }
            for epsilon, delta, words in rows
        ],
    }


def _row(row: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "title": f"{row['title']}{f' ({row_note})' if (row_note := row['note']) else ''}",
        "better": _BETTER[row["direction"]],
        "about": row["about"],
        "cells": [
            {"value": formats.quantity(value, row["unit"]), "interval": formats.interval(ends, row["unit"])}
            for value, ends in zip(row["values"], row["intervals"], strict=True)
        ],
        "differences": [_difference(found, row["unit"]) for found in row["differences"]],
    }


def _difference(found: Mapping[str, Any], unit: str) -> str:
    if found["value"] is None:
        return formats.ABSENT
    scale, digits = (100.0, ".2f") if unit == "share" else (1.0, ".3g")
    shown = f"{scale * found['value']:+{digits}}"
    if found["low"] is None:
        return shown
    return f"{shown} [{scale * found['low']:+{digits}}, {scale * found['high']:+{digits}}]"


def _reading(body: Mapping[str, Any]) -> str:
    """The first measure in one sentence."""
    if not body["measures"]:
        return "No measure was taken in any of the runs."
    row, names = body["measures"][0], [run["name"] for run in body["runs"]]
    said = [
        f"{name} {formats.quantity(value, row['unit'])}"
        for name, value in zip(names, row["values"], strict=True)
    ]
    return f"{row['title']} ({_BETTER[row['direction']]}): {', '.join(said)}."
