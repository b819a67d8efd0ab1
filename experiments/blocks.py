"""What the READMEs of experiments show of their results: which figures, and the text around them."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedsafe.report import formats

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
        f"{formats.epsilon(one['epsilon'])} at delta {one['delta']:g}"
        + (f", of {one['counted']}." if one.get("counted") else ".")
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
    return f"{formats.epsilon(paid['epsilon'])}: {paid['steps']} steps, noise {paid['noise']:.3g}"


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
