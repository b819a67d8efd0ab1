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
from pathlib import Path
from typing import Any

from plots import budgets_plot, clients_plot

ROOT = Path(__file__).resolve().parent

# Of each part of each experiment: what is shown. The first measure is the one whose cost is told.
SHOWN: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "adult": {
        "budgets": {
            "measures": ["accuracy", "worst group", "worst clients", "attacked", "gap sex"],
            "groups": ["sex", "age", "race"],
            "plots": [["accuracy", "worst group", "worst clients"], "groups age", "groups sex"],
        }
    },
    "mnist-writers": {
        "client": {
            "measures": ["accuracy", "worst clients", "attacked", "ece"],
            "plots": [["accuracy", "worst clients"], ["attacked"]],
        },
        "record": {
            "measures": ["accuracy", "worst clients", "attacked", "ece"],
            "plots": [["accuracy", "worst clients"], ["attacked"]],
        },
    },
    "heart": {"clients": {"holder": "hospital", "unit": "patients", "budgets": ["1", "inf"]}},
    "acs-states": {
        "budgets": {
            "measures": ["accuracy", "worst clients", "worst group", "gap sex", "odds sex"],
            "groups": ["age", "sex"],
            "plots": [["accuracy", "worst clients", "worst group"], "groups age"],
        },
        "clients": {"holder": "state", "unit": "persons", "budgets": ["0.1", "1"]},
    },
    "digits": {
        "budgets": {
            "measures": ["accuracy", "ece"],
            "plots": [["accuracy"], ["ece"]],
        }
    },
}
WAYS = ("alone", "federated", "fine-tuned")


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
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list) else value


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


def block(name: str, part: str, content: Mapping[str, Any]) -> str:
    """Everything between a part's markers."""
    shown = SHOWN[name][part]
    return _clients_block(part, content, shown) if "holder" in shown else _budgets_block(part, content, shown)


def _budgets_block(part: str, content: Mapping[str, Any], shown: Mapping[str, Any]) -> str:
    curves = content["curves"]
    heads = ["budget", f"{curves[0]['title'].lower()}, %", "against no privacy, points"]
    heads += [f"{curve['title'].lower()}, %" for curve in curves[1:]]
    rows = []
    for budget in content["settings"]["epsilons"]:
        first = _at(curves[0], budget)
        rows.append(
            [
                _budget(budget),
                share(first),
                "" if first["lost"] is None else points(first["lost"]),
                *(share(_at(curve, budget)) for curve in curves[1:]),
            ]
        )
    parts = [_table(heads, rows), f"![Measures of the table against the budget]({part}.png)"]
    for attribute in shown.get("groups", ()):
        members = [curve for curve in content["groups"] if curve["note"] == attribute]
        budgets = content["settings"]["epsilons"]
        least = budgets[0]
        heads = [attribute, *(_budget(budget) for budget in budgets), f"loses at {least}, points"]
        rows = [
            [
                curve["title"],
                *(share(_at(curve, budget), interval=False) for budget in budgets),
                points(_at(curve, least)["lost"]),
            ]
            for curve in members
        ]
        parts.append(f"Accuracy by {attribute}, %:\n\n{_table(heads, rows)}")
    parts.append(_about(content))
    return "\n\n".join(parts)


def _about(content: Mapping[str, Any]) -> str:
    settings = content["settings"]
    claims = "; ".join(
        f"epsilon per {claim['unit']} at delta {claim['delta']:g}, {claim['adjacency'].partition(' (')[0]} adjacency, "
        f"against {claim['adversary']}"
        for claim in content["axis"]
    )
    said = [
        f"Budgets: {claims}.",
        f"{settings['seeds']} seeds for each; 95 % intervals over seeds (Student's t); differences in pairs.",
    ]
    said += [
        f"Publishing all {one['private']} runs with a guarantee would cost one {one['unit']} epsilon "
        f"{one['epsilon']:.1f} at delta {one['delta']:g}."
        for one in content["publishing"]
        if one["epsilon"] is not None
    ]
    if settings["reproducible"]:
        said.append("Simulated: the noise follows from the seed, so these very runs guarantee nothing.")
    return " ".join(said)


def _clients_block(part: str, content: Mapping[str, Any], shown: Mapping[str, Any]) -> str:
    holder, unit = shown["holder"], shown["unit"]
    pairs = ("federated - alone", "fine-tuned - federated")
    parts = []
    for scope, title in (("all", f"All {unit}"), ("worst", f"The worst {holder} (whichever it is in a run)")):
        rows = [
            [
                _budget(row["epsilon"]),
                *(share(row["ways"][way][scope]) for way in WAYS),
                *(points(row["differences"][pair][scope]) for pair in pairs),
            ]
            for row in content["rows"]
        ]
        heads = ["budget", *(f"{way}, %" for way in WAYS), *(f"{pair}, points" for pair in pairs)]
        parts.append(f"{title}:\n\n{_table(heads, rows)}")
    parts.append(f"![Accuracy against the budget, alone, federated and fine-tuned]({part}.png)")
    for budget in shown["budgets"]:
        row = next(row for row in content["rows"] if row["epsilon"] == budget)
        heads = [
            holder,
            f"{unit} (training, test)",
            "always its majority, %",
            *(f"{way}, %" for way in WAYS),
            f"{pairs[0]}, points",
        ]
        rows = [
            [
                client,
                f"{trained}, {tested}",
                share(row["ways"]["majority"][client], interval=False),
                *(share(row["ways"][way][client]) for way in WAYS),
                points(row["differences"][pairs[0]][client]),
            ]
            for client, trained, tested in zip(
                content["clients"], content["records"], content["evaluation_records"], strict=True
            )
        ]
        at = "without privacy" if budget == "inf" else f"at epsilon {budget}"
        parts.append(f"Each {holder}, {at}:\n\n{_table(heads, rows)}")
    parts.append(f"![Each {holder}, at epsilon {shown['budgets'][0]}]({part}-each.png)")
    rows = [
        [row["epsilon"], *(_cost(row["costs"][way]) for way in WAYS)]
        for row in content["rows"]
        if row["epsilon"] != "inf"
    ]
    delta = content["rows"][0]["costs"]["alone"]["delta"]
    parts.append(f"What each way costs one record (at delta {delta:g}):\n\n{_table(['budget', *WAYS], rows)}")
    parts.append(
        f"{content['seeds']} seeds. Intervals are 95 %, over seeds and over test {unit}; differences are of the same "
        f"{unit}, in points. Test records: {content['evaluation']}."
    )
    return "\n\n".join(parts)


def _cost(paid: Mapping[str, Any]) -> str:
    return f"{paid['epsilon']:.3f}: {paid['steps']} steps, noise {paid['noise']:.3g}"


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


def share(figure: Mapping[str, Any], *, interval: bool = True) -> str:
    """A share in percent, with its interval."""
    if figure["value"] is None:
        return "not measured"
    ends = (
        f" [{100 * figure['low']:.1f}, {100 * figure['high']:.1f}]"
        if interval and figure["low"] is not None
        else ""
    )
    return f"{100 * figure['value']:.1f}{ends}"


def points(figure: Mapping[str, Any] | None) -> str:
    """A difference in points, with its interval."""
    if figure is None or figure["value"] is None:
        return ""
    ends = "" if figure["low"] is None else f" [{100 * figure['low']:+z.1f}, {100 * figure['high']:+z.1f}]"
    return f"{100 * figure['value']:+z.1f}{ends}"


def _at(curve: Mapping[str, Any], budget: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(point for point in curve["points"] if point["epsilon"] == budget)
    return found


def _budget(name: str) -> str:
    return "no privacy" if name == "inf" else name


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
