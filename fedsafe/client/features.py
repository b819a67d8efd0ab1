"""Apply the fixed part of a model once, so that training runs on what is left."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from fedsafe.client.objectives import Objective, Perturbing
from fedsafe.errors import ModelError
from fedsafe.models import FixedFeatures

# Records that pass through the fixed part at once.
_BATCH = 512


@torch.no_grad()
def precompute(module: nn.Module, x: Tensor, objective: Objective | None = None) -> tuple[nn.Module, Tensor]:
    """A module to train in place of one, and the inputs for it.

    The features of a record depend on it alone and on nothing that is trained, so that training on them is training
    the whole.

    Args:
        module: Any model; one that is not a :class:`fedsafe.models.FixedFeatures`, or whose features are computed
            already, comes back as it is.
        x: ``(records, ...)`` its inputs.
        objective: Of the training. One that perturbs inputs needs the fixed part too: then both come back as they are.

    Returns:
        A module whose trainable parameters have the names, shapes and values of those of ``module``, and
        ``(records, ...)`` features.

    Raises:
        ModelError: A parameter of the fixed part is trained, or it gives something else than one tensor of features
            per record, or changes its input.
    """
    if not isinstance(module, FixedFeatures) or isinstance(module.fixed, nn.Identity):
        return module, x
    trained = [name for name, p in module.fixed.named_parameters() if p.requires_grad]
    if trained:
        raise ModelError(
            f"the fixed part of the model trains {trained[0]!r}: call requires_grad_(False) on it, or leave it out of "
            "FixedFeatures"
        )
    if isinstance(objective, Perturbing):
        return module, x
    fixed = copy.deepcopy(module.fixed).eval()
    parts = [_features(fixed, x[first : first + _BATCH]) for first in range(0, len(x), _BATCH)]
    if any(not isinstance(part, Tensor) or part.ndim < 2 for part in parts) or sum(map(len, parts)) != len(x):
        raise ModelError("the fixed part of the model must give one row of features for each record")
    head = copy.copy(module)
    head._modules = dict(module._modules, fixed=nn.Identity())
    return copy.deepcopy(head), torch.cat(parts)


def _features(fixed: nn.Module, x: Tensor) -> Any:
    given = x.clone()
    features = fixed(given)
    if not torch.allclose(given, x, rtol=0.0, atol=0.0, equal_nan=True):
        raise ModelError(
            "the fixed part of the model changes its input in place, and so the records: let it work on a copy "
            "(x.clone()), without inplace=True"
        )
    return features
