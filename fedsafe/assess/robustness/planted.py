"""The active test: an adversarial is planted, and an attack that misses it is too weak (Zimmermann et al., 2022).

For one example at a time the last linear layer is replaced by a new head of two classes over the features before it.
The head is a linear discriminant between one random point on the edge of the region, the planted adversarial, and many
random points at most half as far; its threshold lies just below the planted one. So an adversarial is known to exist,
the clean input and what surrounds it are none, and all up to the features is the model's own, with whatever masks its
gradients.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedsafe.assess.base import Subject
from fedsafe.assess.robustness.attacking import CONTROL, distances, region_around
from fedsafe.assess.robustness.attacks import ATTACKS
from fedsafe.assess.robustness.gradient import random_edges
from fedsafe.assess.robustness.search import Forward
from fedsafe.data import Examples
from fedsafe.extensions import resolve

INSIDE = 128
"""Random points around each example that are no adversarials."""

# They lie within this share of the radius, as most of a ball lies near its surface.
_INNER = 0.5
# The threshold lies this far from what is inside towards the planted point.
_BETWEEN = 0.9
# With more features the discriminant is the difference of the means.
_MOST_FEATURES = 1024
_FILLER = -20.0


@dataclass(frozen=True, kw_only=True)
class Planted:
    """What became of the planted adversarials.

    Attributes:
        tried: Examples in whose heads one could be planted.
        found: For each attack, and for `CONTROL`, how many of these it found.
    """

    tried: int
    found: Mapping[str, int]


def plant(
    subject: Subject,
    examples: Examples,
    names: Sequence[str],
    norm: str,
    radius: float,
    budgets: Mapping[str, tuple[int, int]],
    rng: np.random.Generator,
) -> Planted:
    """Plants an adversarial for each example, and has each attack look for it.

    Args:
        subject: Whose model is given new heads.
        examples: A few examples.
        names: Of the attacks.
        norm: "linf" or "l2".
        radius: In encoded units.
        budgets: Steps and restarts of each attack.
        rng: The only source of randomness.
    """
    tried, found = 0, dict.fromkeys((*names, CONTROL), 0)
    with _features(subject) as (features, outputs):
        for row in range(len(examples)):
            x = subject.tensor(examples.x[row : row + 1])
            head = _head(features, outputs, x, subject, norm, radius, rng)
            if head is None:
                continue
            tried += 1
            y = torch.zeros(1, dtype=torch.long, device=x.device)
            for name in found:
                region = region_around(subject, x, norm, radius)
                try:
                    if name == CONTROL:
                        point = random_edges(head, x, y, region, draws=budgets[name][0], rng=rng)
                    else:
                        steps, restarts = budgets[name]
                        attack = resolve("attack", name, ATTACKS)
                        point = attack(head, x.clone(), y, region, steps=steps, restarts=restarts, rng=rng)
                except Exception:  # a user's own attack may raise anything; that it misses is what counts
                    if name in ATTACKS or name == CONTROL:
                        raise
                    continue
                moved = distances(x.cpu().numpy(), point.detach().cpu().numpy(), norm)[0]
                with torch.no_grad():
                    errs = _errs(head(point))
                found[name] += int(errs and moved <= radius * (1 + 1e-4))
    return Planted(tried=tried, found=found)


def _errs(logits: Tensor) -> bool:
    return bool(logits[0, 0] > 0) if logits.shape[1] == 1 else bool(logits[0].argmax() != 0)


def _head(
    features: Forward,
    outputs: int,
    x: Tensor,
    subject: Subject,
    norm: str,
    radius: float,
    rng: np.random.Generator,
) -> Forward | None:
    """Logits with class 0 around the clean input and class 1 at the planted point; None where no plane parts them."""
    many = x.expand(INSIDE, *x.shape[1:])
    inside = region_around(subject, many, norm, _INNER * radius).uniform(rng)
    edge = region_around(subject, x, norm, radius).extreme(rng)
    with torch.no_grad():
        rows = features(torch.cat([x, inside, edge])).double()
    around, planted = rows[:-1], rows[-1]
    towards = planted - around.mean(dim=0)
    if len(towards) <= _MOST_FEATURES:
        centred = around - around.mean(dim=0)
        spread = centred.T @ centred / len(around)
        ridge = 1e-3 * spread.diagonal().mean() + 1e-12
        towards = torch.linalg.solve(spread + ridge * torch.eye(len(spread), device=x.device), towards)
    scores, top = around @ towards, planted @ towards
    low = scores.max()
    gap = top - low
    if not bool(torch.isfinite(top)) or float(gap) <= 1e-6 * float(scores.abs().max() + top.abs()):
        return None
    # The clean input's surroundings reach -1 and the planted point is above 0.
    weight = (towards / (_BETWEEN * gap)).to(x.dtype)
    threshold = float((low + _BETWEEN * gap) / (_BETWEEN * gap))

    def head(point: Tensor) -> Tensor:
        score = features(point) @ weight - threshold
        if outputs == 1:
            return score[:, None]
        other = torch.full((len(point), outputs - 2), _FILLER, dtype=score.dtype, device=score.device)
        return torch.cat([torch.zeros_like(score)[:, None], score[:, None], other], dim=1)

    return head


@contextmanager
def _features(subject: Subject) -> Iterator[tuple[Forward, int]]:
    """What the last linear layer is given, if its outputs are the model's; else the outputs themselves."""
    model, outputs = subject.model, subject.task.signature.outputs[0]
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append((module, inputs[0], output))

    hooks = [module.register_forward_hook(note) for module in linear]
    try:
        with torch.no_grad():
            result = subject.forward(subject.tensor(subject.evaluation.x[:1]))
        last = calls[-1] if calls else None
        head = last[0] if last is not None and torch.equal(last[2], result) else None

        def features(x: Tensor) -> Tensor:
            calls.clear()
            logits = subject.forward(x)
            given = [inputs for module, inputs, _ in calls if module is head]
            return given[-1].flatten(1) if given else logits

        yield features, outputs
    finally:
        for hook in hooks:
            hook.remove()
