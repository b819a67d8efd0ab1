"""All that is measured of one explanation, with what explanations of the same examples share."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.base import Subject
from fedsafe.assess.interpretability import deletion, faithfulness, infidelity
from fedsafe.assess.interpretability import randomisation as randomising
from fedsafe.assess.interpretability import sensitivity as moving
from fedsafe.assess.interpretability.explainers import (
    EXPLAINERS,
    INCOMPLETE,
    ONE_BY_ONE,
    Explained,
    passes,
)
from fedsafe.assess.interpretability.features import by_group, feature_groups, removal_units
from fedsafe.assess.interpretability.means import gini, mean_of, ratio_of_means
from fedsafe.assess.interpretability.removal import ENUMERATED
from fedsafe.data import InputSchema
from fedsafe.extensions import one_line
from fedsafe.findings import Finding, Scope, not_measured, t_interval

Array = NDArray[np.float64]

GAP, TOP, SPARSENESS = (
    f"interpretability.{name}" for name in ("completeness_gap", "top_feature_share", "sparseness")
)

_DRAWS, _MODELS = 6, 5  # of the noise of max-sensitivity; random models


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is spent.

    Attributes:
        size: Examples.
        few: Examples of explainers that take them one by one, and of the tests that repeat explanations.
        steps: Effort of an explainer.
        draws: Of noise and of subsets, for each example.
        full: Whether deletion, faithfulness, sensitivity and randomisation are measured.
    """

    size: int
    few: int
    steps: int
    draws: int
    full: bool


def metrics_of(explainer: str, *, full: bool) -> list[str]:
    """What is measured of an explainer: completeness only of one that means to be complete."""
    gap = [] if explainer in INCOMPLETE else [GAP]
    more = [
        deletion.DELETION,
        deletion.INSERTION,
        faithfulness.CORRELATION,
        faithfulness.UNEXPLAINED,
        moving.METRIC,
        randomising.METRIC,
    ]
    return [*gap, infidelity.PLAIN, infidelity.NORMALISED, TOP, SPARSENESS, *(more if full else [])]


class Bench:
    """Tests that all explanations of the same examples go through: the same noise, subsets and random orders.

    Args:
        subject: Whose model is explained.
        explained: Any explanation of the examples.
        effort: How much is spent.
        scale: Standard deviation of the noise of infidelity, in encoded units.
        rng: Source of the noise.
    """

    def __init__(
        self, subject: Subject, explained: Explained, effort: Effort, scale: float, rng: np.random.Generator
    ) -> None:
        self._subject, self._effort = subject, effort
        self._noise = infidelity.NoiseTest(
            subject, explained.x, explained.target, scale=scale, draws=effort.draws, rng=rng
        )
        self._of_baseline: dict[bytes, tuple[deletion.RemovalTest, faithfulness.SubsetTest]] = {}

    @staticmethod
    def planned(subject: Subject, n: int, effort: Effort) -> int:
        """Forward passes of what all explanations of n examples share."""
        noise = n + 2 * n * effort.draws + n
        if not effort.full:
            return noise
        units = int(removal_units(subject.task.schema).max()) + 1
        removal = 2 * n * (deletion.ORDERS * deletion.RemovalTest.passes(units) + 1)
        return noise + removal + 2 * n * (effort.draws + 1)

    def findings(
        self,
        explained: Explained,
        explainer: str,
        baseline: NDArray[np.float32],
        rng: np.random.Generator,
        context: Scope,
        *,
        largest_gap: float,
        radius: float,
    ) -> list[Finding]:
        """Measures one explanation; see `metrics_of`."""
        schema = self._subject.task.schema
        random = infidelity.random_like(explained.local, rng)
        found = (
            [] if explainer in INCOMPLETE else [_completeness(explained, self._effort.steps, rng, context)]
        )
        found += self._noise.findings(explained.local, random, rng, context)
        allowed = np.inf if explainer in INCOMPLETE else largest_gap
        found.append(_top(schema, explained, allowed, rng, context))
        away = explained.x.detach().double().cpu().numpy() - baseline.astype(np.float64)
        of_random: Array = random.double().cpu().numpy().astype(np.float64) * away
        found.append(_sparseness(schema, explained, of_random, rng, context))
        if not self._effort.full:
            return found
        key = baseline.tobytes()
        if key not in self._of_baseline:
            x = explained.x.detach().cpu().numpy()
            self._of_baseline[key] = (
                deletion.RemovalTest(self._subject, x, baseline, rng),
                faithfulness.SubsetTest(
                    self._subject,
                    explained.x,
                    baseline,
                    explained.target,
                    subsets=self._effort.draws,
                    rng=rng,
                ),
            )
        removal, subsets = self._of_baseline[key]
        found += removal.findings(explained, rng, context)
        found += subsets.findings(explained.attribution, of_random, rng, context)
        return [*found, *self._repeated(explained, explainer, baseline, rng, context, radius)]

    def _repeated(
        self,
        explained: Explained,
        explainer: str,
        baseline: NDArray[np.float32],
        rng: np.random.Generator,
        context: Scope,
        radius: float,
    ) -> list[Finding]:
        """The tests that explain again."""
        columns = len(feature_groups(self._subject.task.schema))
        if _dear(explainer, columns):
            reason = "the explainer fits a regression to each example: too slow to repeat for variants of the examples"
            return [
                not_measured(
                    metric, reason, status="insufficient", n=len(explained.change), unit="examples", **context
                )
                for metric in (moving.METRIC, randomising.METRIC)
            ]
        few, steps = self._effort.few, self._effort.steps // 2
        part = Explained(
            x=explained.x[:few],
            target=explained.target[:few],
            local=explained.local[:few],
            attribution=explained.attribution[:few],
            change=explained.change[:few],
            gap=explained.gap[:few],
        )

        def moved() -> Finding:
            return moving.sensitivity(
                self._subject,
                part.x,
                part.target,
                baseline,
                steps,
                explainer=explainer,
                draws=_DRAWS,
                radius=radius,
                rng=rng,
                context=context,
            )

        def redrawn() -> Finding:
            return randomising.randomisation(
                self._subject,
                part,
                baseline,
                steps,
                explainer=explainer,
                models=_MODELS,
                rng=rng,
                context=context,
            )

        found = []
        for metric, test in ((moving.METRIC, moved), (randomising.METRIC, redrawn)):
            try:
                found.append(test())
            except Exception as error:
                if explainer in EXPLAINERS:
                    raise  # ours: the model is at fault, and the whole assessor reports it
                reason = f"explainer {explainer!r} failed: {one_line(error)}"
                found.append(not_measured(metric, reason, n=len(part.x), unit="examples", **context))
        return found


def planned(subject: Subject, explainer: str, n: int, effort: Effort) -> tuple[int, int]:
    """Forward and backward passes of an explainer's explanations of n examples, from two baselines, and their tests."""
    columns = len(feature_groups(subject.task.schema))
    ahead, back = passes(explainer, columns, effort.steps)
    forward, backward = n * (ahead + 2) + 2, n * back
    if effort.full:
        units = int(removal_units(subject.task.schema).max()) + 1
        forward += n * deletion.RemovalTest.passes(units)
        if not _dear(explainer, columns):
            few = min(effort.few, n)
            times = _DRAWS + 1 + _MODELS + randomising.stages(subject.model)
            ahead, back = passes(explainer, columns, effort.steps // 2)
            forward, backward = forward + times * (few * ahead + 1), backward + times * few * back
    return 2 * forward, 2 * backward


def _dear(explainer: str, columns: int) -> bool:
    """Whether each example takes a regression of its own, so that explaining variants of it takes minutes."""
    return explainer in ONE_BY_ONE and not (explainer == "kernel_shap" and columns <= ENUMERATED)


def _completeness(explained: Explained, steps: int, rng: np.random.Generator, context: Scope) -> Finding:
    gap = np.abs(explained.gap)
    return ratio_of_means(
        GAP,
        gap,
        np.abs(explained.change),
        rng,
        anchors={"zero_attribution": 1.0},
        detail={"steps": steps, "largest_gap": float(gap.max())},
        **context,
    )


def _sparseness(
    schema: InputSchema, explained: Explained, random: Array, rng: np.random.Generator, context: Scope
) -> Finding:
    groups = feature_groups(schema)
    if len(groups) < 2:
        reason = "there is one column only: it holds everything"
        return not_measured(SPARSENESS, reason, status="not_applicable", **context)
    control = gini(by_group(groups, random)).mean()
    return mean_of(
        SPARSENESS,
        gini(by_group(groups, explained.attribution)),
        rng,
        anchors={"random_attribution": float(control), "uniform": 0.0},
        detail={"columns": len(groups)},
        **context,
    )


def _top(
    schema: InputSchema, explained: Explained, largest_gap: float, rng: np.random.Generator, context: Scope
) -> Finding:
    groups = feature_groups(schema)
    names, strength = [name for name, _ in groups], by_group(groups, explained.attribution)
    total = strength.sum(axis=1)
    gap = float(np.abs(explained.gap).sum() / np.abs(explained.change).sum())
    if gap > largest_gap:
        reason = f"the attributions miss {gap:.1%} of the output's change, {largest_gap:.0%} is allowed"
        return not_measured(TOP, reason, status="unreliable", n=len(total), unit="examples", **context)
    means = strength.mean(axis=0)
    if not means.any():
        reason = "every attribution is zero"
        return not_measured(TOP, reason, status="not_applicable", n=len(total), unit="examples", **context)
    top = int(means.argmax())
    table: list[dict[str, Any]] = []
    for column in np.argsort(-means, kind="stable"):
        low, high = t_interval(strength[:, column])
        share = float(means[column] / means.sum())
        row = {"column": names[column], "mean_abs": float(means[column]), "share": share}
        table.append({**row, "low": max(0.0, low), "high": high})
    return ratio_of_means(
        TOP,
        strength[:, top],
        total,
        rng,
        anchors={"uniform": 1 / len(names)},
        diagnostics={"completeness_gap": gap},
        detail={"top": names[top], "table": table},
        **context,
    )
