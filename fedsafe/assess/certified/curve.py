"""The curve of certified accuracy against the radius, point by point, and the mean radius that it is the area under."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.base import Subject
from fedsafe.findings import Context, Finding, bounded_mean, clopper_pearson, estimate, not_measured

_RADIUS = "certified.mean_radius"


def certified_at(radius: float, found: NDArray[np.float64]) -> int:
    """How many examples are certified for all changes up to a radius: what is certified at R holds below it."""
    return int(np.sum(found > radius) if radius else np.sum(found >= 0))


def smoothed_point(radius: float, found: NDArray[np.float64]) -> dict[str, float]:
    """What smoothing certifies at a radius, of ``(n,)`` certified radii, with its Clopper-Pearson interval."""
    count = certified_at(radius, found)
    low, high = clopper_pearson(count, len(found))
    return {"radius": radius, "certified": count / len(found), "low": low, "high": high}


def proven_point(finding: Finding) -> dict[str, float]:
    """What a bound proves at the radius of a finding, with its interval."""
    low, high = finding.interval or (0.0, 1.0)
    return {
        "radius": float(finding.where["radius"]),
        "certified": float(finding.value or 0.0),
        "low": low,
        "high": high,
    }


def mean_radius(
    subject: Subject,
    where: dict[str, Any],
    reached: NDArray[np.float64],
    largest: float,
    curve: list[dict[str, float]],
    clean: float,
    detail: dict[str, Any] | None = None,
) -> Finding:
    """The mean of certified radii, none above the largest, with the curve that it is the area under."""
    common: Context = {
        "where": where,
        "bound": "lower",
        "detail": {"clean": clean, "curve": curve, **(detail or {})},
        "data": subject.evaluation_name,
        "released": subject.released,
    }
    n = len(reached)
    if n < 2:
        reason = "the mean of one example has no interval"
        return not_measured(_RADIUS, reason, status="insufficient", n=n, unit="examples", **common)
    interval, method = bounded_mean(reached, 0.0, largest)
    return estimate(
        _RADIUS,
        float(reached.mean()),
        interval=interval,
        method=method,
        n=n,
        unit="examples",
        **common,
    )
