"""The summary of a comparison, made of invented numbers, for the tests of the live page."""

import json
from pathlib import Path
from typing import Any

EPSILONS = ("1", "4", "inf")


def _points(values: tuple[float | None, ...], series: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "series": series,
            "epsilon": epsilon,
            "value": value,
            "low": None if value is None else value - 0.02,
            "high": None if value is None else value + 0.02,
            "n": 3,
            "seeds": [value] * 3,
            "lost": {"value": -0.01, "low": -0.02, "high": 0.0, "n": 3},
        }
        for epsilon, value in zip(EPSILONS, values, strict=True)
    ]


def _curve(
    key: str, title: str, direction: str, values: tuple[float | None, ...], note: str = ""
) -> dict[str, Any]:
    about = {"key": key, "title": title, "about": f"About {title}.", "note": note, "unit": "share"}
    return {**about, "direction": direction, "low": 0.0, "high": 1.0, "points": _points(values, {})}


def body(**changes: Any) -> dict[str, Any]:
    """The content of ``comparison.json``."""
    claim = {
        "unit": "record",
        "delta": 1e-5,
        "adjacency": "zero-out (one record replaced by nothing)",
        "adversary": "the server",
        "release": "every update",
        "not_covered": ["how many records a client holds"],
    }
    settings = {
        "epsilons": list(EPSILONS),
        "seeds": 3,
        "units": ["record"],
        "series": [{}],
        "reproducible": False,
    }
    return {
        "schema": "fedsafe.comparison/1",
        "created": "2026-01-02T03:04:05+00:00",
        "task": "adult",
        "runs": 9,
        "settings": settings,
        "axis": [claim],
        "curves": [
            _curve("accuracy", "Accuracy", "higher", (0.70, 0.80, 0.85)),
            _curve("ece", "Calibration error", "lower", (0.05, 0.10, 0.20)),
            _curve("stability", "Stability", "higher", (None, 0.5, 0.4)),
            _curve("spread", "Spread", "none", (0.1, 0.2, 0.3)),
        ],
        "groups": [
            _curve("group sex Female", "Female", "higher", (0.8, 0.85, 0.9), "sex"),
            _curve("group sex Male", "Male", "higher", (0.6, 0.75, 0.8), "sex"),
        ],
        **changes,
    }


def build(folder: Path, **changes: Any) -> Path:
    """Writes a folder of a comparison and returns its path."""
    folder.mkdir(parents=True)
    (folder / "comparison.json").write_text(json.dumps(body(**changes)))
    (folder / "comparison.html").write_text("<p>the whole page</p>")
    (folder / "runs.csv").write_text("budget,accuracy\n1,0.7\n")
    (folder / "runs.parquet").write_bytes(b"PAR1" + bytes(1000) + b"PAR1")
    return folder
