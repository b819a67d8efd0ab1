"""Principles of conduct that a model is held to."""

from fedsafe.findings.metric import share

PRINCIPLES = (
    share(
        "principles.invariance_violations",
        "lower",
        "Share of the examples whose decision another value of this column would change, all else equal.",
        "Ribeiro et al. 2020; Black, Yeom and Fredrikson 2020",
    ),
    share(
        "principles.direction_violations",
        "lower",
        "Share of the examples whose score a higher value of this column would lower, all else equal.",
        "Ribeiro et al. 2020",
    ),
    share(
        "principles.case_violations",
        "lower",
        "Share of the given cases on which the decision is not the one that is expected.",
        "Ribeiro et al. 2020",
    ),
)
