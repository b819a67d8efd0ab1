"""How evenly a model serves the clients: the worst of them, the spread, and Jain's index beside these."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fedsafe.errors import ConfigError
from fedsafe.findings import Finding, Provenance, estimate, not_measured, percentile

Array = NDArray[np.float64]
Figure = Callable[[Array], Array]
Shards = Sequence[NDArray[np.int64]]

SMALLEST_SHARD = 10
"""Records; below, a client's score is mostly chance."""
FEWEST_SHARDS = 20
"""Clients, for a worst tenth of more than one, and for a spread."""
_DRAWS = 200


def evenness(
    scores: Array,
    shards: Shards | None,
    *,
    name: str,
    worst: Sequence[float] = (),
    rng: np.random.Generator,
    context: Provenance,
) -> list[Finding]:
    """Scores over the clients' shards of the evaluation set, beside those of clients who are all alike.

    Clients are alike where the same records are dealt to them at random: what is then left of the differences comes
    from the small number of records of each. Jain's index stays near 1 while the worst clients are below chance: it is
    to be read beside their mean.

    Args:
        scores: ``(n,)`` one score in [0, 1] for each evaluation record.
        shards: Rows of each client; None where there is no such cut.
        name: What a mean score is called: "accuracy" or "score".
        worst: Shares of the clients, in (0, 1), whose mean is wanted besides that of the worst tenth.
        rng: Source of the resampling.
        context: Fields of every finding.
    """
    wanted: list[tuple[str, dict[str, float], Figure]] = [
        (f"performance.worst_decile_{name}", {}, worst_tenth),
        *((f"performance.worst_clients_{name}", {"share": k}, partial(worst_share, share=k)) for k in worst),
        (f"performance.{name}_spread", {}, _spread),
        ("performance.jain_index", {}, jain_index),
    ]
    if shards is None:
        reason = "the evaluation set is not cut by client"
        return [
            not_measured(metric, reason, status="not_applicable", where=where, **context)
            for metric, where, _ in wanted
        ]
    kept = [shard for shard in shards if len(shard) >= SMALLEST_SHARD]
    detail = {
        "shards": "evaluation shards cut by the clients' partition rule",
        "too_small": len(shards) - len(kept),
        "smallest": SMALLEST_SHARD,
    }
    findings, enough = [], []
    for metric, where, figure in wanted:
        needed = max(FEWEST_SHARDS, fewest_clients(where["share"])) if where else FEWEST_SHARDS
        if len(kept) >= needed:
            enough.append((metric, where, figure))
            continue
        reason = f"{len(kept)} shards have {SMALLEST_SHARD} records or more, {needed} are needed"
        findings.append(
            not_measured(
                metric,
                reason,
                status="insufficient",
                n=len(kept),
                unit="clients",
                where=where,
                detail=detail,
                **context,
            )
        )
    if not enough:
        return findings
    means = np.array([scores[shard].mean() for shard in kept])
    random = alike(scores[np.concatenate(kept)], np.array([len(shard) for shard in kept]), rng)
    resampled = means[rng.integers(0, len(means), size=(2000, len(means)))]
    detail["quantiles"] = np.quantile(means, [0, 0.1, 0.25, 0.5, 0.75, 0.9, 1])
    for metric, where, figure in enough:
        findings.append(
            estimate(
                metric,
                float(figure(means[None])[0]),
                interval=percentile(figure(resampled)),
                method="bootstrap over clients",
                n=len(means),
                unit="clients",
                anchors={"clients_alike": float(figure(random).mean())},
                where=where,
                detail=detail,
                **context,
            )
        )
    return findings


def fewest_clients(share: float) -> int:
    """Clients of whom that share is more than one."""
    return math.ceil(2 / share - 1e-9)


def check_shares(worst: Sequence[float]) -> None:
    """Refuses what is no share of the clients.

    Raises:
        ConfigError: Naming it.
    """
    for share in worst:
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            raise ConfigError(
                f"worst = {share!r} is no share of the clients: give numbers in (0, 1), such as 0.05"
            )
    if len(set(worst)) < len(worst):
        raise ConfigError(f"worst = {list(worst)} names a share twice: leave one out")


def worst_tenth(scores: Array) -> Array:
    """Mean of the smallest tenth (rounded up) of each row of ``(rows, clients)``."""
    return worst_share(scores, share=0.1)


def worst_share(scores: Array, *, share: float) -> Array:
    """Mean of the smallest share (rounded up) of each row of ``(rows, clients)``."""
    count = math.ceil(scores.shape[1] * share - 1e-9)
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


def alike(scores: Array, sizes: NDArray[np.int64], rng: np.random.Generator) -> Array:
    """``(draws, clients)`` means where the same records are dealt at random.

    Args:
        scores: ``(n,)`` of the records.
        sizes: ``(clients,)`` records of each client, n together.
        rng: Source of the dealing.
    """
    starts = np.cumsum([0, *sizes[:-1]])
    return np.stack([np.add.reduceat(rng.permutation(scores), starts) / sizes for _ in range(_DRAWS)])
