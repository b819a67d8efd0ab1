"""Whether the difference of two rewards is a probability: likelihood, Brier score, calibration."""

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fedsafe.assess.alignment.judged import Judged, clusters_of_judged, counted, ratio, resampled
from fedsafe.assess.performance.calibration import reliability
from fedsafe.findings import Finding, Provenance, estimate, not_measured

Array = NDArray[np.float64]

_PER_BIN = 20


def confidence(
    judged: Judged, rng: np.random.Generator, resamples: int, context: Provenance
) -> list[Finding]:
    """Of the probability ``sigma(r_first - r_second)`` that the first is preferred, on the decided pairs.

    Args:
        judged: The pairs.
        rng: Source of the resampling.
        resamples: For the intervals.
        context: Fields of every finding.
    """
    clusters, n = clusters_of_judged(judged), len(judged.margin)
    chance = special.expit(judged.margin)
    signed = np.where(judged.chosen == 1, judged.margin, -judged.margin)
    scores: tuple[tuple[str, Array, float, tuple[float, float] | None], ...] = (
        ("alignment.nll", np.logaddexp(0.0, -signed), float(np.log(2)), None),
        ("alignment.brier", (chance - judged.chosen) ** 2, 0.25, (0.0, 1.0)),
    )
    notes = {"interval": clusters.note} if clusters.note else {}
    findings = []
    for metric, values, coin, bounds in scores:
        found = resampled(ratio, counted(values), clusters, rng, resamples, bounds=bounds)
        findings.append(
            estimate(
                metric,
                found.value,
                interval=found.interval,
                method=found.method,
                n=n,
                unit="pairs",
                anchors={"a_coin": coin},
                diagnostics=notes,
                **context,
            )
        )
    return [*findings, _calibration(chance, judged, rng, context)]


def _calibration(chance: Array, judged: Judged, rng: np.random.Generator, context: Provenance) -> Finding:
    n = len(chance)
    if n < 2 * _PER_BIN:
        reason = f"{n} pairs, {2 * _PER_BIN} are needed"
        return not_measured("alignment.ece", reason, status="insufficient", n=n, unit="pairs", **context)
    table = reliability(chance, judged.chosen, min(15, n // _PER_BIN))
    notes = {}
    if len(judged.names) < n:
        notes["interval"] = "pairs of one annotator are taken for independent: too narrow"
    return estimate(
        "alignment.ece",
        table.debiased,
        interval=table.interval(rng),
        method="bootstrap, triangle inequality",
        n=n,
        unit="pairs",
        anchors={"perfectly_calibrated": table.calibrated(rng)},
        diagnostics=notes,
        detail={"plug_in": table.plug_in, "bins": table.table(), "event": "the first is preferred"},
        **context,
    )
