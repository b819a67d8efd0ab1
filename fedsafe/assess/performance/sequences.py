"""Figures of models that predict the next token: accuracy and perplexity, with whole records drawn together."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.resampling import cluster_sums, clusters_of, interval_of
from fedsafe.data import Examples
from fedsafe.findings import Finding, Provenance, estimate

Array = NDArray[np.float64]


def next_token(
    losses: Array,
    scores: Array,
    examples: Examples,
    tokens: int,
    *,
    resamples: int,
    rng: np.random.Generator,
    context: Provenance,
) -> list[Finding]:
    """Accuracy, likelihood and perplexity of a token.

    The positions of one record are not independent, so an interval comes from drawing whole records, or whole holders.

    Args:
        losses: ``(n,)`` mean negative log-likelihood over the positions of each record, in nats.
        scores: ``(n,)`` share of its positions that are predicted.
        examples: The records.
        tokens: Size of the vocabulary.
        resamples: For the intervals.
        rng: Source of the resampling.
        context: Fields of every finding.
    """
    clusters = clusters_of(examples, "records")
    sums = cluster_sums(np.stack([np.ones_like(losses), scores, losses], axis=1), clusters.codes)
    total = sums.sum(axis=0, keepdims=True)
    share = np.bincount(examples.y.ravel(), minlength=tokens) / examples.y.size
    entropy = float(-(share[share > 0] * np.log(share[share > 0])).sum())
    figures: tuple[tuple[str, Callable[[Array], Array], dict[str, float]], ...] = (
        (
            "accuracy",
            lambda rows: rows[:, 1] / rows[:, 0],
            {"most_frequent": share.max(), "uniform": 1 / tokens},
        ),
        ("nll", lambda rows: rows[:, 2] / rows[:, 0], {"token_shares": entropy, "uniform": np.log(tokens)}),
        (
            "perplexity",
            _perplexity,
            {"token_shares": np.exp(entropy), "uniform": float(tokens)},
        ),
    )
    detail: dict[str, Any] = {
        "tokens": examples.y.size,
        "clusters": len(sums),
        "bits_per_token": float(total[0, 2] / total[0, 0] / np.log(2)),
    }
    findings = []
    for name, figure, anchors in figures:
        interval = interval_of(figure, sums, rng, resamples)
        findings.append(
            estimate(
                f"performance.{name}",
                float(figure(total)[0]),
                interval=interval,
                method=None if interval is None else clusters.method,
                n=len(examples),
                unit="records",
                anchors=anchors,
                diagnostics={"interval": clusters.note} if clusters.note else {},
                detail=detail,
                **context,
            )
        )
    return findings


def _perplexity(rows: Array) -> Array:
    """``(rows,)``; infinite, and so not measured, where the likelihood is too small for a float."""
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(rows[:, 2] / rows[:, 0]))
