"""How much of the model's accuracy is proven, at sizes of change that attacks are measured at, too."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsafe.assess.base import Cost, Subject, Tier
from fedsafe.assess.certified import smoothing
from fedsafe.assess.certified.bounds import BOUNDS
from fedsafe.assess.certified.curve import certified_at, mean_radius, proven_point, smoothed_point
from fedsafe.assess.certified.rounding import Clean, enclosed
from fedsafe.assess.certified.smoothing import Smoothing
from fedsafe.data import Examples
from fedsafe.errors import ConfigError, ModelError
from fedsafe.extensions import one_line, resolve, unknown_option
from fedsafe.findings import (
    Context,
    Evidence,
    Finding,
    not_measured,
    proportion,
)
from fedsafe.models.bounds import InputRegion, Network, Norm, questions, trace

_ACCURACY, _SMOOTHED = "certified.accuracy", "certified.smoothed_accuracy"

# Beyond the radius, as much as an attack is forgiven: a float32 corner of a box may lie outside it.
_REACH = 1e-5
_CHUNK = 64
# A share of fewer examples is not worth its cost.
_FEWEST = 25
# Examples that are smoothed, from and to, where nothing is said.
_VOTERS = (20, 100)
_SMOOTHING = Smoothing()


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much a tier may compute.

    Attributes:
        examples: Examples to certify, at most.
        multiplications: For each method, norm and radius, at most, as far as they can be told beforehand.
        thorough: Whether a bound may take its time on what it cannot prove quickly.
        smoothing: Whether the smoothed classifier is certified, too.
    """

    examples: int
    multiplications: float
    thorough: bool
    smoothing: bool


_CHEAP = Effort(examples=100, multiplications=1e8, thorough=False, smoothing=False)
_FULL = Effort(examples=1000, multiplications=1e11, thorough=True, smoothing=True)


@dataclass(frozen=True, kw_only=True)
class Certified:
    """Certified accuracy by interval bounds and linear relaxation, and by randomised smoothing.

    An example that is not certified at a radius is not tried at a larger one, so that curves never rise.

    Attributes:
        methods: Names or import paths of bounds, see `fedsafe.assess.certified.bounds.Bound`.
        radii: Radii in the maximum norm, in encoded units.
        l2_radii: Radii in the Euclidean norm; where None, some for images and none for tables.
        smoothing: Randomised smoothing, or a table of its settings.
        smoothed_radii: Euclidean radii at which the smoothed classifier's certified accuracy is reported; 0 is its
            accuracy.
        cheap: Effort of the cheap tier, or a table of what differs from the default.
        full: Effort of the full tier, likewise.

    Raises:
        ConfigError: A bound cannot be found, or a radius is not a positive number.
    """

    name: ClassVar[str] = "certified"
    methods: tuple[str, ...] = ("ibp", "crown")
    radii: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1, 0.25)
    l2_radii: tuple[float, ...] | None = None
    smoothing: Smoothing | Mapping[str, Any] = _SMOOTHING
    smoothed_radii: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
    cheap: Effort | Mapping[str, Any] = _CHEAP
    full: Effort | Mapping[str, Any] = _FULL

    def __post_init__(self) -> None:
        for name in self.methods:
            resolve("bound", name, BOUNDS)
        for radius in (*self.radii, *(self.l2_radii or ())):
            if not 0 < radius < np.inf:
                raise ConfigError(f"certified has the radius {radius!r}; give positive numbers")
        for key, kind in (("smoothing", Smoothing), ("cheap", Effort), ("full", Effort)):
            table = getattr(self, key)
            if isinstance(table, Mapping):
                wrong = unknown_option(kind, table)
                if wrong:
                    raise ConfigError(f"certified.{key}: {wrong}")
        _ = self._smoothing

    def plan(self, subject: Subject, tier: Tier) -> Cost:
        """Clean predictions, and the draws of smoothing; bounds pass through the model in their own way."""
        reason = _unfit(subject)
        if reason:
            return Cost(description=f"nothing: {reason}")
        effort = self._effort(tier)
        sizes = self._sizes(subject, effort)
        how, n = self._smoothing, max(sizes.values(), default=0)
        forward = n
        smooth = ""
        if effort.smoothing:
            count = self._voters(subject, effort)
            forward, n = forward + count * (1 + how.selection + how.draws), max(n, count)
            smooth = f"; {how.draws} noisy copies of {count} examples"
        said = ", ".join(f"{name} on {size}" for name, size in sizes.items())
        return Cost(
            description=f"margins bounded by {said or 'nothing'} examples{smooth}",
            examples=n,
            forward=forward,
        )

    def __call__(self, subject: Subject, *, rng: np.random.Generator, tier: Tier) -> list[Finding]:
        """Measures; see `Assessor`."""
        reason = _unfit(subject)
        if reason:
            return [
                not_measured(metric, reason, status="not_applicable", **subject.provenance)
                for metric in (_ACCURACY, _SMOOTHED)
            ]
        effort = self._effort(tier)
        sizes = self._sizes(subject, effort)
        clean = Clean.of(subject, subject.shared_rows(max(sizes.values(), default=0)))
        findings: list[Finding] = []
        reason = _untraced(subject)
        if reason and set(self.methods) & BOUNDS.keys():
            # Of every built-in method, norm and radius: one finding speaks of all that it does not name.
            findings.append(not_measured(_ACCURACY, reason, status="not_applicable", **subject.provenance))
            sizes = {method: size for method, size in sizes.items() if method not in BOUNDS}
        for method, size in sizes.items():
            if not size:
                reason = f"{_FEWEST} examples cost more than this tier may compute; the full tier may, or more effort"
                where = {"method": method}
                findings.append(
                    not_measured(_ACCURACY, reason, status="insufficient", where=where, **subject.provenance)
                )
                continue
            for norm, radii in (("linf", self.radii), ("l2", self._l2(subject))):
                if radii:
                    findings += self._curve(subject, method, norm, sorted(radii), size, clean, effort)
        if effort.smoothing:
            findings += self._smoothed(subject, effort, rng)
        return findings

    @property
    def _smoothing(self) -> Smoothing:
        how = self.smoothing
        return how if isinstance(how, Smoothing) else Smoothing(**how)

    def _effort(self, tier: Tier) -> Effort:
        chosen, default = (self.cheap, _CHEAP) if tier == "cheap" else (self.full, _FULL)
        return chosen if isinstance(chosen, Effort) else replace(default, **chosen)

    def _l2(self, subject: Subject) -> tuple[float, ...]:
        if self.l2_radii is not None:
            return self.l2_radii
        return (0.1, 0.25, 0.5) if len(subject.task.schema.shape) > 1 else ()

    def _sizes(self, subject: Subject, effort: Effort) -> dict[str, int]:
        """Examples of each method."""
        most = min(effort.examples, len(subject.evaluation))
        try:
            network = trace(subject.model, subject.task.schema.shape)
        except ModelError:
            return dict.fromkeys(self.methods, most)
        sizes = {}
        for method in self.methods:
            one = _multiplications(network, method, thorough=effort.thorough)
            size = int(min(most, effort.multiplications // one))
            sizes[method] = size if size >= min(_FEWEST, most) else 0
        return sizes

    def _voters(self, subject: Subject, effort: Effort) -> int:
        """Examples that the smoothed classifier is certified on."""
        how, most = self._smoothing, len(subject.evaluation)
        if how.examples is not None:
            return min(how.examples, most)
        try:
            one = how.draws * trace(subject.model, subject.task.schema.shape).multiplications
        except ModelError:
            return min(_VOTERS[0], most)
        return min(most, max(_VOTERS[0], min(_VOTERS[1], int(effort.multiplications // one))))

    def _curve(
        self,
        subject: Subject,
        method: str,
        norm: Any,
        radii: list[float],
        size: int,
        clean: Clean,
        effort: Effort,
    ) -> list[Finding]:
        rows = subject.shared_rows(size)
        where: dict[str, Any] = {"method": method, "norm": norm}
        examples = subject.evaluation.take(rows)
        right = clean.right[rows]
        # The built-in bounds leave room for rounding themselves.
        slack = np.zeros(len(rows)) if method in BOUNDS else clean.slack[rows]
        standing = right.copy()
        reached = np.zeros(len(rows))
        findings, curve = [], []
        detail: dict[str, Any] = {"thorough": effort.thorough}
        for radius in radii:
            common: Context = {
                "where": {**where, "radius": radius},
                "bound": "lower",
                "anchors": {"clean": float(right.mean())},
                "data": subject.evaluation_name,
                "released": subject.released,
            }
            try:
                left = np.flatnonzero(standing)
                proven = _prove(
                    subject, method, norm, radius, examples.take(left), slack[left], effort.thorough
                )
            except ModelError as error:
                reason = one_line(error).removeprefix("ModelError: ")
                findings.append(not_measured(_ACCURACY, reason, status="not_applicable", **common))
                continue
            except Exception as error:
                if method in BOUNDS:
                    raise
                reason = f"bound {method!r} failed: {one_line(error)}"
                findings.append(not_measured(_ACCURACY, reason, status="failed", **common))
                continue
            standing = np.zeros(len(rows), dtype=bool)
            standing[left] = proven
            reached[standing] = radius
            common["evidence"] = Evidence(rows=rows, holds=standing.copy())
            if len(detail) == 1:
                own = method not in BOUNDS
                detail |= {"slack": clean.described} if own else enclosed(subject, method, rows[right])
            common["detail"] = detail
            finding = proportion(
                _ACCURACY, int(standing.sum()), len(rows), method="clopper-pearson", **common
            )
            findings.append(finding)
            curve.append(proven_point(finding))
        if curve:
            findings.append(
                mean_radius(subject, where, reached, curve[-1]["radius"], curve, float(right.mean()))
            )
        return findings

    def _smoothed(self, subject: Subject, effort: Effort, rng: np.random.Generator) -> list[Finding]:
        how = self._smoothing
        rows = subject.shared_rows(self._voters(subject, effort))
        examples = subject.evaluation.take(rows)
        found, abstained = smoothing.radii(subject, examples, how, rng)
        base = float(np.mean(subject.predict(examples.x) == examples.y))
        where: dict[str, Any] = {"method": "smoothing", "norm": "l2", "scale": how.scale}
        detail = {
            "selection": how.selection,
            "draws": how.draws,
            "alpha": how.alpha,
            "largest_radius": how.largest_radius,
            "abstained": int(abstained.sum()),
            "classifier": "the vote over noisy copies, not the model itself; an abstention counts as wrong",
        }
        findings = [
            proportion(
                _SMOOTHED,
                certified_at(radius, found),
                len(rows),
                method="clopper-pearson",
                where={**where, "radius": radius},
                bound="lower",
                anchors={"the model itself, as it is": base},
                detail=detail,
                **subject.provenance,
            )
            for radius in sorted(self.smoothed_radii)
            if radius < how.largest_radius
        ]
        # No certificate reaches the largest radius.
        grid = np.linspace(0, how.largest_radius, 41)[:-1]
        curve = [smoothed_point(float(radius), found) for radius in grid]
        findings.append(
            mean_radius(subject, where, np.maximum(found, 0), how.largest_radius, curve, base, detail)
        )
        return findings


def _unfit(subject: Subject) -> str:
    """Why there is nothing to certify; "" where there is."""
    if subject.task.schema.vocabulary is not None:
        return "the inputs are tokens: there is no small change of one"
    if subject.task.kind not in ("binary", "multiclass"):
        return f"a certificate is of the class that is predicted, and the task is {subject.task.kind}"
    if not subject.perturbable().any():
        return "the schema has no numeric feature that a person can change"
    return ""


def _untraced(subject: Subject) -> str:
    """Why the built-in bounds cannot look through the model; "" where they can."""
    try:
        trace(subject.model, subject.task.schema.shape)
    except ModelError as error:
        return one_line(error).removeprefix("ModelError: ")
    return ""


def _multiplications(network: Network, method: str, *, thorough: bool) -> float:
    """What one example costs, roughly: forward for intervals, backward for each linear function otherwise."""
    if method == "ibp":
        return 3.0 * network.multiplications
    return 2.0 * network.multiplications * questions(network, refine=thorough)


def _prove(
    subject: Subject,
    method: str,
    norm: Norm,
    radius: float,
    examples: Examples,
    slack: NDArray[np.float64],
    thorough: bool,
) -> NDArray[np.bool_]:
    """``(n,)`` whether the margin is positive in all of each region, with room for what rounding does."""
    bound = resolve("bound", method, BOUNDS)
    if not len(examples):
        return np.zeros(0, dtype=bool)
    low, high = (torch.tensor(end, dtype=torch.float64) for end in subject.input_bounds())
    free = torch.tensor(subject.perturbable())
    proven = []
    with torch.no_grad():
        for start in range(0, len(examples), _CHUNK):
            part = slice(start, start + _CHUNK)
            x, y = torch.tensor(examples.x[part], dtype=torch.float64), torch.tensor(examples.y[part])
            region = InputRegion.around(
                x, radius * (1 + _REACH) + _REACH, norm, low=low, high=high, free=free
            )
            margins: object = bound(subject.model, region, y, thorough=thorough)
            if not isinstance(margins, Tensor) or margins.shape != y.shape:
                raise TypeError(f"it returned {type(margins).__name__}, not one margin for each input")
            # A bound that is not finite proves nothing.
            proven.append(margins.cpu().numpy() > slack[part])
    return np.concatenate(proven)
