"""Membership from the course of a record's loss over the models that were broadcast."""

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

Array = NDArray[np.float64]

_SMALLEST = 1e-6  # nats: losses below are alike


def trajectory_scores(
    members: Array, others: Array, rng: np.random.Generator
) -> tuple[Array, Array, NDArray[np.int64], NDArray[np.int64]]:
    """Scores by a rule that is fitted on one half, for the other half.

    The adversary knows who was in for half of the records, and fits a logistic regression to the logarithms of their
    losses and how these change (after Nasr, Shokri and Houmansadr 2019, and Liu et al. 2022).

    Args:
        members: ``(m, models)`` losses under each model, oldest first; m at least 4.
        others: ``(n, models)``.
        rng: Cuts the halves.

    Returns:
        ``(m - m // 2,)`` and ``(n - n // 2,)`` scores of those that the rule was not fitted on, and their rows.
    """
    first, second = rng.permutation(len(members)), rng.permutation(len(others))
    known, asked = np.split(first, [len(first) // 2])
    known_others, asked_others = np.split(second, [len(second) // 2])
    features, features_of_others = _features(members), _features(others)
    inputs = np.concatenate([features[known], features_of_others[known_others]])
    scaler = StandardScaler().fit(inputs)
    rule = LogisticRegression(class_weight="balanced", max_iter=1000)
    rule.fit(scaler.transform(inputs), np.repeat([1, 0], [len(known), len(known_others)]))
    scores = rule.decision_function(scaler.transform(features[asked]))
    scores_of_others = rule.decision_function(scaler.transform(features_of_others[asked_others]))
    return scores, scores_of_others, asked, asked_others


def _features(losses: Array) -> Array:
    logs = np.log(losses + _SMALLEST)
    return np.concatenate([logs, np.diff(logs, axis=1)], axis=1)
