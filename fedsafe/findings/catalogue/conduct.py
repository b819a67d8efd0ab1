"""How a model treats people: groups, and principles of conduct."""

from fedsafe.findings.metric import Metric, share

FAIRNESS = (
    share("fairness.selection_rate", "none", "Share of the group that is predicted positive."),
    share("fairness.true_positive_rate", "higher", "Share of the group's positives predicted positive."),
    share("fairness.false_positive_rate", "lower", "Share of the group's negatives predicted positive."),
    share("fairness.accuracy", "higher", "Share of the group whose class is predicted."),
    share(
        "fairness.demographic_parity_difference",
        "lower",
        "Largest difference between two groups in selection rate.",
        "Calders, Kamiran and Pechenizkiy 2009",
    ),
    share(
        "fairness.equalised_odds_difference",
        "lower",
        "Largest difference between two groups in true or false positive rate.",
        "Hardt, Price and Srebro 2016",
    ),
    share(
        "fairness.equal_opportunity_difference",
        "lower",
        "Largest difference between two groups in true positive rate.",
        "Hardt, Price and Srebro 2016",
    ),
    share("fairness.accuracy_difference", "lower", "Largest difference between two groups in accuracy."),
    Metric(
        name="fairness.absolute_error",
        unit="target's unit",
        low=0.0,
        direction="lower",
        description="Mean absolute error on the group, in the target's own unit.",
    ),
    Metric(
        name="fairness.absolute_error_difference",
        unit="target's unit",
        low=0.0,
        direction="lower",
        description="Largest difference between two groups in mean absolute error.",
    ),
)

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
