"""Explanations of the model's outputs, and how faithful they are beside a random one."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np
import torch
from captum.metrics import infidelity
from numpy.typing import NDArray
from torch import Tensor

from fedsafe.assess.base import Cost, Subject, Tier
from fedsafe.assess.interpretability.explainers import (
    EXPLAINERS,
    Explained,
    explain,
    public_baselines,
    unexplainable,
)
from fedsafe.assess.interpretability.features import by_group, feature_groups
from fedsafe.data import InputSchema
from fedsafe.extensions import one_line, resolve
from fedsafe.findings import Finding, Scope, bootstrap, estimate, not_measured, t_interval

Array = NDArray[np.float64]

_FEWEST = 30  # examples for an interval of a mean


@dataclass(frozen=True, kw_only=True)
class Interpretability:
    """Attributions of the predicted class's logit; of the positive class's, or of the number, where that is all.

    Attributes:
        explainers: Names, import paths or entry points, see `fedsafe.assess.interpretability.explainers.Explainer`.
        scale: Standard deviation of the Gaussian noise of infidelity, in encoded units.
        largest_gap: Completeness gap above which the attributions are called unreliable.

    Raises:
        ConfigError: An explainer cannot be found.
    """

    name: ClassVar[str] = "interpretability"
    explainers: tuple[str, ...] = ("integrated_gradients",)
    scale: float = 0.1
    largest_gap: float = 0.05

    def __post_init__(self) -> None:
        for name in self.explainers:
            resolve("explainer", name, EXPLAINERS)

    def plan(self, subject: Subject, tier: Tier) -> Cost:
        """Passes of the path integrals and of the infidelity."""
        if unexplainable(subject):
            return Cost(description=f"nothing: {unexplainable(subject)}")
        size, steps, draws = _effort(subject, tier)
        n, kinds = min(size, len(subject.evaluation)), len(self.explainers)
        integrals = 2 * n * steps * kinds
        return Cost(
            description=f"{', '.join(self.explainers)} of {n} examples from 2 baselines in {steps} steps",
            examples=n,
            forward=integrals + 2 * kinds * (n * (draws + 2) + 1),
            backward=integrals,
        )

    def __call__(self, subject: Subject, *, rng: np.random.Generator, tier: Tier) -> list[Finding]:
        """Measures; see `Assessor`."""
        size, steps, draws = _effort(subject, tier)
        examples = subject.sample(size, rng)
        findings = []
        for explainer in self.explainers:
            if unexplainable(subject):
                where: Scope = {"where": {"explainer": explainer}, **subject.provenance}
                findings += _unmeasured(unexplainable(subject), "not_applicable", len(examples), where)
                continue
            for name, point in public_baselines(subject.task.schema).items():
                context: Scope = {
                    "where": {"explainer": explainer, "baseline": name},
                    **subject.provenance,
                }
                if len(examples) < _FEWEST:
                    findings += _unmeasured(
                        f"{len(examples)} examples are too few", "insufficient", len(examples), context
                    )
                    continue
                try:
                    explained = explain(subject, examples.x, point, steps, explainer=explainer, rng=rng)
                except Exception as error:
                    if explainer in EXPLAINERS:
                        raise  # ours: the model is at fault, and the whole assessor reports it
                    reason = f"explainer {explainer!r} failed: {one_line(error)}"
                    findings += _unmeasured(reason, "failed", len(examples), context)
                    continue
                if explained.broken:
                    findings += _unmeasured(explained.broken, "failed", len(examples), context)
                    continue
                if not np.any(explained.change):
                    reason = "the output is the same at the baseline and at every example"
                    findings += _unmeasured(reason, "not_applicable", len(examples), context)
                    continue
                findings.append(self._completeness(explained, steps, rng, context))
                findings += self._infidelity(subject, explained, draws, rng, context)
                findings.append(self._top(subject.task.schema, explained, rng, context))
        return findings

    def _completeness(
        self, explained: Explained, steps: int, rng: np.random.Generator, context: Scope
    ) -> Finding:
        pairs = np.stack([np.abs(explained.gap), np.abs(explained.change)], axis=1)
        return estimate(
            "interpretability.completeness_gap",
            float(_ratio(pairs[None])[0]),
            interval=bootstrap(pairs, _ratio, rng, resamples=1000),
            method="bca bootstrap",
            n=len(pairs),
            unit="examples",
            anchors={"zero_attribution": 1.0},
            detail={"steps": steps, "largest_gap": float(pairs[:, 0].max())},
            **context,
        )

    def _infidelity(
        self, subject: Subject, explained: Explained, draws: int, rng: np.random.Generator, context: Scope
    ) -> list[Finding]:
        # In units of the largest change: the square of a large output has no float32.
        unit = float(np.abs(explained.change).max())
        local = explained.local / unit
        random = torch.tensor(rng.standard_normal(local.shape), dtype=local.dtype, device=local.device)
        random *= _norm(local) / _norm(random)
        seed, outputs = int(rng.integers(2**63)), _Replayed(lambda x: subject.forward(x) / unit)

        def score(attribution: Tensor, *, normalise: bool) -> Array:
            outputs.rewind()
            values = infidelity(
                outputs,
                _noise(self.scale, seed),
                explained.x,
                attribution,
                target=explained.target,
                n_perturb_samples=draws,
                max_examples_per_batch=min(
                    max(subject.rows_at_once, len(attribution)), len(attribution) * draws
                ),
                normalize=normalise,
            )
            return np.asarray(np.maximum(values.double().cpu().numpy(), 0.0)) * unit**2

        nothing = score(torch.zeros_like(local), normalise=False)
        plain = score(local, normalise=False)
        detail = {"noise": "gaussian", "scale": self.scale, "draws": draws}
        found = estimate(
            "interpretability.infidelity",
            float(plain.mean()),
            interval=bootstrap(plain, lambda x: x.mean(axis=1), rng, resamples=1000),
            method="bca bootstrap",
            n=len(plain),
            unit="examples",
            anchors={
                "random_attribution": float(score(random, normalise=False).mean()),
                "zero_attribution": float(nothing.mean()),
            },
            detail=detail,
            **context,
        )
        pairs = np.stack([score(local, normalise=True), nothing], axis=1)
        if not nothing.any():
            reason = "the output does not change under noise"
            return [
                found,
                not_measured(
                    "interpretability.infidelity_normalised", reason, status="not_applicable", **context
                ),
            ]
        control = np.stack([score(random, normalise=True), nothing], axis=1)
        normalised = estimate(
            "interpretability.infidelity_normalised",
            float(_ratio(pairs[None])[0]),
            interval=bootstrap(pairs, _ratio, rng, resamples=1000),
            method="bca bootstrap",
            n=len(pairs),
            unit="examples",
            anchors={"random_attribution": float(_ratio(control[None])[0]), "zero_attribution": 1.0},
            detail=detail,
            **context,
        )
        return [found, normalised]

    def _top(
        self, schema: InputSchema, explained: Explained, rng: np.random.Generator, context: Scope
    ) -> Finding:
        metric = "interpretability.top_feature_share"
        groups = feature_groups(schema)
        names, strength = [name for name, _ in groups], by_group(groups, explained.attribution)
        total = strength.sum(axis=1)
        gap = float(np.abs(explained.gap).sum() / np.abs(explained.change).sum())
        if gap > self.largest_gap:
            reason = (
                f"the attributions miss {gap:.1%} of the output's change, {self.largest_gap:.0%} is allowed"
            )
            return not_measured(metric, reason, status="unreliable", n=len(total), unit="examples", **context)
        means = strength.mean(axis=0)
        top = int(means.argmax())
        pairs = np.stack([strength[:, top], total], axis=1)
        table: list[dict[str, Any]] = []
        for column in np.argsort(-means, kind="stable"):
            low, high = t_interval(strength[:, column])
            share = float(means[column] / means.sum())
            row = {"column": names[column], "mean_abs": float(means[column]), "share": share}
            table.append({**row, "low": max(0.0, low), "high": high})
        return estimate(
            metric,
            float(_ratio(pairs[None])[0]),
            interval=bootstrap(pairs, _ratio, rng, resamples=1000),
            method="bca bootstrap",
            n=len(total),
            unit="examples",
            anchors={"uniform": 1 / len(names)},
            diagnostics={"completeness_gap": gap},
            detail={"top": names[top], "table": table},
            **context,
        )


def _effort(subject: Subject, tier: Tier) -> tuple[int, int, int]:
    """Examples, nodes of the path integral, and draws of noise for each example: fewer of images than of tables."""
    size, values, steps, draws = (256, 1 << 16, 20, 20) if tier == "cheap" else (1024, 1 << 20, 64, 50)
    return min(size, max(100, values // prod(subject.task.schema.shape))), steps, draws


def _norm(x: Tensor) -> Tensor:
    """Euclidean norm of each example, shaped to scale it."""
    norm: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return norm.view(-1, *([1] * (x.ndim - 1)))


def _ratio(pairs: Array) -> Array:
    """Ratio of the means of the two columns of ``(rows, n, 2)``; 0 where the second is all zero."""
    sums = pairs.sum(axis=1)
    return np.asarray(np.divide(sums[:, 0], sums[:, 1], out=np.zeros(len(sums)), where=sums[:, 1] > 0))


def _noise(scale: float, seed: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """The same noise at every call, so that explanations are compared on the same draws."""
    generator = torch.Generator().manual_seed(seed)

    def perturb(inputs: Tensor) -> tuple[Tensor, Tensor]:
        drawn = scale * torch.randn(inputs.shape, generator=generator)
        drawn = drawn.to(inputs.device)
        return drawn, inputs - drawn

    return perturb


class _Replayed:
    """A model that is asked the same series of batches again and again, and evaluates each once."""

    def __init__(self, forward: Callable[[Tensor], Tensor]) -> None:
        self._forward = forward
        self._seen: list[Tensor] = []
        self._next = 0

    def rewind(self) -> None:
        self._next = 0

    def __call__(self, x: Tensor) -> Tensor:
        if self._next == len(self._seen):
            self._seen.append(self._forward(x))
        self._next += 1
        return self._seen[self._next - 1]


def _unmeasured(reason: str, status: Any, n: int, context: Scope) -> list[Finding]:
    names = ("completeness_gap", "infidelity", "infidelity_normalised", "top_feature_share")
    return [
        not_measured(f"interpretability.{name}", reason, status=status, n=n, unit="examples", **context)
        for name in names
    ]
