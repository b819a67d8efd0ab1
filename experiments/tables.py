"""Write the tables and plots of an experiment's README from what its commands left behind.

    python experiments/tables.py adult PART=FOLDER ...    record new results, then write
    python experiments/tables.py adult                    write from ``experiments/adult/results.json`` alone

A part is what a README calls it: ``budgets=comparisons/adult`` reads what ``fedsafe compare --out comparisons/adult``
wrote, ``clients=comparisons/heart`` what ``experiments/local_training.py --out comparisons/heart`` did. What is shown
is kept in ``results.json``, and stands in the README between ``<!-- begin PART -->`` and ``<!-- end PART -->``.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, Context
from pathlib import Path
from typing import Any

from blocks import SHOWN, WAYS, block
from plots import budgets_plot, clients_plot

ROOT = Path(__file__).resolve().parent
_BOUNDS = ("epsilon", "best")


def main(arguments: Sequence[str]) -> int:
    """Record results if folders are given, and write the README; 2 where a request makes no sense."""
    if not arguments or arguments[0] not in SHOWN:
        sys.stderr.write(f"name an experiment: {', '.join(SHOWN)}\n")
        return 2
    name, *given = arguments
    path = ROOT / name / "results.json"
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for text in given:
        part, equals, folder = text.partition("=")
        if not equals or part not in SHOWN[name]:
            sys.stderr.write(f"{text} is not PART=FOLDER with a part of {name}: {', '.join(SHOWN[name])}\n")
            return 2
        try:
            kept[part] = recorded(Path(folder), SHOWN[name][part])
        except OSError as error:
            sys.stderr.write(f"{error.filename} cannot be read: {error.strerror}; run the command first\n")
            return 2
    path.write_text(json.dumps(kept, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    readme = ROOT / name / "README.md"
    text = readme.read_text(encoding="utf-8")
    for part, content in kept.items():
        draw(name, part, content)
        text = with_block(text, part, block(name, part, content))
    readme.write_text(text, encoding="utf-8")
    return 0


def recorded(folder: Path, shown: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a folder: the figures that are shown, to six digits, and under which claims."""
    if "holder" in shown:
        body = json.loads((folder / "local.json").read_text(encoding="utf-8"))
        for row in body["rows"]:
            for figures in (*row["ways"].values(), *row["differences"].values()):
                for figure in figures.values():
                    del figure["seeds"]
        return _rounded(body)
    body = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    settings = ("epsilons", "seeds", "units", "reproducible", "rounds", "clients", "evaluation", "parameters")
    claim = ("unit", "delta", "adjacency", "adversary")
    return _rounded(
        {
            "settings": {key: body["settings"][key] for key in settings},
            "axis": [{key: one[key] for key in claim} for one in body["axis"]],
            "curves": [
                _curve(curve) for key in shown["measures"] for curve in body["curves"] if curve["key"] == key
            ],
            "groups": [_curve(curve) for curve in body["groups"] if curve["note"] in shown.get("groups", ())],
            "choices": body["choices"],
            "publishing": body["publishing"],
        }
    )


def _curve(curve: Mapping[str, Any]) -> dict[str, Any]:
    def inside(end: float | None) -> float | None:
        # Student's interval knows nothing of a share's ends.
        if end is None or curve["low"] is None or curve["high"] is None:
            return end
        return min(max(end, curve["low"]), curve["high"])

    points = [
        {
            "epsilon": point["epsilon"],
            "value": point["value"],
            "low": inside(point["low"]),
            "high": inside(point["high"]),
            "lost": point["lost"] and {key: point["lost"][key] for key in ("value", "low", "high")},
        }
        for point in curve["points"]
    ]
    return {key: curve[key] for key in ("key", "title", "unit", "direction", "note")} | {"points": points}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {
            # A bound that is rounded must still be one.
            key: _rounded_up(inner) if key in _BOUNDS and isinstance(inner, float) else _rounded(inner)
            for key, inner in value.items()
        }
    return [_rounded(inner) for inner in value] if isinstance(value, list) else value


def _rounded_up(value: float) -> float:
    return float(Context(prec=6, rounding=ROUND_CEILING).create_decimal(repr(value)))


def with_block(text: str, part: str, content: str) -> str:
    """The text with what stands between a part's markers replaced.

    Raises:
        ValueError: The markers are not there.
    """
    begin, end = f"<!-- begin {part} -->", f"<!-- end {part} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the README has no {begin} and {end}")
    return f"{before}{begin}\n\n{content.strip()}\n\n{end}{after}"


def draw(name: str, part: str, content: Mapping[str, Any]) -> None:
    """The PNGs of a part, beside the README."""
    shown, folder = SHOWN[name][part], ROOT / name
    if "holder" in shown:
        series = [
            (
                title,
                {
                    way: [{"epsilon": row["epsilon"], **row["ways"][way][scope]} for row in content["rows"]]
                    for way in WAYS
                },
            )
            for scope, title in (
                ("all", f"accuracy over all {shown['unit']}, %; higher is better"),
                ("worst", f"accuracy at the worst {shown['holder']}, %; higher is better"),
            )
        ]
        budgets_plot(folder / f"{part}.png", series, "epsilon per record; lower protects more")
        row = next(row for row in content["rows"] if row["epsilon"] == shown["budgets"][0])
        clients_plot(
            folder / f"{part}-each.png",
            f"accuracy at epsilon {row['epsilon']}, %; higher is better",
            content["clients"],
            {way: row["ways"][way] for way in WAYS},
        )
        return
    units = " and per ".join(content["settings"]["units"])
    panels = []
    for wanted in shown["plots"]:
        if isinstance(wanted, str):
            attribute = wanted.removeprefix("groups ")
            members = [curve for curve in content["groups"] if curve["note"] == attribute]
            lines = {curve["title"]: curve["points"] for curve in members}
            panels.append((f"accuracy by {attribute}, %; higher is better", lines))
        else:
            members = [curve for curve in content["curves"] if curve["key"] in wanted]
            better = "lower" if members[0]["direction"] == "lower" else "higher"
            title = members[0]["title"].lower() if len(members) == 1 else "accuracy"
            panels.append(
                (
                    f"{title}, %; {better} is better",
                    {curve["title"].lower(): curve["points"] for curve in members},
                )
            )
    budgets_plot(folder / f"{part}.png", panels, f"epsilon per {units}; lower protects more")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
