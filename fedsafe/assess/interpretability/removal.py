"""Explainers that need no gradient: they replace columns, or patches, by the baseline and watch the output."""

import warnings
from collections.abc import Callable
from math import comb
from typing import Any

import numpy as np
import torch
from captum._utils.models.linear_model import SkLearnRidge
from captum.attr import KernelShap, Lime
from numpy.typing import NDArray
from torch import Tensor

from fedsafe.assess.interpretability.masking import Array, masked_outputs, spread
from fedsafe.assess.interpretability.protocol import seeded

ENUMERATED = 9
"""Columns of which every coalition is evaluated, for all examples at once: 512 of them."""
_CERTAIN = 6  # columns, of more, that differ from the baseline, of which every coalition is evaluated: 64


def occlusion(
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
    """What is lost when one column alone is replaced (Zeiler and Fergus, 2014)."""
    count = int(columns.max()) + 1
    kept = np.concatenate([np.ones((1, count), bool), ~np.eye(count, dtype=bool)])
    outputs = masked_outputs(forward, x, baseline, target, kept, columns, batch=batch)
    return spread(outputs[:, :1] - outputs[:, 1:], x, baseline, columns)


def kernel_shap(
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
    """Shapley values of the columns (Lundberg and Lee, 2017).

    Exact over all coalitions of up to 9 columns; captum's weighted regression on `samples_of` random ones for more.
    """
    count = int(columns.max()) + 1
    if count <= ENUMERATED:
        kept = coalitions(count)
        outputs = masked_outputs(forward, x, baseline, target, kept, columns, batch=batch)
        return spread(shapley_values(outputs, kept), x, baseline, columns)
    return _sampled(KernelShap, forward, x, baseline, target, columns, rng, _CERTAIN)


def lime(
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
    """Ridge regression on `samples_of` random removals, near ones weighing more (Ribeiro, Singh and Guestrin, 2016)."""

    def make(model: Callable[[Tensor], Tensor]) -> Any:
        return Lime(model, interpretable_model=SkLearnRidge(alpha=1.0))

    return _sampled(make, forward, x, baseline, target, columns, rng, 1)


def samples_of(columns: int) -> int:
    """How often an explainer that fits a regression to each example evaluates the model for it."""
    return 50 + 4 * columns


def passes_of_kernel_shap(columns: int) -> int:
    """How often `kernel_shap` evaluates the model for one example."""
    return 1 << columns if columns <= ENUMERATED else samples_of(columns)


def coalitions(count: int) -> NDArray[np.bool_]:
    """``(2^count, count)`` all of them: row i has the columns of the binary digits of i."""
    return np.asarray((np.arange(1 << count)[:, None] >> np.arange(count)) % 2 == 1)


def shapley_values(outputs: Array, kept: NDArray[np.bool_]) -> Array:
    """Shapley values (1953) from the outputs of all coalitions.

    Args:
        outputs: ``(n, 2^columns)``.
        kept: What `coalitions` gives.

    Returns:
        ``(n, columns)``.
    """
    count = kept.shape[1]
    sizes = kept.sum(axis=1)
    found = np.empty((len(outputs), count))
    for column in range(count):
        without = np.flatnonzero(~kept[:, column])
        weights = np.array([1.0 / (count * comb(count - 1, int(size))) for size in sizes[without]])
        found[:, column] = (outputs[:, without + (1 << column)] - outputs[:, without]) @ weights
    return found


def _sampled(
    make: Callable[[Callable[[Tensor], Tensor]], Any],
    forward: Callable[[Tensor], Tensor],
    x: Tensor,
    baseline: Tensor,
    target: Tensor,
    columns: NDArray[np.int64],
    rng: np.random.Generator,
    fewest: int,
) -> Tensor:
    """One of captum's regressions for each example, over the columns that differ from the baseline.

    Those that do not differ have no attribution: in the regression they would only get noise. Where no more than
    `fewest` differ, their Shapley values are exact.
    """
    count = int(columns.max()) + 1
    values, samples = np.zeros((len(x), count)), samples_of(count)
    with seeded(rng), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # captum's progress, and its advice for many examples at once
        for row in range(len(x)):
            example, output = x[row : row + 1], target[row : row + 1]
            moved = np.unique(columns[(example != baseline)[0].cpu().numpy()])
            if len(moved) == 0:
                continue  # the example is the baseline
            # The features of the other columns may belong anywhere: replacing them changes nothing.
            places = np.zeros(count, dtype=np.int64)
            places[moved] = np.arange(len(moved))
            mask = places[columns]
            if len(moved) <= fewest:
                kept = coalitions(len(moved))
                outputs = masked_outputs(forward, example, baseline, output, kept, mask, batch=len(kept))
                values[row, moved] = shapley_values(outputs, kept)[0]
                continue
            found = make(forward).attribute(
                example,
                baselines=baseline,
                target=output,
                feature_mask=torch.as_tensor(mask, device=x.device)[None],
                n_samples=samples,
                perturbations_per_eval=samples,
                return_input_shape=False,
            )
            values[row, moved] = found.reshape(-1).double().cpu().numpy()
    return spread(values, x, baseline, columns)
