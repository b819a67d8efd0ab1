"""Invented findings and verdicts, in the form that the assessors write them."""

from typing import Any

import numpy as np

from fedsafe.findings import Context, Finding, estimate, not_measured, proportion

EXAMPLES = 16281
PUBLIC: Context = {"data": "fixture: invented evaluation set (public)"}
COLUMNS = (
    "capital_gain",
    "education_num",
    "marital_status",
    "age",
    "hours_per_week",
    "relationship",
    "occupation",
    "capital_loss",
    "workclass",
    "sex",
    "race",
    "native_country",
)
# positives and negatives of each group
GROUPS = {
    "sex": {"Female": (590, 4831), "Male": (3256, 7604)},
    "race": {"White": (3509, 10437), "Black": (204, 1357), "Other": (12, 123), "Unknown": (19, 140)},
    "sex & race": {"Female & White": (500, 3900), "Female & Black": (58, 690), "Female & Other": (4, 45)},
    "age": {"17-25": (41, 3290), "26-40": (1502, 5046), "41-60": (2021, 3304), "over 60": (282, 795)},
}


def make_findings(accuracy: float, record_epsilon: float | None) -> list[tuple[str, Finding]]:
    """Pairs of assessor and finding."""
    parts = {
        "performance": _performance(accuracy),
        "fairness": _rates() + _gaps(),
        "robustness": _robustness(accuracy),
        "interpretability": _interpretability(),
        "privacy": _privacy(record_epsilon),
    }
    return [(assessor, finding) for assessor, findings in parts.items() for finding in findings]


def _sampled(metric: str, value: float, low: float, high: float, method: str, **rest: Any) -> Finding:
    rest = {"n": EXAMPLES, "unit": "examples", **PUBLIC, **rest}
    return estimate(metric, value, interval=(low, high), method=method, **rest)


def _performance(accuracy: float) -> list[Finding]:
    quantiles = np.array([0.5, 0.742, 0.791, 0.84, 0.889, 0.935, 1.0])
    shards = {"shards": "cut by the clients' partition rule", "too_small": 11, "quantiles": quantiles}
    majority = {"majority_class": 0.7638}
    return [
        proportion("performance.accuracy", round(accuracy * EXAMPLES), EXAMPLES, anchors=majority, **PUBLIC),
        _sampled("performance.auc", 0.893, 0.888, 0.898, "delong-logit", anchors={"chance": 0.5}),
        _sampled("performance.nll", 0.358, 0.351, 0.365, "t", anchors={"class_shares": 0.546}),
        _sampled("performance.ece", 0.0213, 0.0152, 0.0281, "bootstrap"),
        _sampled(
            "performance.worst_decile_accuracy",
            0.691,
            0.662,
            0.713,
            "bootstrap over clients",
            n=289,
            unit="clients",
            detail=shards,
            anchors={"clients_alike": 0.748},
        ),
    ]


def _rates() -> list[Finding]:
    found = []
    for attribute, groups in GROUPS.items():
        for group, (positives, negatives) in groups.items():
            context: Context = {"where": {"attribute": attribute, "group": group}, **PUBLIC}
            counts = {
                "accuracy": (0.84, positives + negatives),
                "selection_rate": (0.2, positives + negatives),
                "true_positive_rate": (0.6, positives),
                "false_positive_rate": (0.06, negatives),
            }
            for rate, (value, n) in counts.items():
                if positives < 30:
                    reason = "the group has fewer than 30 positives and negatives"
                    few = not_measured(
                        f"fairness.{rate}", reason, status="insufficient", n=n, unit="examples", **context
                    )
                    found.append(few)
                else:
                    found.append(proportion(f"fairness.{rate}", round(value * n), n, **context))
    return found


def _gaps() -> list[Finding]:
    found = []
    for place, (attribute, groups) in enumerate(GROUPS.items()):
        low, high, *_ = groups
        rest: Context = {
            "where": {"attribute": attribute},
            "detail": {"extremes": {"low": low, "high": high}},
            "anchors": {"null_gap": 0.012},
        }
        for gap, value in (("demographic_parity", 0.172), ("equalised_odds", 0.094)):
            value += 0.01 * place
            ends = (value - 0.03, value + 0.035)
            name = f"fairness.{gap}_difference"
            found.append(_sampled(name, value, *ends, "newcombe, simultaneous", **rest))
    return found


def _robustness(accuracy: float) -> list[Finding]:
    found = []
    common: Context = {"anchors": {"clean": accuracy}, **PUBLIC}
    for scale in (0.05, 0.1, 0.25):
        where = {"noise": "gaussian", "scale": scale}
        k = round(2000 * (accuracy - 0.4 * scale))
        found.append(proportion("robustness.noise_accuracy", k, 2000, where=where, **common))
    attacked: Context = {"bound": "upper", **common}
    for radius in (0.02, 0.05, 0.1, 0.25, 0.5):
        for attack, steep in (("fgsm", 1.1), ("pgd", 1.5)):
            where = {"attack": attack, "norm": "linf", "radius": radius}
            k = round(2000 * (accuracy - steep * radius))
            found.append(proportion("robustness.attacked_accuracy", k, 2000, where=where, **attacked))
    where = {"attack": "pgd", "norm": "linf", "radius": 1.0}
    reason = "PGD missed more than 1% of the examples broken by FGSM"
    found.append(
        not_measured(
            "robustness.attacked_accuracy",
            reason,
            status="unreliable",
            n=2000,
            unit="examples",
            where=where,
            **attacked,
        )
    )
    return found


def _interpretability() -> list[Finding]:
    table = [
        {
            "column": name,
            "mean_abs": 0.91 * fall,
            "low": 0.87 * fall,
            "high": 0.95 * fall,
        }
        for name, fall in zip(COLUMNS, 0.74 ** np.arange(len(COLUMNS)), strict=True)
    ]
    rest = {"n": 256, "where": {"explainer": "integrated_gradients", "baseline": "median"}}
    return [
        _sampled("interpretability.completeness_gap", 0.00042, 0.0004, 0.00045, "bca bootstrap", **rest),
        _sampled(
            "interpretability.infidelity_normalised",
            0.183,
            0.151,
            0.221,
            "bca bootstrap",
            anchors={"random_attribution": 1.04},
            **rest,
        ),
        _sampled(
            "interpretability.top_feature_share",
            0.27,
            0.25,
            0.29,
            "bca bootstrap",
            detail={"top": COLUMNS[0], "table": table},
            **rest,
        ),
    ]


def _privacy(record_epsilon: float | None) -> list[Finding]:
    record: Context = {"where": {"unit": "record"}, "data": "the run's claims"}
    client: Context = {"where": {"unit": "client"}, "data": "the run's claims"}
    found = [estimate("privacy.epsilon", 7.99312, bound="upper", **client)]
    if record_epsilon is None:
        reason = "the run claims nothing at this level"
        return [*found, not_measured("privacy.epsilon", reason, status="not_applicable", **record)]
    return [*found, estimate("privacy.epsilon", record_epsilon, bound="upper", **record)]


def make_requirements(number: int, accuracy: float) -> list[dict[str, Any]]:
    """Verdicts of one round: one of each kind."""

    def line(
        metric: str, op: str, threshold: float, verdict: str, reason: str, **rest: Any
    ) -> dict[str, Any]:
        body = {"where": {}, "confidence": 0.95, "severity": "must", "value": None, "interval": None}
        return {
            "round": number,
            "metric": metric,
            "op": op,
            "threshold": threshold,
            **body,
            "verdict": verdict,
            "reason": reason,
            **rest,
        }

    return [
        line(
            "performance.accuracy",
            ">=",
            0.8,
            "pass" if number > 10 else "undecided",
            "the lower end 82.6 % is above 80 %",
            value=accuracy,
            interval=[0.826, 0.84],
        ),
        line(
            "fairness.equalised_odds_difference",
            "<=",
            0.1,
            "undecided",
            "the interval holds the threshold",
            where={"attribute": "sex"},
            value=0.094,
            interval=[0.064, 0.129],
        ),
        line(
            "robustness.attacked_accuracy",
            ">=",
            0.7,
            "fail",
            "the upper end 67.1 % is below 70 %",
            where={"attack": "pgd", "norm": "linf", "radius": 0.1},
            severity="should",
            value=0.65,
            interval=[0.629, 0.671],
        ),
        line("privacy.audited_epsilon", "<=", 8.0, "unmeasured", "there is no finding", severity="info"),
    ]
