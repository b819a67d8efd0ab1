"""Explanations of the model's outputs, and how faithful they are beside a random one."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.base import Cost, Subject, Tier
from fedsafe.assess.interpretability.attribution_pictures import attribution_pictures
from fedsafe.assess.interpretability.explainers import (
    EXPLAINERS,
    ONE_BY_ONE,
    Explained,
    check_explainer,
    explain,
    public_baselines,
    unexplainable,
)
from fedsafe.assess.interpretability.protocol import NoExplanation
from fedsafe.assess.interpretability.quality import TOP, Bench, Effort, metrics_of, planned
from fedsafe.extensions import one_line
from fedsafe.findings import Finding, Scope, not_measured

Array = NDArray[np.float64]

_FEWEST = 30  # examples for an interval of a mean
_SMALL = 256  # inputs, above which a model is taken to be dear


@dataclass(frozen=True, kw_only=True)
class Interpretability:
    """Attributions of the predicted class's logit; of the positive class's, or of the number, where that is all.

    Attributes:
        explainers: Names, import paths or entry points, see `fedsafe.assess.interpretability.protocol.Explainer`.
        full: Further ones of the full tier.
        scale: Standard deviation of the Gaussian noise of infidelity, in encoded units.
        radius: Of the noise of max-sensitivity, in shares of each feature's public range.
        largest_gap: Completeness gap above which the attributions are called unreliable.

    Raises:
        ConfigError: An explainer cannot be found, or its package is not installed.
    """

    name: ClassVar[str] = "interpretability"
    explainers: tuple[str, ...] = ("integrated_gradients",)
    full: tuple[str, ...] = ("gradient_shap", "kernel_shap", "lime", "occlusion")
    scale: float = 0.1
    radius: float = 0.02
    largest_gap: float = 0.05

    def __post_init__(self) -> None:
        for name in (*self.explainers, *self.full):
            check_explainer(name)

    def plan(self, subject: Subject, tier: Tier) -> Cost:
        """Passes of the explanations and of their tests."""
        if unexplainable(subject):
            return Cost(description=f"nothing: {unexplainable(subject)}")
        effort, chosen = _effort(subject, tier), self._chosen(tier)
        forward = backward = 0
        chosen += _control(subject, chosen)
        sizes = {name: min(_size(name, effort), len(subject.evaluation)) for name in chosen}
        for name in chosen:
            more = planned(subject, name, sizes[name], effort)
            forward, backward = forward + more[0], backward + more[1]
        for size in sorted(set(sizes.values())):
            forward += Bench.planned(subject, size, effort)
        few = [name for name in chosen if name in ONE_BY_ONE]
        alone = f" ({min(effort.few, len(subject.evaluation))} by {', '.join(few)})" if few else ""
        forward += 2 * effort.few if effort.full else 0  # to say under a picture what the model says
        n = max(sizes.values(), default=0)
        names = ", ".join(self._chosen(tier))
        return Cost(
            description=f"{names} of {n} examples{alone} from 2 baselines in {effort.steps} steps",
            examples=n,
            forward=forward,
            backward=backward,
        )

    def __call__(self, subject: Subject, *, rng: np.random.Generator, tier: Tier) -> list[Finding]:
        """Measures; see `Assessor`."""
        effort, chosen, findings = _effort(subject, tier), self._chosen(tier), []
        reason = unexplainable(subject)
        if reason:
            for name in chosen:
                scope: Scope = {"where": {"explainer": name}, **subject.provenance}
                findings += _unmeasured(
                    name, tier, reason, "not_applicable", min(effort.size, len(subject.evaluation)), scope
                )
            return findings
        benches: dict[int, Bench] = {}
        for baseline, point in public_baselines(subject.task.schema).items():
            maps: dict[str, Array] = {}
            found: list[Finding] = []
            for name in (*chosen, *_control(subject, chosen)):
                size = _size(name, effort)
                rows = subject.shared_rows(size)
                context: Scope = {"where": {"explainer": name, "baseline": baseline}, **subject.provenance}
                if len(rows) < _FEWEST:
                    reason = f"{len(rows)} examples are too few"
                    found += _unmeasured(name, tier, reason, "insufficient", len(rows), context)
                    continue
                x = subject.evaluation.x[rows]
                explained = self._explained(subject, x, point, effort, name, rng)
                if not isinstance(explained, Explained):
                    found += _unmeasured(name, tier, explained[0], explained[1], len(rows), context)
                    continue
                if len(rows) not in benches:
                    benches[len(rows)] = Bench(subject, explained, effort, self.scale, rng)
                bench = benches[len(rows)]
                found += bench.findings(
                    explained,
                    name,
                    point,
                    rng,
                    context,
                    largest_gap=self.largest_gap,
                    radius=self.radius,
                )
                shown = np.flatnonzero(np.isin(rows, subject.shared_rows(effort.few)))
                maps[name] = explained.attribution[shown]
            findings += [f for f in _beside_occlusion(found) if f.where["explainer"] in chosen]
            if tier == "full" and maps:
                findings = self._with_pictures(subject, findings, maps, baseline, effort, rng)
        return findings

    def _chosen(self, tier: Tier) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.explainers, *(self.full if tier == "full" else ()))))

    def _explained(
        self,
        subject: Subject,
        x: NDArray[np.float32],
        point: NDArray[np.float32],
        effort: Effort,
        name: str,
        rng: np.random.Generator,
    ) -> Explained | tuple[str, Any]:
        """What the explainer says; or why there is nothing, and of which kind that is."""
        try:
            explained = explain(subject, x, point, effort.steps, explainer=name, rng=rng)
        except NoExplanation as error:
            return str(error), "not_applicable"
        except Exception as error:
            if name in EXPLAINERS:
                raise  # ours: the model is at fault, and the whole assessor reports it
            return f"explainer {name!r} failed: {one_line(error)}", "failed"
        if explained.broken:
            return explained.broken, "failed"
        if not np.any(explained.change):
            return "the output is the same at the baseline and at every example", "not_applicable"
        return explained

    def _with_pictures(
        self,
        subject: Subject,
        findings: list[Finding],
        maps: Mapping[str, Array],
        baseline: str,
        effort: Effort,
        rng: np.random.Generator,
    ) -> list[Finding]:
        """The findings, of which the first about sparseness from this baseline carries the maps."""
        x = subject.evaluation.x[subject.shared_rows(effort.few)]
        if subject.task.kind == "regression":
            answers = [f"{value:.3g}" for value in subject.values(x)]
        else:
            answers = [subject.task.classes[code] for code in subject.predict(x)]
        pictures = attribution_pictures(subject, x, maps, answers, rng)
        for index, finding in enumerate(findings):
            about = finding.metric == "interpretability.sparseness" and finding.where["baseline"] == baseline
            if about and finding.status == "measured" and pictures:
                detail = {**finding.detail, "pictures": pictures}
                return [*findings[:index], replace(finding, detail=detail), *findings[index + 1 :]]
        return findings


def _effort(subject: Subject, tier: Tier) -> Effort:
    """Fewer examples and nodes for images than for tables."""
    inputs = prod(subject.task.schema.shape)
    small = inputs <= _SMALL
    if tier == "cheap":
        size = min(256, max(_FEWEST, (1 << 14) // inputs))
        return Effort(size=size, few=_FEWEST, steps=20 if small else 8, draws=20 if small else 10, full=False)
    size = min(1024, max(2 * _FEWEST, (1 << 15) // inputs))
    return Effort(size=size, few=_FEWEST, steps=64 if small else 32, draws=50, full=True)


def _control(subject: Subject, chosen: tuple[str, ...]) -> tuple[str, ...]:
    """The explainer without gradients that others are compared with, where it costs little."""
    affordable = prod(subject.task.schema.shape) <= _SMALL
    return () if "occlusion" in chosen or not affordable else ("occlusion",)


def _size(explainer: str, effort: Effort) -> int:
    return effort.few if explainer in ONE_BY_ONE else effort.size


def _beside_occlusion(findings: list[Finding]) -> list[Finding]:
    """The findings of one baseline, each with the figure of the explainer that needs no gradient as an anchor."""
    known = {
        finding.metric: finding.value
        for finding in findings
        if finding.where["explainer"] == "occlusion"
        and finding.status == "measured"
        and finding.metric != TOP
    }
    return [
        replace(finding, anchors={**finding.anchors, "occlusion": known[finding.metric]})
        if finding.metric in known
        and finding.where["explainer"] != "occlusion"
        and finding.status == "measured"
        else finding
        for finding in findings
    ]


def _unmeasured(
    explainer: str, tier: Tier, reason: str, status: Any, n: int, context: Scope
) -> list[Finding]:
    metrics = metrics_of(explainer, full=tier == "full")
    return [
        not_measured(metric, reason, status=status, n=n, unit="examples", **context) for metric in metrics
    ]
