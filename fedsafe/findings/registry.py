"""The metrics that a finding may name, each with its unit, range, direction and source."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from fedsafe.errors import ConfigError

Direction = Literal["higher", "lower", "none"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What a name in a finding or a requirement means.

    Attributes:
        name: Dotted name, the assessor first.
        unit: Unit of the value.
        low: Smallest possible value, or None.
        high: Largest possible value, or None.
        direction: Which way is better: "higher", "lower" or "none".
        description: One sentence for a report.
        citation: Author and year of the definition, or "".
    """

    name: str
    unit: str
    low: float | None = None
    high: float | None = None
    direction: Direction
    description: str
    citation: str = ""

    def __post_init__(self) -> None:
        if not self.name or self.direction not in ("higher", "lower", "none"):
            raise ConfigError(
                f"metric {self.name!r} has direction {self.direction!r}; it needs a name, and one of "
                "'higher', 'lower', 'none'"
            )


def _share(name: str, direction: Direction, description: str, citation: str = "") -> Metric:
    return Metric(
        name=name,
        unit="share",
        low=0.0,
        high=1.0,
        direction=direction,
        description=description,
        citation=citation,
    )


_PERFORMANCE = (
    _share("performance.accuracy", "higher", "Share of the examples whose class is predicted."),
    _share("performance.balanced_accuracy", "higher", "Mean over the classes of the recall of each."),
    _share(
        "performance.auc",
        "higher",
        "Probability that a positive example scores above a negative one, ties counted half.",
        "DeLong, DeLong and Clarke-Pearson 1988",
    ),
    Metric(
        name="performance.nll",
        unit="nats",
        low=0.0,
        direction="lower",
        description="Mean negative log-likelihood of the true class.",
    ),
    Metric(
        name="performance.brier",
        unit="squared probability",
        low=0.0,
        high=2.0,
        direction="lower",
        description="Mean squared error of the probability of class 1, or summed over several classes.",
        citation="Brier 1950",
    ),
    _share(
        "performance.ece",
        "lower",
        "Expected calibration error over bins of equal mass, less the part that a finite sample adds.",
        "Naeini, Cooper and Hauskrecht 2015; Kumar, Liang and Ma 2019",
    ),
    _share(
        "performance.worst_decile_accuracy",
        "higher",
        "Mean accuracy over the worst tenth of the clients' evaluation shards.",
    ),
    Metric(
        name="performance.accuracy_spread",
        unit="share",
        low=0.0,
        high=1.0,
        direction="lower",
        description="Standard deviation of accuracy over the clients' evaluation shards.",
    ),
)

_FAIRNESS = (
    _share("fairness.selection_rate", "none", "Share of the group that is predicted positive."),
    _share("fairness.true_positive_rate", "higher", "Share of the group's positives predicted positive."),
    _share("fairness.false_positive_rate", "lower", "Share of the group's negatives predicted positive."),
    _share("fairness.accuracy", "higher", "Share of the group whose class is predicted."),
    _share(
        "fairness.demographic_parity_difference",
        "lower",
        "Largest difference between two groups in selection rate.",
        "Calders, Kamiran and Pechenizkiy 2009",
    ),
    _share(
        "fairness.equalised_odds_difference",
        "lower",
        "Largest difference between two groups in true or false positive rate.",
        "Hardt, Price and Srebro 2016",
    ),
    _share(
        "fairness.equal_opportunity_difference",
        "lower",
        "Largest difference between two groups in true positive rate.",
        "Hardt, Price and Srebro 2016",
    ),
    _share("fairness.accuracy_difference", "lower", "Largest difference between two groups in accuracy."),
)

_ROBUSTNESS = (
    _share(
        "robustness.noise_accuracy",
        "higher",
        "Accuracy with Gaussian noise on the perturbable features, clipped to their public bounds.",
        "Hendrycks and Dietterich 2019",
    ),
    _share(
        "robustness.attacked_accuracy",
        "higher",
        "Accuracy under this attack; a stronger attack can only lower it.",
        "Madry et al. 2018",
    ),
)

_INTERPRETABILITY = (
    Metric(
        name="interpretability.completeness_gap",
        unit="relative error",
        low=0.0,
        direction="lower",
        description="Error of the attributions' sum as the output's change, relative to that change.",
        citation="Sundararajan, Taly and Yan 2017",
    ),
    Metric(
        name="interpretability.infidelity",
        unit="squared output",
        low=0.0,
        direction="lower",
        description="Mean squared error with which the attribution predicts the output's change under noise.",
        citation="Yeh et al. 2019",
    ),
    Metric(
        name="interpretability.infidelity_normalised",
        unit="share of variance",
        low=0.0,
        direction="lower",
        description="Infidelity at the attribution's best scale, over the infidelity of attributing nothing.",
        citation="Yeh et al. 2019",
    ),
    _share(
        "interpretability.top_feature_share",
        "none",
        "Share of the mean absolute attribution that the strongest column holds.",
        "Sundararajan, Taly and Yan 2017",
    ),
)

_PRIVACY = (
    Metric(
        name="privacy.epsilon",
        unit="epsilon",
        low=0.0,
        direction="lower",
        description="Accounted epsilon of the run's claim, at the claim's delta.",
        citation="Dwork and Roth 2014",
    ),
    Metric(
        name="privacy.group_epsilon",
        unit="epsilon",
        low=0.0,
        direction="lower",
        description="Accounted epsilon for a person who holds two records.",
        citation="Dwork and Roth 2014",
    ),
)

_ASSESS = (
    Metric(
        name="assess.completed",
        unit="yes or no",
        low=0.0,
        high=1.0,
        direction="higher",
        description="Whether an assessor ran to its end; only a failure is written.",
    ),
)

_METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in _PERFORMANCE + _FAIRNESS + _ROBUSTNESS + _INTERPRETABILITY + _PRIVACY + _ASSESS
}

METRICS: Mapping[str, Metric] = MappingProxyType(_METRICS)
"""Every registered metric by name; read only."""


def register_metric(metric: Metric) -> Metric:
    """Adds the metric of an assessor that lives outside this package.

    Args:
        metric: The definition. Registering an equal one again changes nothing.

    Raises:
        ConfigError: The name is taken by another definition.
    """
    known = _METRICS.setdefault(metric.name, metric)
    if known != metric:
        raise ConfigError(
            f"metric {metric.name!r} is registered with another definition; choose another name"
        )
    return known


def find_metric(name: str) -> Metric:
    """The metric of that name.

    Raises:
        ConfigError: No metric has the name; the message holds the nearest one.
    """
    metric = _METRICS.get(name)
    if metric is None:
        near = difflib.get_close_matches(name, _METRICS, n=1, cutoff=0.4)
        remedy = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(_METRICS))}"
        raise ConfigError(f"no metric is named {name!r}; {remedy}")
    return metric
