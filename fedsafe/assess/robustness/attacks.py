"""The attacks, by name. Each looks within a region for inputs on which a classifier errs.

====================  ======================================================================================
``fgsm``              one step along the gradient (Goodfellow, Shlens and Szegedy, 2015)
``pgd``               many steps from several starts (Madry et al., 2018)
``pgd-momentum``      the same, along an average of the gradients (Dong et al., 2018)
``apgd-ce``           PGD that chooses its steps, on cross-entropy (Croce and Hein, 2020)
``apgd-dlr``          the same on the difference of logits ratio; on the margin with fewer than 3 outputs
``apgd-t``            the same towards each other class; on the margin with fewer than 4 outputs
``square``            random search, without gradients (Andriushchenko et al., 2020)
``cw-l2``             the nearest error in the Euclidean norm (Carlini and Wagner, 2017)
``autoattack``        the standard set of the package pyautoattack (extra ``autoattack``)
====================  ======================================================================================
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from fedsafe.assess.robustness.apgd import apgd_ce, apgd_dlr, apgd_targeted
from fedsafe.assess.robustness.carlini_wagner import carlini_wagner
from fedsafe.assess.robustness.gradient import fgsm, pgd, pgd_momentum
from fedsafe.assess.robustness.regions import Region
from fedsafe.assess.robustness.search import Forward
from fedsafe.assess.robustness.square import square


class Attack(Protocol):
    """Looks for inputs on which a classifier errs. A user's own is a function with these arguments."""

    def __call__(
        self,
        forward: Forward,
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
            forward: Differentiable map from ``(n, *inputs)`` to logits.
            x: ``(n, *inputs)`` clean inputs.
            y: ``(n,)`` true classes.
            region: Where inputs may move.
            steps: Gradient steps of a restart, or queries of an attack without gradients.
            restarts: Number of starts.
            rng: The only source of randomness.

        Returns:
            ``(n, *inputs)`` inputs in the region. They are checked and judged by the untouched model: what an attack
            says of itself counts for nothing.
        """


ATTACKS: Mapping[str, Any] = MappingProxyType(
    {
        "fgsm": fgsm,
        "pgd": pgd,
        "pgd-momentum": pgd_momentum,
        "apgd-ce": apgd_ce,
        "apgd-dlr": apgd_dlr,
        "apgd-t": apgd_targeted,
        "square": square,
        "cw-l2": carlini_wagner,
        "autoattack": "fedsafe.assess.robustness.autoattack:autoattack",
    }
)
"""The built-in attacks, by name; one that needs a package of its own by import path."""

WITHOUT_GRADIENTS = frozenset({"square"})
"""Built-in attacks that only ask for logits: where they find what others miss, gradients are masked."""

NEAREST = frozenset({"cw-l2"})
"""Built-in attacks that look for the nearest error, whatever its distance: one run serves every radius."""

WHOLE = frozenset({"autoattack"})
"""Sets of attacks that are run as they are: at one radius after another, and in no test of a part."""

_FEWEST = {"apgd-dlr": 3, "apgd-t": 4}
# With one output both losses have the same direction.
_CLIMBED = {
    "fgsm": "the margin is climbed, where the paper has cross-entropy",
    "pgd": "starts climb the margin and cross-entropy in turn, where the paper has cross-entropy alone",
    "pgd-momentum": "starts climb the margin and cross-entropy in turn, where the paper has cross-entropy alone",
}


def remark(name: str, outputs: int) -> str | None:
    """What a reader must know of an attack on a model with so many outputs; None where there is nothing."""
    fewest = _FEWEST.get(name, 0)
    if outputs < fewest:
        return f"the margin is climbed: the ratio of logits needs {fewest} outputs, and there are {outputs}"
    return _CLIMBED.get(name) if outputs > 1 else None
