"""``fedsafe.assess(model, data)``: the package is a module that can be called.

A function of that name in ``fedsafe`` would be replaced by this package as soon as anybody imports it, and would hide
``fedsafe.assess.base``. So the package itself is what is called, in whatever order things are imported.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from torch import nn

from fedsafe.assess.base import Assessor, Tier
from fedsafe.assess.running import assess_model
from fedsafe.data import as_task
from fedsafe.errors import ModelError

if TYPE_CHECKING:
    import pandas as pd


def assess(
    model: nn.Module,
    data: Any,
    *,
    about: Mapping[str, Any] | None = None,
    assessors: Sequence[str | Mapping[str, Any] | Assessor] | None = None,
    tier: Tier = "full",
    seed: int = 0,
) -> "pd.DataFrame":
    """Judge a model of one's own, outside any run.

    Args:
        model: From ``(n, *inputs)`` to ``(n, *outputs)``, one logit for a binary task. It is not changed.
        data: A task, or arrays, tensors, a data frame or a callable, see :func:`fedsafe.data.as_task`. The model is
            judged on its evaluation records; the training records are taken for those that it was trained on.
        about: What is public about data that is no task: arguments of ``as_task``, such as ``{"low": 0, "high": 1}``.
        assessors: Names, import paths, tables with a name and options, or instances; those that a run has by default
            if left out.
        tier: ``"cheap"`` or ``"full"``.
        seed: Of the public randomness.

    Returns:
        One row for each finding: ``assessor``, ``metric``, ``where``, ``status``, ``value``, ``interval``, ``n`` ...
        An assessor that failed has the row ``assess.completed`` with its reason in ``detail``.

    Raises:
        FedSafeError: The model is none, the data cannot be used, or an assessor cannot be found.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"the model is {type(model).__name__}, not a torch.nn.Module")
    import pandas as pd

    findings = assess_model(model, as_task(data, **(about or {})), assessors=assessors, tier=tier, seed=seed)
    rows = [{"assessor": name, **found.to_json()} for name, group in findings.items() for found in group]
    return pd.DataFrame(rows)


class CallableModule(ModuleType):
    """The class of the package ``fedsafe.assess``."""

    __call__ = staticmethod(assess)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        """As other modules: a program that is sent to a worker may name it."""
        return importlib.import_module, (self.__name__,)
