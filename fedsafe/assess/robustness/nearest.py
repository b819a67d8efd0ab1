"""How far the nearest error is: one minimal perturbation for each example serves every radius."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fedsafe.assess.robustness.attacking import distances, faults, whole_radius
from fedsafe.assess.robustness.curve import Nearest, Target
from fedsafe.findings import Finding, Scope, estimate, not_measured

_METRIC = "robustness.median_distance"
_FEWEST = 10
_QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)


def find_nearest(target: Target, name: str) -> Nearest:
    """Runs an attack on the examples that the model gets right, within the public bounds alone."""
    rows = np.flatnonzero(target.clean)
    radius = whole_radius(target.subject, "l2")
    found = target.attack(name, "l2", radius, rows)
    points, far = target.examples.x.copy(), np.where(target.clean, np.inf, 0.0)
    if isinstance(found, str):
        return Nearest(points=points, distances=far, broken=found)
    counts = faults(target.subject, target.examples.x[rows], found, "l2", radius)
    if any(counts.values()):
        named = "; ".join(f"{count} adversarials {rule}" for rule, count in counts.items() if count)
        return Nearest(points=points, distances=far, broken=named)
    errs = target.errs(found, rows) if len(rows) else np.zeros(0, bool)
    points[rows[errs]] = found[errs]
    far[rows[errs]] = distances(target.examples.x[rows[errs]], found[errs], "l2")
    return Nearest(points=points, distances=far, broken="")


def median_distance(target: Target, name: str, nearest: Nearest) -> Finding:
    """The median over the examples that the model gets right, with an interval from order statistics."""
    far = np.sort(nearest.distances[target.clean])
    n = len(far)
    subject = target.subject
    scope: Scope = {"where": {"attack": name, "norm": "l2"}, **subject.provenance}
    if nearest.broken:
        return not_measured(_METRIC, nearest.broken, status="unreliable", n=n, unit="examples", **scope)
    if n < _FEWEST:
        reason = f"the model gets {n} examples right; a median needs {_FEWEST}"
        return not_measured(_METRIC, reason, status="insufficient", n=n, unit="examples", **scope)
    low, high = _ranks(n)
    reached = int(np.isfinite(far).sum())
    if not np.isfinite(far[high]):
        reason = f"an error was found for {reached} of {n} examples only: there is no median to tell"
        return not_measured(_METRIC, reason, status="insufficient", n=n, unit="examples", **scope)
    steps, searches = target.effort.budget(name)
    return estimate(
        _METRIC,
        float(np.median(far)),
        interval=(float(far[low]), float(far[high])),
        method="order statistics",
        n=n,
        unit="examples",
        bound="upper",
        detail={
            "steps": steps,
            "searches": searches,
            "found": reached,
            **_quantiles(target, far),
        },
        **scope,
    )


def _quantiles(target: Target, far: NDArray[np.float64]) -> dict[str, Any]:
    """How far errors are, and None beyond what the attack reached; of private records nothing.

    The ends are the distances of single records.
    """
    if not target.subject.shows_records:
        return {}
    reached = far[np.isfinite(far)]
    told = []
    for share in _QUANTILES:
        # Between two records: numpy would take infinity from infinity where neither was reached.
        place = share * (len(far) - 1)
        within = place <= len(reached) - 1
        distance = float(np.interp(place, np.arange(len(reached)), reached)) if within else None
        told.append({"share": share, "distance": distance})
    return {"quantiles": told}


def _ranks(n: int) -> tuple[int, int]:
    """Positions in a sorted sample that hold the median between them with 95 % (Hahn and Meeker, 1991, 5.2)."""
    ranks = np.arange(n + 1)
    below = special.bdtr(ranks, n, 0.5)
    low = max(int(np.searchsorted(below, 0.025)) - 1, 0)
    return low, n - 1 - low
