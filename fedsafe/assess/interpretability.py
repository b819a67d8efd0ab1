"""Integrated gradients, and how faithful they are beside a random explanation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from captum.attr import IntegratedGradients
from captum.metrics import infidelity
from numpy.typing import NDArray
from torch import Tensor

from fedsafe.assess.base import Cost, Subject, Tier, decide
from fedsafe.data import Schema
from fedsafe.findings import Finding, Scope, bootstrap, estimate, not_measured, t_interval

Array = NDArray[np.float64]

_FEWEST = 30  # examples for an interval of a mean
_ROWS = 8192


@dataclass(frozen=True, kw_only=True)
class Interpretability:
    """Integrated gradients of the predicted class's logit (the positive class's where there is one logit).

    Attributes:
        scale: Standard deviation of the Gaussian noise of infidelity, in encoded units.
        largest_gap: Completeness gap above which the attributions are called unreliable.
    """

    name: ClassVar[str] = "interpretability"
    scale: float = 0.1
    largest_gap: float = 0.05

    def plan(self, subject: Subject, tier: Tier) -> Cost:
        """Passes of the path integrals and of the infidelity."""
        examples, steps, draws = _effort(tier)
        n = min(examples, len(subject.evaluation))
        integrals = 2 * n * steps
        return Cost(
            description=f"integrated gradients of {n} examples from 2 baselines in {steps} steps",
            examples=n,
            forward=integrals + 10 * n * (draws + 1),
            backward=integrals,
        )

    def __call__(self, subject: Subject, *, rng: np.random.Generator, tier: Tier) -> list[Finding]:
        """Measures; see `Assessor`."""
        size, steps, draws = _effort(tier)
        examples = subject.sample(size, rng)
        findings = []
        for name, point in public_baselines(subject.task.schema).items():
            context: Scope = {
                "where": {"explainer": "integrated_gradients", "baseline": name},
                **subject.provenance,
            }
            if len(examples) < _FEWEST:
                findings += _unmeasured(
                    f"{len(examples)} examples are too few", "insufficient", len(examples), context
                )
                continue
            explained = explain(subject, examples.x, point, steps)
            if not np.any(explained.change):
                reason = "the output is the same at the baseline and at every example"
                findings += _unmeasured(reason, "not_applicable", len(examples), context)
                continue
            findings.append(self._completeness(explained, steps, rng, context))
            findings += self._infidelity(subject, explained, draws, rng, context)
            findings.append(self._top(subject.task.schema, explained, rng, context))
        return findings

    def _completeness(
        self, explained: "Explained", steps: int, rng: np.random.Generator, context: Scope
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
        self, subject: Subject, explained: "Explained", draws: int, rng: np.random.Generator, context: Scope
    ) -> list[Finding]:
        local = explained.local
        random = torch.tensor(rng.standard_normal(local.shape), dtype=local.dtype, device=local.device)
        random *= local.norm(dim=1, keepdim=True) / random.norm(dim=1, keepdim=True)
        seed = int(rng.integers(2**63))

        def score(attribution: Tensor, *, normalise: bool) -> Array:
            values = infidelity(
                subject.forward,
                _noise(self.scale, seed),
                explained.x,
                attribution,
                target=explained.target,
                n_perturb_samples=draws,
                max_examples_per_batch=min(max(_ROWS, len(attribution)), len(attribution) * draws),
                normalize=normalise,
            )
            return np.asarray(np.maximum(values.double().cpu().numpy(), 0.0))

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
        self, schema: Schema, explained: "Explained", rng: np.random.Generator, context: Scope
    ) -> Finding:
        metric = "interpretability.top_feature_share"
        names, strength = by_column(schema, explained.attribution)
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


@dataclass(frozen=True, kw_only=True)
class Explained:
    """Integrated gradients of some examples.

    Attributes:
        x: ``(n, features)`` the examples.
        target: Output that is explained: 0, or ``(n,)`` the predicted classes.
        local: ``(n, features)`` mean gradient on the path: the attribution of a unit change.
        attribution: ``(n, features)`` integrated gradients: `local` times the distance from the baseline.
        change: ``(n,)`` the output's change from the baseline.
        gap: ``(n,)`` the attributions' sum less that change.
    """

    x: Tensor
    target: int | Tensor
    local: Tensor
    attribution: Array
    change: Array
    gap: Array


def explain(subject: Subject, x: NDArray[np.float32], baseline: NDArray[np.float32], steps: int) -> Explained:
    """Integrated gradients along the straight path from a baseline (Sundararajan, Taly and Yan, 2017).

    Args:
        subject: Whose model is explained.
        x: ``(n, features)``.
        baseline: ``(features,)``.
        steps: Nodes of the Gauss-Legendre rule.
    """
    logits = subject.logits(x)
    rows = np.arange(len(x))
    column = np.zeros(len(x), dtype=np.int64) if subject.binary else decide(logits)
    change = logits[rows, column] - subject.logits(baseline[None])[0, column]
    inputs = subject.tensor(x).requires_grad_()
    target = 0 if subject.binary else subject.tensor(column)
    local = IntegratedGradients(subject.forward, multiply_by_inputs=False).attribute(
        inputs,
        baselines=subject.tensor(baseline[None]),
        target=target,
        n_steps=steps,
        internal_batch_size=max(_ROWS, len(x)),
    )
    gradients = local.detach().float()
    attribution = gradients.double().cpu().numpy() * (x.astype(np.float64) - baseline)
    return Explained(
        x=inputs.detach(),
        target=target,
        local=gradients,
        attribution=attribution,
        change=change,
        gap=attribution.sum(axis=1) - change,
    )


def public_baselines(schema: Schema) -> dict[str, NDArray[np.float32]]:
    """Reference points that need no record: all features 0, and the middle of the public bounds.

    The middle of a one-hot group of k features is 1/k in each.
    """
    middle = ((schema.low + schema.high) / 2).astype(np.float32)
    for group in schema.one_hot:
        middle[list(group)] = 1 / len(group)
    return {"zero": np.zeros_like(middle), "midpoint": middle}


def by_column(schema: Schema, attribution: Array) -> tuple[list[str], Array]:
    """Absolute attribution of each raw column: the one-hot features of a column are summed first.

    Args:
        schema: The public schema.
        attribution: ``(n, features)``.

    Returns:
        The columns' names, and ``(n, columns)``.
    """
    widths = [len(column.feature_names) for column in schema.columns]
    starts = np.cumsum([0, *widths[:-1]])
    return [column.name for column in schema.columns], np.abs(np.add.reduceat(attribution, starts, axis=1))


def _effort(tier: Tier) -> tuple[int, int, int]:
    """Examples, nodes of the path integral, and draws of noise for each example."""
    return (256, 32, 20) if tier == "cheap" else (1024, 64, 50)


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


def _unmeasured(reason: str, status: Any, n: int, context: Scope) -> list[Finding]:
    names = ("completeness_gap", "infidelity", "infidelity_normalised", "top_feature_share")
    return [
        not_measured(f"interpretability.{name}", reason, status=status, n=n, unit="examples", **context)
        for name in names
    ]
