"""Numbers and names as a reader sees them.

An epsilon is rounded up, never down: the figure that a reviewer quotes must not be smaller than the bound.
"""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from typing import Any

from fedsafe.errors import ConfigError
from fedsafe.findings import Metric, find_metric

ABSENT = "\N{EN DASH}"
"""What stands where there is no number."""

TARGETS_UNIT = "target's unit"
"""The unit of metrics whose findings say in their detail which unit that is."""

MARKS: Mapping[str, str] = {
    "measured": "●",
    "insufficient": "◌",
    "not_applicable": "∅",
    "unreliable": "△",
    "failed": "✕",
    "pass": "✓",
    "fail": "✕",
    "undecided": "?",
    "unmeasured": "◌",
    "completed": "✓",
    "stopped": "■",
    "unfinished": "…",
}
"""A sign for each status, so that none is told by colour alone."""

_PEOPLE = {
    "wilson": "Wilson",
    "clopper": "Clopper",
    "pearson": "Pearson",
    "newcombe": "Newcombe",
    "delong": "DeLong",
    "bca": "BCa",
}
_ACRONYMS = {"auc": "AUC", "nll": "NLL", "ece": "ECE", "r2": "R²", "mae": "MAE", "rmse": "RMSE"}


def number(value: float | None, digits: int = 4) -> str:
    """A number with so many significant digits, without an exponent where it is short."""
    if value is None:
        return ABSENT
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e6):
        return f"{int(value):,}"
    return f"{value:.{digits}g}"


def share(value: float | None) -> str:
    """A share in [-1, 1] as a percentage with one decimal."""
    return ABSENT if value is None else f"{100 * value:.1f} %"


def epsilon(value: float | None, rounding: str = ROUND_CEILING) -> str:
    """An epsilon with four significant digits, rounded up; "none" where there is no guarantee."""
    if value is None or not math.isfinite(value):
        return "none"
    if value == 0:
        return "0"
    rounded = Context(prec=4, rounding=rounding).create_decimal(repr(float(value)))
    return f"{rounded:f}"


def delta(value: float | None) -> str:
    """A delta as it was set: ``1e-5``, not ``1e-05``."""
    return ABSENT if value is None else re.sub(r"e([+-])0+", r"e\1", f"{value:.6g}")


def quantity(value: float | None, unit: str) -> str:
    """A value in the unit of its metric."""
    if value is None:
        return ABSENT
    if unit == "share":
        return share(value)
    return epsilon(value) if unit == "epsilon" else number(value)


def interval(ends: Sequence[float | None] | None, unit: str) -> str:
    """An interval in the unit of its metric; an open end is written as unbounded."""
    if not ends:
        return ""
    low, high = ends
    if unit == "share" and low is not None and high is not None:
        return f"[{100 * low:.1f}, {100 * high:.1f}] %"
    # A lower bound of an epsilon is rounded down: it too must still be a bound.
    bound = quantity(low, unit) if unit != "epsilon" else epsilon(low, ROUND_FLOOR)
    low_text = "unbounded" if low is None else bound
    return f"[{low_text}, {'unbounded' if high is None else quantity(high, unit)}]"


def where(place: Mapping[str, Any] | None) -> str:
    """What was measured, as words: ``sex: Female`` or ``radius 0.1, attack pgd``."""
    place = dict(place or {})
    attribute, group = place.pop("attribute", None), place.pop("group", None)
    words = [] if attribute is None else [f"{attribute}: {group}" if group is not None else str(attribute)]
    if attribute is None and group is not None:
        words.append(str(group))
    for key, value in place.items():
        shown = number(value) if isinstance(value, float) else status(str(value))
        words.append(f"{status(str(key))} {shown}")
    return ", ".join(words)


def method(name: str) -> str:
    """How an interval was made, with the names of people in capitals."""
    return re.sub(r"[a-z]+", lambda word: _PEOPLE.get(word[0], word[0]), name)


def metric(name: str) -> Metric | None:
    """The registered metric, or None for one whose package is not installed here."""
    try:
        return find_metric(name)
    except ConfigError:
        return None


def title(name: str) -> str:
    """The name of a metric as words: ``performance.balanced_accuracy`` is "Balanced accuracy"."""
    words = name.rpartition(".")[2].split("_")
    text = " ".join(_ACRONYMS.get(word, word) for word in words)
    return text[:1].upper() + text[1:]


def moment(text: str) -> str:
    """An ISO 8601 moment to the minute; what is not one stays as it is."""
    try:
        return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:
        return text


def status(name: str) -> str:
    """A status as words: ``not_applicable`` is "not applicable"."""
    return name.replace("_", " ")
