"""How evenly a model serves the clients: the worst tenth, the spread, and Jain's index."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedsafe.findings import Finding, Provenance, estimate, not_measured, percentile

Array = NDArray[np.float64]
Shards = Sequence[NDArray[np.int64]]

_SMALLEST_SHARD = 10  # records; below, a client's score is mostly chance
_FEWEST_SHARDS = 20  # for a worst tenth of more than one client
_DRAWS = 200


def evenness(
    scores: Array, shards: Shards | None, *, name: str, rng: np.random.Generator, context: Provenance
) -> list[Finding]:
    """Scores over the clients' shards of the evaluation set, beside those of clients who are all alike.

    Clients are alike where the same records are dealt to them at random: what is then left of the differences comes
    from the small number of records of each.

    Args:
        scores: ``(n,)`` one score in [0, 1] for each evaluation record.
        shards: Rows of each client; None where there is no such cut.
        name: What a mean score is called: "accuracy" or "score".
        rng: Source of the resampling.
        context: Fields of every finding.
    """
    metrics = f"performance.worst_decile_{name}", f"performance.{name}_spread", "performance.jain_index"
    if shards is None:
        reason = "the evaluation set is not cut by client"
        return [not_measured(m, reason, status="not_applicable", **context) for m in metrics]
    kept = [shard for shard in shards if len(shard) >= _SMALLEST_SHARD]
    detail = {
        "shards": "evaluation shards cut by the clients' partition rule",
        "too_small": len(shards) - len(kept),
        "smallest": _SMALLEST_SHARD,
    }
    if len(kept) < _FEWEST_SHARDS:
        reason = f"{len(kept)} shards have {_SMALLEST_SHARD} records or more, {_FEWEST_SHARDS} are needed"
        return [
            not_measured(
                m, reason, status="insufficient", n=len(kept), unit="clients", detail=detail, **context
            )
            for m in metrics
        ]
    means = np.array([scores[shard].mean() for shard in kept])
    alike = _alike(scores[np.concatenate(kept)], np.array([len(shard) for shard in kept]), rng)
    resampled = means[rng.integers(0, len(means), size=(2000, len(means)))]
    detail["quantiles"] = np.quantile(means, [0, 0.1, 0.25, 0.5, 0.75, 0.9, 1])
    findings = []
    for metric, figure in zip(metrics, (worst_tenth, _spread, jain_index), strict=True):
        findings.append(
            estimate(
                metric,
                float(figure(means[None])[0]),
                interval=percentile(figure(resampled)),
                method="bootstrap over clients",
                n=len(means),
                unit="clients",
                anchors={"clients_alike": float(figure(alike).mean())},
                detail=detail,
                **context,
            )
        )
    return findings


def worst_tenth(scores: Array) -> Array:
    """Mean of the smallest tenth (rounded up) of each row of ``(rows, clients)``."""
    count = math.ceil(scores.shape[1] / 10)
    return np.asarray(np.partition(scores, count - 1, axis=1)[:, :count].mean(axis=1))


def jain_index(scores: Array) -> Array:
    """Square of the sum over clients times the sum of squares, of each row (Jain, Chiu and Hawe, 1984).

    1 where all clients have the same score, that of 0 included; 1 over their number where one has everything.

    Args:
        scores: ``(rows, clients)``, not negative.
    """
    squares = scores.shape[1] * np.square(scores).sum(axis=1)
    total = np.square(scores.sum(axis=1))
    return np.asarray(np.divide(total, squares, out=np.ones(len(scores)), where=squares > 0))


def _spread(scores: Array) -> Array:
    return np.asarray(scores.std(axis=1))


def _alike(scores: Array, sizes: NDArray[np.int64], rng: np.random.Generator) -> Array:
    """``(draws, clients)`` means where the same records are dealt at random."""
    starts = np.cumsum([0, *sizes[:-1]])
    return np.stack([np.add.reduceat(rng.permutation(scores), starts) / sizes for _ in range(_DRAWS)])
