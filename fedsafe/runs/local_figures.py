"""Training alone, the federation's model and fine-tuning beside each other: each client, all, and the worst of them.

Clients are few and their evaluation records fewer, so that an interval has two parts: what another noise, or another
start, would have changed (the seeds), and what other persons would have (the evaluation records). Both are estimated
and added as independent variances, with the degrees of freedom of Satterthwaite (1946). What the two do together is in
both parts, so that intervals err on the wide side. They say nothing of other training records: these are always the
same.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fedsafe.rng import public_generator
from fedsafe.runs.cells import Result
from fedsafe.runs.comparison import Cell, budget_name
from fedsafe.runs.local_training import ALONE, ARMS, FEDERATED, FINE_TUNED

Array = NDArray[np.float64]
# Of one client: (seeds, records).
Scores = Sequence[Array]

PAIRS = ((FEDERATED, ALONE), (FINE_TUNED, ALONE), (FINE_TUNED, FEDERATED))
ALL, WORST = "all", "worst"
CONFIDENCE = 0.95
_RESAMPLES = 2000


def two_way(
    clients: Sequence[Scores], figure: Callable[[Sequence[Array]], Array], low: float, high: float
) -> dict[str, Any]:
    """A figure of scores, its mean over seeds, and a 95 % interval over seeds and evaluation records.

    Args:
        clients: For each of one or two ways (the first minus the second), the clients' ``(seeds, records)`` scores.
        figure: From the clients' mean scores, each ``(..., seeds)``, to the figure, ``(..., seeds)``.
        low: What the figure, or the difference, is at least.
        high: What it is at most.

    Returns:
        ``value``, ``low``, ``high``, and ``seeds``, the figure of each. Where nothing differs, between seeds or between
        records, the ends are what a share of others could still be of whom none was seen (Clopper and Pearson, 1934).
    """
    signs = (1.0, -1.0)[: len(clients)]
    own: Array = sum(
        sign * figure([rows.mean(axis=1) for rows in way]) for sign, way in zip(signs, clients, strict=True)
    )  # type: ignore[assignment]
    seeds = len(own)
    # The same persons are drawn for both ways.
    generator = public_generator(0, "local figures")
    drawn = [
        generator.multinomial(rows.shape[1], np.full(rows.shape[1], 1.0 / rows.shape[1]), _RESAMPLES)
        / rows.shape[1]
        for rows in clients[0]
    ]
    resampled: Array = sum(
        sign * figure([weights @ rows.T for weights, rows in zip(drawn, way, strict=True)])
        for sign, way in zip(signs, clients, strict=True)
    )  # type: ignore[assignment]
    between = float(own.var(ddof=1)) / seeds if seeds > 1 else 0.0
    records = float(resampled.mean(axis=1).var(ddof=1))
    fewest = min(rows.shape[1] for rows in clients[0])
    value = float(own.mean())
    if between + records < 1e-18:
        unseen = 1.0 - ((1.0 - CONFIDENCE) / 2) ** (1.0 / fewest)
        ends = value - unseen * (value - low), value + unseen * (high - value)
    else:
        freedom = (between + records) ** 2 / (
            (between**2 / (seeds - 1) if seeds > 1 else 0.0) + records**2 / max(1, fewest - 1)
        )
        half = float(special.stdtrit(freedom, (1.0 + CONFIDENCE) / 2)) * math.sqrt(between + records)
        ends = max(low, value - half), min(high, value + half)
    return {"value": value, "low": ends[0], "high": ends[1], "seeds": own.tolist()}


def local_body(cells: Sequence[Cell], results: Sequence[Result]) -> dict[str, Any]:
    """What is shown of all cells.

    Returns:
        ``clients`` (names), ``records`` and ``evaluation_records`` of each, ``budgets``, ``seeds``, and ``rows``: for
        each budget ``costs`` (of each way, what one record pays), ``ways`` and ``differences``, each from its name to
        ``{"all": ..., "worst": ..., NAME: ...}``, as :func:`two_way` gives them. ``"all"`` is the mean over all
        evaluation records, ``"worst"`` that of whichever client has the least in a run.
    """
    first = results[0]
    sizes = np.array([len(scores) for scores in first["majority"]], float)
    rows = []
    for epsilon in dict.fromkeys(cell.epsilon for cell in cells):
        here = [found for cell, found in zip(cells, results, strict=True) if cell.epsilon == epsilon]
        ways = {arm: _by_client(found["arms"][arm]["scores"] for found in here) for arm in ARMS}
        ways["majority"] = _by_client(found["majority"] for found in here)
        rows.append(
            {
                "epsilon": budget_name(epsilon),
                "costs": {
                    arm: {
                        key: max((found["arms"][arm][key] for found in here), key=lambda one: one or 0.0)
                        for key in ("epsilon", "delta", "noise", "steps")
                    }
                    for arm in ARMS
                },
                "ways": {
                    name: _figures([way], first["clients"], sizes, 0.0, 1.0) for name, way in ways.items()
                },
                "differences": {
                    f"{one} - {other}": _figures([ways[one], ways[other]], first["clients"], sizes, -1.0, 1.0)
                    for one, other in PAIRS
                },
            }
        )
    return {
        "clients": first["clients"],
        "records": first["records"],
        "evaluation": first["evaluation"],
        "evaluation_records": sizes.astype(int).tolist(),
        "seeds": len({cell.seed for cell in cells}),
        "budgets": [row["epsilon"] for row in rows],
        "rows": rows,
    }


def _by_client(runs: Iterable[Sequence[Sequence[float]]]) -> list[Array]:
    """``(seeds, records)`` of each client."""
    return [np.array(rows, float) for rows in zip(*runs, strict=True)]


def _figures(
    ways: Sequence[Scores], names: Sequence[str], sizes: Array, low: float, high: float
) -> Mapping[str, dict[str, Any]]:
    found = {
        ALL: two_way(ways, lambda means: _mean(means, sizes), low, high),
        WORST: two_way(ways, lambda means: np.asarray(np.min(means, axis=0)), low, high),
    }
    for place, name in enumerate(names):
        alone = [[way[place]] for way in ways]
        found[name] = two_way(alone, lambda means: means[0], low, high)
    return found


def _mean(means: Sequence[Array], sizes: Array) -> Array:
    return np.asarray(np.tensordot(sizes / sizes.sum(), np.stack(means), axes=1))
