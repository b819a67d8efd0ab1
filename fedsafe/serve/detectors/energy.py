"""Free energy of the outputs: low where some class is likely, whatever it is (Liu et al., 2020)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsafe.serve.detectors.base import Array, Arrays, Seen


@dataclass(frozen=True)
class Energy:
    """Minus the log of the sum of exponentials of the logits; a single logit z stands for -z/2 and z/2."""

    name: str = "energy"

    def score(self, seen: Seen) -> Array:
        """``(n,)`` energies."""
        logits = seen.outputs
        if logits.shape[1] == 1:
            half = np.abs(logits[:, 0]) / 2.0
            return np.asarray(-(half + np.log1p(np.exp(-2.0 * half))))
        top = logits.max(axis=1)
        return np.asarray(-(top + np.log(np.exp(logits - top[:, None]).sum(axis=1))))

    def state(self) -> tuple[Arrays, Mapping[str, Any]]:
        """Nothing was fitted."""
        return {}, {}
