"""Which privacy claims count for a suite, and what speaks against one.

A claim of a small epsilon means nothing where its delta lets a mechanism give somebody away entirely: releasing each of
n units with probability delta is (0, delta), and exposes n delta of them (Dwork and Roth, 2014, section 2.3). Its delta
must therefore be below one over the number of units, and below a bound where that number is not known. A claim whose
noise comes from a known seed protects nobody.
"""

import math
from collections.abc import Mapping, Sequence

from fedsafe.findings import Finding
from fedsafe.privacy.claim import SEED_KEY


def headlines(findings: Sequence[Finding]) -> list[Finding]:
    """Of each unit that is claimed the first claim with a number; all where none has one."""
    found: dict[object, Finding] = {}
    for finding in findings:
        if finding.value is not None:
            found.setdefault(finding.where.get("unit"), finding)
    return list(found.values()) or list(findings)


def objection(finding: Finding, largest: Mapping[str, float], population: Mapping[str, int]) -> str:
    """Why a claim does not count; "" where it does.

    Args:
        finding: With the claim in its detail.
        largest: Unit to the largest delta.
        population: Unit to how many there are, where that is known.
    """
    unit, claim = str(finding.where.get("unit", "")), finding.detail.get("claim")
    if not isinstance(claim, Mapping):
        return "the finding names no claim, so its delta and randomness are not known"
    if claim.get("randomness") == SEED_KEY:
        return f"the claim for one {unit} is {SEED_KEY}"
    delta, many = claim.get("delta"), population.get(unit)
    if not isinstance(delta, float | int) or not math.isfinite(delta):
        return f"the claim for one {unit} has no delta"
    bound = largest.get(unit)
    if bound is None:
        return f"no delta is known to be small enough for one {unit}"
    if delta > bound:
        return f"the claim for one {unit} has delta {delta:g}, and only up to {bound:g} counts"
    if many is not None and delta * many >= 1.0:
        return f"the claim for one {unit} has delta {delta:g}, not below one over the {many} there are"
    return ""
