"""What a comparison says of a search for settings: what was chosen for each budget, and what the choice costs."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from fedsafe.report import formats
from fedsafe.report.byzantine_plots import STYLES
from fedsafe.report.comparison_panels import Plot
from fedsafe.report.comparison_reading import BUDGETLESS, budget_title, ordered, point_name
from fedsafe.report.drawing import LEGEND, as_svg, new_figure, short
from fedsafe.report.page import page

OWNERS_PAGE = "search.html"
"""The page of the trials, where these are their owner's."""


def tuning_section(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the page of a comparison shows of its search; None where there was none.

    Args:
        body: The content of ``comparison.json``.
    """
    found = body.get("tuning")
    if found is None:
        return None
    return {
        "settings": [_setting(axis) for axis in found["axes"]],
        "names": [axis["key"] for axis in found["axes"]],
        "how": how_it_was_paid(found),
        "headlines": headlines(found),
        "rows": [_row(found, choice) for choice in found["choices"]],
        "units": [cost["unit"] for cost in found["choices"][0]["units"]],
        "metric": formats.title(f"performance.{found['metric']}"),
        "scored": _scored(found),
        "publishing": [_publishing(line) for line in found["publishing"]],
        "earlier": found["earlier"],
        "plots": None if found["rows"] is None else search_plots(found, found["rows"]),
    }


def render_search(body: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> str:
    """The page of all trials of a search, for their owner.

    Args:
        body: The content of ``comparison.json``.
        trials: As `fedsafe.runs.tuning_result.plain_trials` gives them.
    """
    found = body["tuning"]
    return page("search.html.j2", body=body, trials=len(trials), plots=search_plots(found, trials))


def headlines(found: Mapping[str, Any]) -> list[str]:
    """What each budget costs with the search for its settings, in one sentence each."""
    lines = []
    for choice in found["choices"]:
        costs = [cost for cost in choice["units"] if cost["alone"] is not None]
        if not costs:
            continue
        asked = choice["epsilon"]
        parts = [
            f"no figure per {cost['unit']} ({cost['reason']})"
            if cost["search"] is None
            else f"{formats.epsilon(cost['search'])} per {cost['unit']}"
            for cost in costs
        ]
        text = (
            f"Budget {point_name(choice)}: with the search for its settings, epsilon is {' and '.join(parts)}"
        )
        over = asked not in BUDGETLESS and any(
            cost["search"] is None or cost["search"] > float(asked) * (1.0 + 1e-9) for cost in costs
        )
        lines.append(
            f"{text}, more than the {asked} that was asked for; of the chosen run alone it is "
            f"{' and '.join(f'''{formats.epsilon(cost['alone'])} per {cost['unit']}''' for cost in costs)}."
            if over
            else f"{text}."
        )
    return lines


def how_it_was_paid(found: Mapping[str, Any]) -> list[str]:
    """What the search did with private records, and what its figure rests on."""
    if found["on"] == "public":
        text = (
            f"The {found['trials']} trials of each budget trained on public records and were scored on others: "
            "no private record was touched, so that the search costs nothing, and the figures with it are those of one "
            "run. What is best on these records need not be best on the private ones."
        )
        return [text]
    lines = ["Trials trained on the private records, each with noise for its budget: the search is not free."]
    private = [
        choice for choice in found["choices"] if any(cost["alone"] is not None for cost in choice["units"])
    ]
    if any(choice["law"] == "poisson" for choice in private):
        lines.append(
            f"How many trials a budget had was drawn at random (Poisson, {found['trials']} on average). This number, "
            "the settings that were tried and the scores that were not best stay secret, in the folder private. Of "
            "what leaves, the chosen settings with their score and one run with them, the cost is as in the table "
            "(Papernot and Steinke, 2022). Whoever publishes the trials pays for each of them as a release of its own."
        )
    if any(choice["law"] == "fixed" and choice["searched"] for choice in private):
        lines.append(
            f"Some of these settings change the plan, and with it what a run releases. So all {found['trials']} trials "
            "are paid for, one after the other, and one run of every plan that could have been chosen: all of them may "
            "be published."
        )
    lines += _whose(private)
    if len(private) < len(found["choices"]):
        lines.append("Trials without privacy have no guarantee, nor has what was chosen by them.")
    return lines


def _whose(choices: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whom figures with a search are for, where the trials and the run that follows cut the records differently."""
    found = {
        f"Trials have the first seed's partition: for a run of another seed, the epsilon per {cost['unit']} with the "
        f"search is of {cost['counted']}."
        for choice in choices
        for cost in choice["units"]
        if cost["search"] is not None and cost.get("counted")
    }
    return sorted(found)


def _scored(found: Mapping[str, Any]) -> str:
    if found["scored_on"] is None:
        return "There was no trial."
    text = (
        f"Scored on {found['scored_records']:,} records: {found['scored_on']}. Every other figure of this page comes "
        f"from {found['judged_on']}."
    )
    if "(private)" in found["scored_on"]:
        text += (
            " The people of the records for scoring took no part in training; the choice by their records is a release "
            "about them without noise, which no figure here covers."
        )
    return text


def _setting(axis: Mapping[str, Any]) -> str:
    if axis["values"] is not None:
        return f"{axis['key']} of {', '.join(axis['values'])}"
    scale = ", on a logarithmic scale" if axis["log"] else ""
    return f"{axis['key']} from {axis['low']:g} to {axis['high']:g}{scale}"


def _row(found: Mapping[str, Any], choice: Mapping[str, Any]) -> dict[str, Any]:
    unit = "share" if found["metric"] == "accuracy" else ""
    return {
        "name": point_name(choice),
        "values": [
            choice["values"].get(axis["key"])
            or ("as configured" if axis["key"] in choice["searched"] else "does nothing")
            for axis in found["axes"]
        ],
        "score": formats.quantity(choice["score"], unit),
        "costs": [
            {
                "unit": cost["unit"],
                "alone": _epsilon(cost["alone"]),
                "search": _epsilon(cost["search"]),
                "about": cost["reason"] or cost["accountant"] or "",
                "delta": formats.delta(cost["delta"]),
            }
            for cost in choice["units"]
        ],
    }


def _epsilon(value: float | None) -> str:
    return "no guarantee" if value is None else formats.epsilon(value)


def _publishing(line: Mapping[str, Any]) -> str:
    if line["epsilon"] is None:
        return f"Per {line['unit']} there is no figure for all of it: {line['reason']}."
    text = (
        f"Publishing the chosen settings of every budget with a guarantee and all runs with them costs epsilon "
        f"{formats.epsilon(line['epsilon'])} per {line['unit']} in all, at delta {formats.delta(line['delta'])} "
        f"({line['accountant']}); what has no guarantee, published beside it, leaves none."
    )
    return f"{text} Counted is {line['counted']}." if line.get("counted") else text


def tuning_lines(body: Mapping[str, Any]) -> Iterator[str]:
    """What the command ends with."""
    found = body.get("tuning")
    if found is None:
        return
    for choice in found["choices"]:
        chosen = ", ".join(f"{key} = {value}" for key, value in choice["values"].items())
        yield f"tuned, {point_name(choice)}: {chosen or 'as configured'}"
    yield from headlines(found)
    yield from _whose(found["choices"])
    for line in found["publishing"]:
        yield _publishing(line)
    if found["on"] != "public" and "(private)" in str(found["scored_on"]):
        yield "The records for scoring are private: the choice by them is a release that no figure covers."


def search_plots(found: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """Each trial's score against each setting: one plot for a setting, one kind of marker for a budget."""
    if not trials:
        return []
    return [_search_plot(found, axis, trials) for axis in found["axes"]]


def _search_plot(
    found: Mapping[str, Any], axis: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]
) -> Plot:
    percent = found["metric"] == "accuracy"
    scale = 100.0 if percent else 1.0
    label = formats.title(f"performance.{found['metric']}")
    figure, axes = new_figure(f"{label}{', %' if percent else ''}; higher is better", height=2.9)
    key, values = axis["key"], axis["values"]
    here = [trial for trial in trials if trial[key] is not None and trial["score"] is not None]
    budgets = ordered(list(dict.fromkeys(str(trial["budget"]) for trial in here)))
    styles = STYLES * (1 + len(budgets) // len(STYLES))
    for number, (budget, (colour, _, marker)) in enumerate(zip(budgets, styles, strict=False)):
        mine = [trial for trial in here if trial["budget"] == budget]
        shift = 0.09 * (number - (len(budgets) - 1) / 2) if values else 0.0
        for trial in mine:
            x = values.index(trial[key]) + shift if values else float(trial[key])
            axes.plot(
                [x],
                [scale * trial["score"]],
                color=colour,
                marker=marker,
                ls="",
                ms=9 if trial["chosen"] else 5,
                mfc=colour if trial["chosen"] else "none",
                label=short(budget_title(budget)) if trial is mine[0] else None,
            )
    if values:
        axes.set_xticks(range(len(values)), values)
    elif axis["log"]:
        axes.set_xscale("log")
    axes.set_xlabel(key, parse_math=False)
    axes.margins(0.08)
    if budgets:
        for text in axes.legend(**{**LEGEND, "ncols": 3}).get_texts():
            text.set_parse_math(False)
    return Plot(
        title=f"{label} of each trial against {key}",
        about="Large and filled: the trial that was chosen. Each trial is one run with noise of its own.",
        svg=as_svg(figure, f"search-{key}"),
        reading=_reading(found, axis, here, budgets),
    )


def _reading(
    found: Mapping[str, Any],
    axis: Mapping[str, Any],
    trials: Sequence[Mapping[str, Any]],
    budgets: Sequence[str],
) -> str:
    """One sentence: what was best for each budget, and how far from the middle."""
    unit = "share" if found["metric"] == "accuracy" else ""
    parts = []
    for budget in budgets:
        mine = [trial for trial in trials if trial["budget"] == budget]
        best = next((trial for trial in mine if trial["chosen"]), None)
        if best is None:
            continue
        middle = median(float(trial["score"]) for trial in mine)
        name = budget_title(budget) if budget in BUDGETLESS else f"epsilon {budget}"
        parts.append(
            f"for {name}, {best[axis['key']]} was best of {len(mine)} with {formats.quantity(best['score'], unit)} "
            f"where the middle one has {formats.quantity(middle, unit)}"
        )
    text = "; ".join(parts) or "there was no trial with a score"
    return f"{text[:1].upper()}{text[1:]}."
