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
from fedsafe.assess.interpretability.explainers import (
    DRAWING,
    EXPLAINERS,
    check_explainer,
    explain,
    passes,
    public_baselines,
    unexplainable,
)
from fedsafe.assess.interpretability.features import by_group, feature_groups
from fedsafe.assess.interpretability.protocol import NoExplanation
from fedsafe.assess.interpretability.ranks import kendall, spearman
from fedsafe.assess.resampling import draw_counts
from fedsafe.data import Task
from fedsafe.errors import ConfigError, ModelError
from fedsafe.extensions import one_line
from fedsafe.findings import Finding, Scope, estimate, not_measured, percentile
from fedsafe.rng import public_generator

Array = NDArray[np.float64]

_FEWEST = 30  # examples in each sample
_BASELINE = "midpoint"
_RESAMPLES = 500
_TOP = 5  # columns that a reader remembers
_SMALL = 256  # inputs, above which a model is taken to be dear

Absence = Literal["insufficient", "not_applicable", "failed"]


@dataclass(frozen=True, kw_only=True)
class Consistency:
    """Rank correlation of the columns' mean absolute attributions, and the overlap of the strongest five.

    ``between = "rounds"``: this model and that of the last assessment, on the same examples. ``between = "samples"``:
    this model on disjoint samples of examples, each with its own seed; what differs there is no property of the model.
    ``between = "seeds"``, in the full tier: the same examples explained twice, by an explainer that draws at random.

    Attributes:
        explainer: Name, import path or entry point, see `fedsafe.assess.interpretability.protocol.Explainer`.
        samples: Disjoint samples.

    Raises:
        ConfigError: The explainer cannot be found.
    """

    name: ClassVar[str] = "consistency"
    explainer: str = "integrated_gradients"
    samples: int = 4

    def __post_init__(self) -> None:
        check_explainer(self.explainer)

    def plan(self, subject: Subject, tier: Tier) -> Cost:
        """Passes of the explanations of one model or two."""
        if unexplainable(subject):
            return Cost(description=f"nothing: {unexplainable(subject)}")
        size, steps = _effort(subject, tier)
        n = min(self.samples * size, len(subject.evaluation))
        models = 1 if subject.previous is None else 2
        ahead, back = passes(self.explainer, len(feature_groups(subject.task.schema)), steps)
        seeds = 1 if tier == "full" and self.explainer in DRAWING else 0
        return Cost(
            description=f"{self.explainer} of {n} examples",
            examples=n,
            forward=models * ((ahead + 1) * n + 2 * self.samples) + seeds * ((ahead + 1) * n + 2),
            backward=(models + seeds) * back * n,
        )

    def __call__(self, subject: Subject, *, rng: np.random.Generator, tier: Tier) -> list[Finding]:
        """Measures; see `Assessor`."""
        reason = unexplainable(subject)
        kinds = ("rounds", "samples", *(["seeds"] if tier == "full" else []))
        scopes = [_scope(subject, self.explainer, between) for between in kinds]
        rounds, samples = scopes[:2]
        if reason:
            return [finding for scope in scopes for finding in _missing(reason, "not_applicable", scope)]
        size, steps = _effort(subject, tier)
        examples = subject.sample(self.samples * size, rng)
        if len(examples) < self.samples * _FEWEST:
            reason = f"{len(examples)} examples are too few for {self.samples} samples of {_FEWEST}"
            return [finding for scope in scopes for finding in _missing(reason, "insufficient", scope)]
        parts = np.array_split(rng.permutation(len(examples)), self.samples)
        try:
            here = np.concatenate(
                [strengths(subject, examples.x[part], steps, self.explainer, rng) for part in parts]
            )
            again = before = None
            if tier == "full" and self.explainer in DRAWING:
                again = strengths(subject, examples.x[np.concatenate(parts)], steps, self.explainer, rng)
            if subject.previous is not None:
                earlier = replace(subject, model=subject.previous)
                before = strengths(earlier, examples.x[np.concatenate(parts)], steps, self.explainer, rng)
        except NoExplanation as error:
            return [finding for scope in scopes for finding in _missing(str(error), "not_applicable", scope)]
        except Exception as error:
            if self.explainer in EXPLAINERS:
                raise  # ours: the model is at fault, and the whole assessor reports it
            reason = f"explainer {self.explainer!r} failed: {one_line(error)}"
            return [finding for scope in scopes for finding in _missing(reason, "failed", scope)]
        stops = np.cumsum([len(part) for part in parts])[:-1]
        found = _compare(np.split(here, stops), samples, rng, paired=False)
        if again is not None:
            found += _compare([here, again], scopes[2], rng, paired=True)
        elif tier == "full":
            found += _missing(
                "the explainer draws nothing: every seed gives the same", "not_applicable", scopes[2]
            )
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
    check_explainer(explainer)
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
                anchors={"random_order": _by_chance(metric, parts[0].shape[1])},
                detail={"pairs": len(pairs), "lowest": min(values), "columns": parts[0].shape[1]},
                **scope,
            )
        )
    return findings


def top_overlap(left: Array, right: Array) -> Array:
    """``(rows,)`` share of the five strongest columns that two rows ``(rows, columns)`` have in common.

    Of up to five columns, the strongest half is compared.
    """
    columns = left.shape[1]
    count = _TOP if columns > _TOP else max(1, columns // 2)
    strongest = [np.argsort(-part, axis=1, kind="stable")[:, :count] for part in (left, right)]
    shared = (strongest[0][:, :, None] == strongest[1][:, None, :]).any(axis=2)
    return np.asarray(shared.mean(axis=1))


_FIGURES: Mapping[str, Callable[[Array, Array], Array]] = MappingProxyType(
    {
        "consistency.kendall": kendall,
        "consistency.spearman": spearman,
        "consistency.top_overlap": top_overlap,
    }
)


def _by_chance(metric: str, columns: int) -> float:
    """What two unrelated orders of the columns have on average."""
    if metric != "consistency.top_overlap":
        return 0.0
    return (_TOP if columns > _TOP else max(1, columns // 2)) / columns


def _scope(subject: Subject, explainer: str, between: str) -> Scope:
    where = {"between": between, "explainer": explainer, "baseline": _BASELINE}
    return {"where": where, **subject.provenance}


def _missing(reason: str, status: Absence, scope: Scope) -> list[Finding]:
    return [not_measured(metric, reason, status=status, **scope) for metric in _FIGURES]


def _effort(subject: Subject, tier: Tier) -> tuple[int, int]:
    """Examples of a sample and nodes of the path integral, fewer of both for images than for tables."""
    inputs = prod(subject.task.schema.shape)
    size, values, steps = (64, 1 << 14, 16) if tier == "cheap" else (256, 1 << 16, 32)
    return min(size, max(_FEWEST, values // inputs)), steps if inputs <= _SMALL else steps // 4
