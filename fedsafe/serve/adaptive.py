"""An attack that knows the monitor: it wants to be misread and not to be noticed (Tramer et al., 2020).

It climbs the margin less what differentiable copies of the detectors say beyond their scores at the level. Where a
detector has no gradient, another stands in on the way back (backward pass differentiable approximation, Athalye et al.,
2018): rounding passes gradients on as they are, and the column tree passes none. Of all inputs on the way the attack
keeps the one that is misread with the largest p-value of the real monitor.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsafe.assess.robustness.gradient import climb
from fedsafe.assess.robustness.regions import Region
from fedsafe.assess.robustness.search import margin
from fedsafe.serve.detectors import Detector
from fedsafe.serve.detectors.distances import Mahalanobis, Nearest
from fedsafe.serve.detectors.energy import Energy
from fedsafe.serve.detectors.squeezing import Squeezing
from fedsafe.serve.monitor import COMBINED, Monitor

Score = Callable[[Tensor, Tensor, Tensor, Callable[[Tensor], Tensor]], Tensor]
_TINY = 1e-12


def adaptive_attack(
    monitor: Monitor,
    x: Tensor,
    y: Tensor,
    region: Region,
    *,
    steps: int,
    restarts: int,
    rng: np.random.Generator,
) -> Tensor:
    """Attacks a batch.

    Args:
        monitor: With its model, a classifier.
        x: ``(n, *inputs)`` clean inputs.
        y: ``(n,)`` true classes.
        region: Where inputs may move.
        steps: Gradient steps of a restart.
        restarts: Starts, each with another weight between being misread and being unnoticed.
        rng: The only source of randomness.

    Returns:
        ``(n, *inputs)`` inputs in the region; the clean one where none was misread.
    """
    answers, joined = _forwards(monitor.forward.model)
    outputs = answers(x[:1]).shape[1]
    scores = _scores(monitor)
    best, found = x.clone(), torch.full((len(x),), -1.0, dtype=torch.float64)

    def forward(point: Tensor) -> Tensor:
        logits, features = joined(point)
        noticed = [score(point.flatten(1), features, logits, answers) for score in scores]
        together = torch.stack(noticed).clamp(min=0).sum(dim=0) if noticed else logits.new_zeros(len(point))
        return torch.cat([logits, together[:, None]], dim=1)

    def record(point: Tensor, logits: Tensor, rows: Tensor) -> None:
        wrong = margin(logits, y[rows]) > 0
        if not wrong.any():
            return
        point, rows = point.detach()[wrong], rows[wrong]
        p = torch.tensor(monitor.check(point.cpu().numpy()).p_values[COMBINED])
        better = p > found[rows]
        best[rows[better]] = point[better]
        found[rows[better]] = p[better]

    for restart in range(restarts):
        weight = 0.3 * 3.0 ** (restart % 4)

        def loss(both: Tensor, labels: Tensor, weight: float = weight) -> Tensor:
            # Beyond a clear error only the monitor counts.
            return margin(both[:, :outputs], labels).clamp(max=0.5) - weight * both[:, outputs]

        def seen(point: Tensor, both: Tensor, rows: Tensor) -> Tensor:
            record(point, both[:, :outputs], rows)
            return torch.ones(len(point), dtype=torch.bool)

        start = x if restart == 0 else region.uniform(rng)
        last, rows = climb(
            forward, start, y, region, sizes=np.geomspace(0.5, 0.02, steps), loss=loss, seen=seen
        )
        with torch.no_grad():
            record(last, answers(last), rows)
    return best


def without_gradient(monitor: Monitor) -> tuple[str, ...]:
    """Names of the detectors that the attack does not climb down: it only asks the monitor with them in it."""
    detectors = [each for group in monitor.detectors.values() for each in group]
    return tuple(each.name for each in detectors if _differentiable(each) is None)


def _forwards(
    model: nn.Module,
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], tuple[Tensor, Tensor]]]:
    """The model alone, and with the features before its last linear layer; both differentiable."""
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]

    def answers(x: Tensor) -> Tensor:
        logits: Tensor = model(x)
        return logits

    def joined(x: Tensor) -> tuple[Tensor, Tensor]:
        kept: list[Tensor] = []
        hook = (
            linear[-1].register_forward_pre_hook(lambda _m, given: kept.append(given[0])) if linear else None
        )
        try:
            logits = answers(x)
        finally:
            if hook is not None:
                hook.remove()
        fits = len(kept) == 1 and kept[0].ndim == 2
        return logits, kept[0] if fits else x.flatten(1)

    return answers, joined


def _scores(monitor: Monitor) -> list[Score]:
    """For each detector with a gradient: how far it is beyond its score at the level, in its own scale."""
    surprise = float(np.quantile(monitor.calibrations[COMBINED].scores, 1.0 - monitor.level))
    found: list[Score] = []
    for kind, detectors in monitor.detectors.items():
        for detector, scale in zip(detectors, monitor.scales[kind], strict=True):
            score = _differentiable(detector)
            if score is None:
                continue
            limit = float(np.interp(surprise, scale.surprise, scale.at))
            found.append(_beyond(score, limit, max(scale.scale, _TINY)))
    return found


def _beyond(score: Score, limit: float, scale: float) -> Score:
    # A little below the limit already: the copy and the detector differ by rounding.
    return lambda x, features, logits, answers: (score(x, features, logits, answers) - limit) / scale + 0.1


def _differentiable(detector: Detector) -> Score | None:
    if isinstance(detector, Energy):
        return lambda _x, _f, logits, _a: -torch.logsumexp(_both(logits), dim=1)
    if isinstance(detector, Mahalanobis):
        return _mahalanobis(detector)
    if isinstance(detector, Nearest):
        return _nearest(detector)
    return _squeezing(detector) if isinstance(detector, Squeezing) else None


def _both(logits: Tensor) -> Tensor:
    return torch.cat([-logits / 2, logits / 2], dim=1) if logits.shape[1] == 1 else logits


def _mahalanobis(detector: Mahalanobis) -> Score:
    whiten, means, background, centre = (
        torch.tensor(part) for part in (detector.whiten, detector.means, detector.background, detector.centre)
    )

    def score(x: Tensor, features: Tensor, _l: Tensor, _a: Callable[[Tensor], Tensor]) -> Tensor:
        values = x if detector.space == "inputs" else features
        found = torch.cdist(values @ whiten, means).square().amin(dim=1)
        if detector.relative:
            found = found - (values @ background - centre).square().sum(dim=1)
        return found

    return score


def _nearest(detector: Nearest) -> Score:
    known, labels = torch.tensor(detector.known), torch.tensor(detector.labels)

    def score(x: Tensor, features: Tensor, logits: Tensor, _a: Callable[[Tensor], Tensor]) -> Tensor:
        values = x
        if detector.space == "features":
            values = features / features.norm(dim=1, keepdim=True).clamp(min=_TINY)
        distances = torch.cdist(values, known).square()
        if len(labels):
            own = _both(logits).argmax(dim=1)[:, None] == labels[None, :]
            distances = distances.masked_fill(~own, 1e6)
        return distances.kthvalue(detector.k, dim=1).values

    return score


def _squeezing(detector: Squeezing) -> Score:
    moved = torch.tensor(detector.moved)

    def score(x: Tensor, _f: Tensor, logits: Tensor, answers: Callable[[Tensor], Tensor]) -> Tensor:
        before = torch.softmax(_both(logits), dim=1)
        worst = logits.new_zeros(len(x))
        squeezed: Sequence[NDArray[np.float32]] = detector.squeezed(x.detach().numpy())
        for values in squeezed:
            # Its value is the squeezed input's, its gradient that of the input.
            through = x + torch.where(moved, torch.tensor(values) - x, 0.0).detach()
            after = torch.softmax(_both(answers(through.reshape(-1, *detector.shape))), dim=1)
            worst = torch.maximum(worst, (after - before).abs().sum(dim=1))
        return worst

    return score
