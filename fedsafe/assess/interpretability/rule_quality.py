"""What else is known of a surrogate tree: near the data, rule by rule, refitted, and at other depths."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.interpretability.rules import Rule, jaccard, matches, read_rules
from fedsafe.data import InputSchema
from fedsafe.findings import Finding, Provenance, bounded_mean, estimate

Array = NDArray[np.float64]
Fit = Callable[[NDArray[Any], NDArray[Any]], Any]

STABILITY = "surrogate.stability"
DEPTHS = (1, 2, 3, 4, 5, 6, 8, 10)
_PAIRS, _CONTROLS = 10, 3


def perturbed(
    x: NDArray[np.float32], schema: InputSchema, rng: np.random.Generator, *, reach: float = 0.1
) -> NDArray[np.float32]:
    """Records near the given ones, each a possible record.

    Args:
        x: ``(n, features)`` encoded records.
        schema: Of the features.
        rng: Source of the changes.
        reach: Numbers move uniformly by up to this share of their public range, and stay inside it; each category is
            drawn anew with this probability.
    """
    width = reach * (schema.high - schema.low)
    found = x + width * rng.uniform(-1, 1, x.shape).astype(np.float32)
    found = np.clip(found, schema.low, schema.high).astype(np.float32)
    for group in schema.one_hot:
        columns = list(group)
        drawn = np.eye(len(columns), dtype=np.float32)[rng.integers(0, len(columns), len(x))]
        found[:, columns] = np.where(rng.random((len(x), 1)) < reach, drawn, x[:, columns])
    return found


def judge_rules(
    rules: Sequence[Rule],
    x: NDArray[np.float32],
    decided: NDArray[Any],
    truth: NDArray[Any] | None,
) -> list[Rule]:
    """The rules, each with what held-out records say of it.

    Args:
        rules: Of one tree, with classes as outcomes.
        x: ``(n, features)`` records that the tree was not fitted to.
        decided: ``(n,)`` the model's decisions.
        truth: ``(n,)`` labels.

    Returns:
        With ``held_out`` records that meet the rule, ``coverage``, their share, and of them the shares ``fidelity``, on
        which the model decides as the rule, and ``accuracy``, on which the rule is right; None where there are none.
    """
    held = matches(rules, x)
    found = []
    for column, rule in enumerate(rules):
        rows = held[:, column]
        count = int(rows.sum())
        judged: Rule = {**rule, "held_out": count, "coverage": count / len(x)}
        for name, answers in (("fidelity", decided), ("accuracy", truth)):
            if answers is not None:
                judged[name] = float(np.mean(answers[rows] == rule["outcome"])) if count else None
        found.append(judged)
    return found


def stability(
    fit: Fit,
    x: NDArray[np.float32],
    answers: NDArray[Any],
    schema: InputSchema,
    rng: np.random.Generator,
    context: Provenance,
) -> Finding:
    """How alike the rules of trees are that were fitted to resampled records: Jaccard's share, thresholds left aside.

    Args:
        fit: Fits a tree to ``(n, features)`` records and ``(n,)`` answers.
        x: ``(n, features)``.
        answers: ``(n,)`` of the model.
        schema: Of the features.
        rng: Source of the resampling.
        context: Of the finding.
    """

    def alike(given: NDArray[Any], pairs: int) -> Array:
        found = []
        for _ in range(pairs):
            drawn = rng.integers(0, len(x), (2, len(x)))
            first, second = (read_rules(fit(x[rows], given[rows]), schema, lambda _: "") for rows in drawn)
            found.append(jaccard(first, second))
        return np.asarray(found)

    values = alike(answers, _PAIRS)
    interval, how = bounded_mean(values, 0.0, 1.0)
    return estimate(
        STABILITY,
        float(values.mean()),
        interval=interval,
        method=f"{how} over pairs of bootstrap trees",
        n=_PAIRS,
        unit="pairs of trees",
        anchors={"shuffled_decisions": float(alike(rng.permutation(answers), _CONTROLS).mean())},
        detail={"examples": len(x)},
        **context,
    )


def by_depth(
    fit: Callable[[int], Any], score: Callable[[Any], float], figure: str
) -> list[dict[str, float | int]]:
    """Rules and agreement of trees of several depths: what a reader gains by reading more.

    Args:
        fit: Makes the tree of a depth.
        score: Its agreement with the model on held-out records.
        figure: What the agreement is called.

    Returns:
        ``depth``, ``rules`` and the figure; it stops where a deeper tree grows no more.
    """
    curve: list[dict[str, float | int]] = []
    for depth in DEPTHS:
        tree = fit(depth)
        if curve and int(tree.get_n_leaves()) == curve[-1]["rules"]:
            break
        curve.append({"depth": depth, "rules": int(tree.get_n_leaves()), figure: score(tree)})
    return curve
