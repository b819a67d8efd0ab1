"""AutoAttack as its authors publish it: the standard set of pyautoattack, and nothing that only resembles it."""

import numpy as np
import torch
from torch import Tensor, nn

from fedsafe.assess.robustness.regions import Region
from fedsafe.assess.robustness.search import Forward

try:
    from pyautoattack import AutoAttack
except ModuleNotFoundError as error:
    raise ImportError("it needs the package pyautoattack: pip install 'fedsafe[autoattack]'") from error

_NORMS = {"linf": "Linf", "l2": "L2"}
# Its targeted attacks aim at so many classes, and need 4.
_TARGETS, _LEAST = 9, 4


def autoattack(
    forward: Forward,
    x: Tensor,
    y: Tensor,
    region: Region,
    *,
    steps: int,
    restarts: int,
    rng: np.random.Generator,
) -> Tensor:
    """APGD-CE, targeted APGD-DLR, targeted FAB and Square as the standard set has them (Croce and Hein, 2020).

    With fewer than ten classes the targeted attacks aim at all others, as its authors say.

    Args:
        forward: Differentiable map to logits.
        x: ``(n, channels, height, width)`` clean inputs in [0, 1].
        y: ``(n,)`` true classes.
        region: Gives norm and radius.
        steps: Not used: the standard set has its own.
        restarts: Not used either.
        rng: Seeds it.

    Raises:
        ValueError: It has no answer for such inputs or classes.
    """
    if x.ndim != 4 or float(x.min()) < 0 or float(x.max()) > 1:
        raise ValueError("AutoAttack knows images with values from 0 to 1 alone")
    with torch.no_grad():
        classes = forward(x[:1]).shape[1]
    if classes < _LEAST:
        raise ValueError(f"the standard set of AutoAttack needs {_LEAST} classes, and there are {classes}")
    seed = int(rng.integers(2**31))
    with torch.random.fork_rng(devices=[]):
        attack = AutoAttack(
            _Called(forward), norm=_NORMS[region.norm], eps=region.radius, seed=seed, device=x.device
        )
        attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = min(_TARGETS, classes - 1)
        found, _ = attack.run_standard_evaluation(x, y)
    return region.project(found)


class _Called(nn.Module):
    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self._call = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._call(x)
