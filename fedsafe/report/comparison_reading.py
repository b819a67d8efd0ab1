"""What a comparison of budgets says in words: each curve, who pays, and which budget to take."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedsafe.report import formats

BUDGETLESS = {"inf": "no privacy", "clipped": "clipped, no noise"}


# Measures that are of those with the lowest figures.
_LEAST = ("worst group", "worst clients")


def series_name(series: Mapping[str, str]) -> str:
    """``clip = 0.5, rounds = 40``; "all runs" where nothing but the budget differs."""
    return ", ".join(f"{key} = {value}" for key, value in series.items()) or "all runs"


def budget_title(budget: str) -> str:
    """A budget as a reader sees it: "no privacy" for ``inf``."""
    return BUDGETLESS.get(budget, budget)


def point_name(point: Mapping[str, Any]) -> str:
    """The budget of a point, and its series where there are several."""
    series = f" ({series_name(point['series'])})" if point["series"] else ""
    return f"{budget_title(point['epsilon'])}{series}"


def ordered(budgets: Sequence[str]) -> list[str]:
    """Budgets in their order; those without one last."""
    numbers = sorted((budget for budget in budgets if budget not in BUDGETLESS), key=float)
    return [*numbers, *(budget for budget in ("clipped", "inf") if budget in budgets)]


def curve_reading(
    curve: Mapping[str, Any], name: str, points: Sequence[Mapping[str, Any]], several: bool
) -> str:
    """What one curve says, in one sentence."""
    start = f"{name}: " if several else ""
    known = [point for point in points if point["value"] is not None]
    private = [point for point in known if point["epsilon"] not in BUDGETLESS]
    if not private:
        return f"{start}no run with a budget was measured."
    least, most = private[0], private[-1]
    text = f"at epsilon {least['epsilon']} it is {value_text(curve, least['value'])}"
    if most is not least:
        text += f", at epsilon {most['epsilon']} {value_text(curve, most['value'])}"
    free = next((point for point in known if point["epsilon"] == "inf"), None)
    if free is not None:
        text += f", without privacy {value_text(curve, free['value'])}"
        text += f"; {_loss(curve, most)}"
    sentence = f"{start}{text}."
    if curve.get("key") in _LEAST:
        sentence += (
            " Who is worst is picked by these same noisy figures: the least of them lies low on average."
        )
    return sentence[:1].upper() + sentence[1:]


def _loss(curve: Mapping[str, Any], point: Mapping[str, Any]) -> str:
    """What a budget costs against no privacy, and whether chance could be all of it."""
    lost = point["lost"]
    if lost is None or lost["value"] is None:
        return "the cost was not measured in pairs"
    if lost["low"] is None:
        return (
            f"epsilon {point['epsilon']} changes it by {difference_text(curve, lost['value'])}, of one seed"
        )
    sign = -1.0 if curve["direction"] == "lower" else 1.0
    clear = lost["low"] > 0 or lost["high"] < 0
    better = "" if curve["direction"] == "none" else (" better" if sign * lost["value"] > 0 else " worse")
    if not clear:
        return f"the difference at epsilon {point['epsilon']} may be chance ({_pair(curve, lost)})"
    size = difference_text(curve, abs(lost["value"]))
    return f"epsilon {point['epsilon']} makes it {size}{better} ({_pair(curve, lost)})"


def _pair(curve: Mapping[str, Any], lost: Mapping[str, Any]) -> str:
    if curve["unit"] == "share":
        return f"95 % interval {100 * lost['low']:+.2f} to {100 * lost['high']:+.2f} points"
    return f"95 % interval {lost['low']:+.3g} to {lost['high']:+.3g}"


def value_text(curve: Mapping[str, Any], value: float | None) -> str:
    """A value of a measure, in its unit."""
    return formats.quantity(value, curve["unit"])


def difference_text(curve: Mapping[str, Any], value: float) -> str:
    """A difference of a measure: points of a share."""
    return f"{100 * value:.2f} points" if curve["unit"] == "share" else f"{value:.3g}"


def audit_reading(lines: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """What canaries prove at the largest budget, beside what is accounted for there."""
    audited, accounted = (
        {point["epsilon"]: point["value"] for point in points if point["value"] is not None}
        for points in (*lines.values(), (), ())[:2]
    )
    finite = [budget for budget in ordered(list(audited)) if budget not in BUDGETLESS]
    parts = []
    if finite:
        text = f"at epsilon {finite[-1]} canaries prove at least {audited[finite[-1]]:.3g}"
        if finite[-1] in accounted:
            text += f", and at most {accounted[finite[-1]]:.3g} is accounted for"
        parts.append(text)
    if "inf" in audited:
        parts.append(f"without privacy they prove at least {audited['inf']:.3g}")
    text = "; ".join(parts) or "no run was audited"
    return f"{text[:1].upper()}{text[1:]}."


def who_pays(curve: Mapping[str, Any], lines: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Which group loses most at the smallest budget at which losses are known."""
    losses: dict[str, dict[str, Mapping[str, Any]]] = {}
    for group, points in lines.items():
        for point in points:
            lost = point["lost"]
            if point["epsilon"] not in BUDGETLESS and lost is not None and lost["value"] is not None:
                losses.setdefault(point["epsilon"], {})[group] = lost
    whole = [budget for budget in ordered(list(losses)) if len(losses[budget]) > 1]
    if not whole:
        return "What each group loses is not known: there is no run without privacy to compare with."
    here = losses[whole[0]]
    most, least = (pick(here, key=lambda group: float(here[group]["value"])) for pick in (min, max))
    worst, best = (_loss_text(curve, here[group]) for group in (most, least))
    return f"At epsilon {whole[0]}, {most} pays most ({worst} against no privacy) and {least} least ({best}), by means."


def _loss_text(curve: Mapping[str, Any], lost: Mapping[str, Any]) -> str:
    share, value = curve["unit"] == "share", lost["value"]
    text = f"{100 * value:+.2f} points" if share else f"{value:+.3g}"
    return text if lost["low"] is None else f"{text}, {_pair(curve, lost)}"


def choice_readings(body: Mapping[str, Any]) -> list[str]:
    """What the curve of the first measure says about which budget to take, one paragraph for each series."""
    lines = []
    share = not body["curves"] or body["curves"][0]["unit"] == "share"
    for choice in body["choices"]:
        tolerance = choice["tolerance"]
        little = f"{100 * tolerance:g} point{'' if tolerance == 0.01 else 's'}" if share else f"{tolerance:g}"
        name = series_name(choice["series"])
        parts = []
        if choice["knee"] is not None:
            parts.append(
                f"the curve bends most at epsilon {choice['knee']}: beyond it, more budget buys less"
            )
        else:
            parts.append("the curve has no knee among these budgets")
        if choice["enough"] is not None:
            parts.append(
                f"epsilon {choice['enough']} is the least budget that is shown to lose no more than {little} against "
                "no privacy (each by a 95 % interval of its own, so that of several budgets one more easily passes by "
                "chance)"
            )
        elif body["settings"]["seeds"] > 1 and "inf" in body["settings"]["epsilons"]:
            parts.append(f"no budget here is shown to lose no more than {little} against no privacy")
        if choice["trend"] is not None:
            shown = "gets better" if choice["trend"]["p"] < 0.05 else "is not shown to get better"
            parts.append(
                f"over the budgets the measure {shown} (paired over seeds, one-sided p = {choice['trend']['p']:.2g})"
            )
        text = "; ".join(parts)
        start = f"{name}: {text}" if len(body["choices"]) > 1 else text
        lines.append(f"{start[:1].upper()}{start[1:]}.")
    return lines
