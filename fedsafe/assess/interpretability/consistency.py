"""Whether the model's reasons stay: how alike the columns rank by attribution, over rounds, samples and runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import prod
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fedsafe.assess.base import Cost, Subject, Tier
from fedsafe.assess.interpretability.explainers import EXPLAINERS, explain, public_baselines, unexplainable
from fedsafe.assess.interpretability.features import by_group, feature_groups
from fedsafe.assess.interpretability.ranks import kendall, spearman
from fedsafe.assess.resampling import draw_counts
from fedsafe.data import Task
from fedsafe.errors import ConfigError, ModelError
from fedsafe.extensions import one_line, resolve
from fedsafe.findings import Finding, Scope, estimate, not_measured, percentile
from fedsafe.rng import public_generator

Array = NDArray[np.float64]

_FEWEST = 30  # examples in each sample
_BASELINE = "midpoint"
_RESAMPLES = 500

Absence = Literal["insufficient", "not_applicable", "failed"]


@dataclass(frozen=True, kw_only=True)
class Consistency:
    """Rank correlation of the columns' mean absolute attributions.

    ``between = "rounds"``: this model and that of the last assessment, on the same examples. ``between = "samples"``:
    this model on disjoint samples of examples, each with its own seed; what differs there is no property of the model.

    Attributes:
        explainer: Name, import path or entry point, see `fedsafe.assess.interpretability.explainers.Explainer`.
        samples: Disjoint samples.

    Raises:
        ConfigError: The explainer cannot be found.
    """

    name: ClassVar[str] = "consistency"
    explainer: str = "integrated_gradients"
    samples: int = 4

    def __post_init__(self) -> None:
        resolve("explainer", self.explainer, EXPLAINERS)

    def plan(self, subject: Subject, tier: Tier) -> Cost:
        """Passes of the explanations of one model or two."""
        if unexplainable(subject):
            return Cost(description=f"nothing: {unexplainable(subject)}")
        size, steps = _effort(subject, tier)
        n = min(self.samples * size, len(subject.evaluation))
        models = 1 if subject.previous is None else 2
        return Cost(
            description=f"{self.explainer} of {n} examples",
            examples=n,
            forward=models * ((steps + 1) * n + self.samples),
            backward=models * steps * n,
        )

    def __call__(self, subject: Subject, *, rng: np.random.Generator, tier: Tier) -> list[Finding]:
        """Measures; see `Assessor`."""
        reason = unexplainable(subject)
        rounds, samples = (_scope(subject, self.explainer, between) for between in ("rounds", "samples"))
        if reason:
            return [*_missing(reason, "not_applicable", rounds), *_missing(reason, "not_applicable", samples)]
        size, steps = _effort(subject, tier)
        examples = subject.sample(self.samples * size, rng)
        if len(examples) < self.samples * _FEWEST:
            reason = f"{len(examples)} examples are too few for {self.samples} samples of {_FEWEST}"
            return [*_missing(reason, "insufficient", rounds), *_missing(reason, "insufficient", samples)]
        parts = np.array_split(rng.permutation(len(examples)), self.samples)
        try:
            here = np.concatenate(
                [strengths(subject, examples.x[part], steps, self.explainer, rng) for part in parts]
            )
            before = None
            if subject.previous is not None:
                earlier = replace(subject, model=subject.previous)
                before = strengths(earlier, examples.x[np.concatenate(parts)], steps, self.explainer, rng)
        except Exception as error:
            if self.explainer in EXPLAINERS:
                raise  # ours: the model is at fault, and the whole assessor reports it
            reason = f"explainer {self.explainer!r} failed: {one_line(error)}"
            return [*_missing(reason, "failed", rounds), *_missing(reason, "failed", samples)]
        stops = np.cumsum([len(part) for part in parts])[:-1]
        found = _compare(np.split(here, stops), samples, rng, paired=False)
        if before is None:
            return [*_missing("there is no earlier assessment", "not_applicable", rounds), *found]
        return [*_compare([before, here], rounds, rng, paired=True), *found]


def importance_consistency(
    models: Sequence[nn.Module],
    task: Task,
    *,
    examples: int = 256,
    explainer: str = "integrated_gradients",
    seed: int = 0,
) -> list[Finding]:
    """How alike several models rank the columns: the same configuration run with several seeds, for example.

    Args:
        models: Two or more, each from ``(n, *inputs)`` to ``(n, *outputs)``; none is changed.
        task: Whose evaluation records are explained.
        examples: How many of them.
        explainer: Name, import path or entry point.
        seed: Of the public randomness.

    Returns:
        Kendall's and Spearman's correlation, each the mean over the pairs of models, with ``between = "runs"``.

    Raises:
        ConfigError: There are fewer than two models, or the explainer cannot be found.
    """
    if len(models) < 2:
        raise ConfigError(f"{len(models)} models cannot be compared; give two or more")
    resolve("explainer", explainer, EXPLAINERS)
    rng = public_generator(seed, "importance consistency")
    first = Subject.outside(models[0], task)
    scope = _scope(first, explainer, "runs")
    if reason := unexplainable(first):
        return _missing(reason, "not_applicable", scope)
    x = first.sample(examples, rng).x
    _, steps = _effort(first, "full")
    parts = [strengths(Subject.outside(model, task), x, steps, explainer, rng) for model in models]
    return _compare(parts, scope, rng, paired=True)


def strengths(
    subject: Subject, x: NDArray[np.float32], steps: int, explainer: str, rng: np.random.Generator
) -> Array:
    """``(n, groups)`` absolute attribution of each column or patch, from the middle of the public bounds.

    Args:
        subject: Whose model is explained.
        x: ``(n, *inputs)``.
        steps: Effort of the explainer.
        explainer: Name, import path or entry point.
        rng: Source of the explainer's randomness.

    Raises:
        ModelError: An attribution is not finite: such columns have no order.
    """
    schema = subject.task.schema
    baseline = public_baselines(schema)[_BASELINE]
    explained = explain(subject, x, baseline, steps, explainer=explainer, rng=rng)
    if explained.broken:
        raise ModelError(explained.broken)
    return by_group(feature_groups(schema), explained.attribution)


def _compare(
    parts: Sequence[Array], scope: Scope, rng: np.random.Generator, *, paired: bool
) -> list[Finding]:
    """Mean correlation over the pairs of parts ``(n, groups)``; paired ones are of the same examples."""
    if parts[0].shape[1] < 2:
        return _missing("there is one column only: it has no rank", "not_applicable", scope)
    means = [part.mean(axis=0)[None] for part in parts]
    if any(np.ptp(mean) == 0 for mean in means):
        return _missing("all columns have the same attribution: they have no order", "not_applicable", scope)
    weights = draw_counts(len(parts[0]), _RESAMPLES, rng) if paired else None
    drawn = [
        (draw_counts(len(p), _RESAMPLES, rng) if weights is None else weights) @ p / len(p) for p in parts
    ]
    pairs = list(combinations(range(len(parts)), 2))
    n = len(parts[0]) if paired else sum(map(len, parts))
    findings = []
    for metric, figure in _FIGURES.items():
        values = [float(figure(means[i], means[j])[0]) for i, j in pairs]
        replicates = np.mean([figure(drawn[i], drawn[j]) for i, j in pairs], axis=0)
        # Resampling only adds noise to the order: its interval may lie below the value.
        value, replicates = float(np.mean(values)), replicates[np.isfinite(replicates)]
        low, high = percentile(replicates) if len(replicates) else (-1.0, 1.0)
        findings.append(
            estimate(
                metric,
                value,
                interval=(min(low, value), max(high, value)),
                method="bootstrap over examples, widened to the value",
                n=n,
                unit="examples",
                anchors={"random_order": 0.0},
                detail={"pairs": len(pairs), "lowest": min(values), "columns": parts[0].shape[1]},
                **scope,
            )
        )
    return findings


_FIGURES: Mapping[str, Callable[[Array, Array], Array]] = MappingProxyType(
    {"consistency.kendall": kendall, "consistency.spearman": spearman}
)


def _scope(subject: Subject, explainer: str, between: str) -> Scope:
    where = {"between": between, "explainer": explainer, "baseline": _BASELINE}
    return {"where": where, **subject.provenance}


def _missing(reason: str, status: Absence, scope: Scope) -> list[Finding]:
    return [not_measured(metric, reason, status=status, **scope) for metric in _FIGURES]


def _effort(subject: Subject, tier: Tier) -> tuple[int, int]:
    """Examples of a sample, fewer of images than of tables, and nodes of the path integral."""
    size, values, steps = (64, 1 << 14, 16) if tier == "cheap" else (256, 1 << 17, 32)
    return min(size, max(_FEWEST, values // prod(subject.task.schema.shape))), steps
