"""Training alone, the federation's model and fine-tuning beside each other: each client, all, and the worst of them.

Clients are few and their evaluation records fewer, so that an interval has two parts: what another noise, or another
start, would have changed (the seeds), and what other persons would have (the evaluation records). Both are estimated
and added as independent variances, with the degrees of freedom of Satterthwaite (1946). What the two do together is in
both parts, so that intervals err on the wide side. They say nothing of other training records: these are always the
same.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fedsafe.rng import public_generator
from fedsafe.runs.cells import Result
from fedsafe.runs.comparison import Cell, budget_name
from fedsafe.runs.local_plans import ALONE, ARMS, FEDERATED, FINE_TUNED

Array = NDArray[np.float64]
# Of one client: (seeds, records).
Scores = Sequence[Array]

PAIRS = ((FEDERATED, ALONE), (FINE_TUNED, ALONE), (FINE_TUNED, FEDERATED))
ALL, WORST = "all", "worst"
CONFIDENCE = 0.95
_RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True)
class Means:
    """Mean scores of every client under each of some ways to a model, and what they would be for other persons.

    Args:
        own: ``(ways, clients, seeds)``.
        scores: Of each client ``(ways, records)``, over all seeds.
        drawn: ``(resamples, ways, clients, seeds)``: the client's records resampled, the same for all ways and seeds.
        records: ``(clients,)`` evaluation records.
    """

    own: Array
    scores: Sequence[Array]
    drawn: Array
    records: NDArray[np.int64]

    @classmethod
    def of(cls, ways: Sequence[Scores]) -> "Means":
        """Means of ``(seeds, records)`` scores of each way and client; every way has the same clients and records."""
        generator = public_generator(0, "local figures")
        own, scores, drawn, records = [], [], [], []
        for rows in zip(*ways, strict=True):
            every = np.stack(rows)
            n = every.shape[2]
            weights = generator.multinomial(n, np.full(n, 1.0 / n), _RESAMPLES) / n
            own.append(every.mean(axis=2))
            scores.append(every.mean(axis=1))
            drawn.append(np.einsum("bn,wsn->bws", weights, every, optimize=True))
            records.append(n)
        return cls(
            own=np.stack(own, axis=1),
            scores=scores,
            drawn=np.stack(drawn, axis=2),
            records=np.array(records),
        )

    def weighted(self, signs: Array, weights: Array) -> dict[str, Any]:
        """A mean over clients, or its difference between two ways; see ``_estimate``.

        Args:
            signs: ``(ways,)`` 1, -1 or 0: what is added up.
            weights: ``(clients,)`` that sum to 1.
        """
        used = np.flatnonzero(weights).tolist()
        persons = sum(
            float(weights[k] ** 2 * (signs @ self.scores[k]).var(ddof=1) / self.records[k])
            for k in used
            if self.records[k] > 1
        )
        own = np.einsum("w,k,wks->s", signs, weights, self.own)
        return _estimate(own, persons, int(self.records[used].min()), signs)

    def worst(self, signs: Array) -> dict[str, Any]:
        """The least mean of any client in a run, or its difference between two ways; see ``_estimate``.

        Args:
            signs: ``(ways,)`` 1, -1 or 0: what is added up.
        """
        own = signs @ self.own.min(axis=1)
        # The same persons are drawn for all ways: what a minimum does has no formula.
        drawn = np.einsum("w,bws->bs", signs, self.drawn.min(axis=2))
        return _estimate(own, float(drawn.mean(axis=1).var(ddof=1)), int(self.records.min()), signs)


def _estimate(own: Array, persons: float, fewest: int, signs: Array) -> dict[str, Any]:
    """A mean over seeds, and a 95 % interval over seeds and persons.

    Args:
        own: ``(seeds,)`` the figure of each, a share or a difference of two.
        persons: Variance that other evaluation records would give the mean.
        fewest: Evaluation records of the smallest client.
        signs: A difference has one that is negative.

    Returns:
        ``value``, ``low``, ``high``, and ``seeds``, the figure of each. Where nothing differs, between seeds or between
        records, the ends are what a share of others could still be of whom none was seen (Clopper and Pearson, 1934).
    """
    low, high = (-1.0 if (signs < 0.0).any() else 0.0), 1.0
    seeds, value = len(own), float(own.mean())
    between = float(own.var(ddof=1)) / seeds if seeds > 1 else 0.0
    if between + persons < 1e-18:
        unseen = 1.0 - ((1.0 - CONFIDENCE) / 2) ** (1.0 / fewest)
        ends = value - unseen * (value - low), value + unseen * (high - value)
    else:
        freedom = (between + persons) ** 2 / (
            (between**2 / (seeds - 1) if seeds > 1 else 0.0) + persons**2 / max(1, fewest - 1)
        )
        half = float(special.stdtrit(freedom, (1.0 + CONFIDENCE) / 2)) * math.sqrt(between + persons)
        ends = max(low, value - half), min(high, value + half)
    return {"value": value, "low": ends[0], "high": ends[1], "seeds": own.tolist()}


def local_body(cells: Sequence[Cell], results: Sequence[Result]) -> dict[str, Any]:
    """What is shown of all cells.

    Returns:
        ``clients`` (names), ``records`` and ``evaluation_records`` of each, ``budgets``, ``seeds``, and ``rows``: for
        each budget ``costs`` (of each way, what one record pays), ``ways`` and ``differences``, each from its name to
        ``{"all": ..., "worst": ..., NAME: ...}``, as :class:`Means` gives them. ``"all"`` is the mean over all
        evaluation records, ``"worst"`` that of whichever client has the least in a run.
    """
    first = results[0]
    rows = []
    for epsilon in dict.fromkeys(cell.epsilon for cell in cells):
        here = [found for cell, found in zip(cells, results, strict=True) if cell.epsilon == epsilon]
        ways = {arm: _by_client(found["arms"][arm]["scores"] for found in here) for arm in ARMS}
        ways["majority"] = _by_client(found["majority"] for found in here)
        means, names = Means.of(list(ways.values())), list(ways)
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
                    name: _figures(means, [float(name == way) for way in names], first["clients"])
                    for name in names
                },
                "differences": {
                    f"{one} - {other}": _figures(
                        means, [float(way == one) - float(way == other) for way in names], first["clients"]
                    )
                    for one, other in PAIRS
                },
            }
        )
    return {
        "clients": first["clients"],
        "records": first["records"],
        "evaluation": first["evaluation"],
        "evaluation_records": [len(scores) for scores in first["majority"]],
        "seeds": len({cell.seed for cell in cells}),
        "budgets": [row["epsilon"] for row in rows],
        "rows": rows,
    }


def _by_client(runs: Iterable[Sequence[Sequence[float]]]) -> list[Array]:
    """``(seeds, records)`` of each client."""
    return [np.array(rows, float) for rows in zip(*runs, strict=True)]


def _figures(means: Means, signs: Sequence[float], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    added, each = np.array(signs), np.eye(len(names))
    return {
        ALL: means.weighted(added, means.records / means.records.sum()),
        WORST: means.worst(added),
        **{name: means.weighted(added, each[place]) for place, name in enumerate(names)},
    }
