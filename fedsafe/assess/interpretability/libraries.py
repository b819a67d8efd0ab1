"""KernelExplainer of the package shap, and the regression of the package lime: ``pip install 'fedsafe[explain]'``."""

import warnings
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedsafe.assess.interpretability.masking import Array, masked_outputs, spread
from fedsafe.assess.interpretability.protocol import seeded
from fedsafe.assess.interpretability.removal import samples_of
from fedsafe.errors import ConfigError

_PACKAGES = {"shap_library": "shap", "lime_library": "lime"}


def check_installed(explainer: str) -> None:
    """Refuses an explainer whose package is not there.

    Raises:
        ConfigError: It is one of these, and its package is not installed.
    """
    package = _PACKAGES.get(explainer)
    if package is not None and find_spec(package) is None:
        raise ConfigError(
            f"the explainer {explainer!r} needs the package {package}; install it with: pip install 'fedsafe[explain]'"
        )


def shap_library(
    forward: Callable[[Tensor], Tensor],
    x: Tensor,
    baseline: Tensor,
    target: Tensor,
    *,
    steps: int,
    batch: int,
    rng: np.random.Generator,
    columns: NDArray[np.int64],
) -> Tensor:
    """Shapley values of the columns, by the authors' own package (Lundberg and Lee, 2017)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its plots, which nobody here draws
        import shap

        count = int(columns.max()) + 1
        values = []
        with seeded(rng):
            for row in range(len(x)):
                explained = shap.KernelExplainer(
                    _of_masks(forward, x, baseline, target, columns, row, batch), np.zeros((1, count))
                )
                samples = max(samples_of(count), min(2**count, 512))
                values.append(
                    explained.shap_values(np.ones(count), nsamples=samples, silent=True, l1_reg=False)
                )
    return spread(np.asarray(values, dtype=np.float64).reshape(len(x), count), x, baseline, columns)


def lime_library(
    forward: Callable[[Tensor], Tensor],
    x: Tensor,
    baseline: Tensor,
    target: Tensor,
    *,
    steps: int,
    batch: int,
    rng: np.random.Generator,
    columns: NDArray[np.int64],
) -> Tensor:
    """The locally weighted ridge regression of the authors' own package (Ribeiro, Singh and Guestrin, 2016)."""
    from lime.lime_base import LimeBase

    count = int(columns.max()) + 1
    base = LimeBase(lambda distances: np.sqrt(np.exp(-(distances**2))))
    values = np.zeros((len(x), count))
    for row in range(len(x)):
        masks = rng.integers(0, 2, (samples_of(count), count)).astype(np.float64)
        masks[0] = 1.0  # the example itself comes first
        outputs = _of_masks(forward, x, baseline, target, columns, row, batch)(masks)
        # The cosine distance from all ones, as for captum's.
        distances = 1 - np.sqrt(masks.mean(axis=1))
        _, weights, _, _ = base.explain_instance_with_data(
            masks, outputs[:, None], distances, 0, count, feature_selection="none"
        )
        for column, weight in weights:
            values[row, column] = weight
    return spread(values, x, baseline, columns)


def _of_masks(
    forward: Callable[[Tensor], Tensor],
    x: Tensor,
    baseline: Tensor,
    target: Tensor,
    columns: NDArray[np.int64],
    row: int,
    batch: int,
) -> Callable[[Array], Array]:
    """The explained output of one example as a function of which columns it keeps: ``(masks, columns)``."""

    def outputs(masks: Array) -> Array:
        kept = np.asarray(masks) > 0.5
        block = slice(row, row + 1)
        found = masked_outputs(forward, x[block], baseline, target[block], kept, columns, batch=batch)
        return np.asarray(found[0])

    return outputs
