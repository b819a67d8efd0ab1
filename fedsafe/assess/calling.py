"""``fedsafe.assess(model, data)``: the package is a module that can be called.

A function of that name in ``fedsafe`` would be replaced by this package as soon as anybody imports it, and would hide
``fedsafe.assess.base``. So the package itself is what is called, in whatever order things are imported.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fedsafe.assess.base import Assessor, Subject, Tier
from fedsafe.assess.running import assess_model
from fedsafe.data import Task, as_task
from fedsafe.errors import DataError, ModelError
from fedsafe.extensions import one_line

if TYPE_CHECKING:
    import pandas as pd


def assess(
    model: nn.Module,
    data: Any,
    *,
    about: Mapping[str, Any] | None = None,
    assessors: Sequence[str | Mapping[str, Any] | Assessor] | str | Mapping[str, Any] | None = None,
    tier: Tier = "full",
    seed: int = 0,
) -> "pd.DataFrame":
    """Judge a model of one's own, outside any run.

    Args:
        model: From ``(n, *inputs)`` to ``(n, *outputs)``, one logit for a binary task. It is not changed.
        data: A task, or arrays, tensors, a data frame or a callable, see :func:`fedsafe.data.as_task`. The model is
            judged on its evaluation records; the training records are taken for those that it was trained on.
        about: What is public about data that is no task: arguments of ``as_task``, such as ``{"low": 0, "high": 1}``.
        assessors: Names, import paths, tables with a name and options, or instances; one name or table may stand
            alone; those that a run has by default if left out.
        tier: ``"cheap"`` or ``"full"``.
        seed: Of the public randomness.

    Returns:
        One row for each finding: ``assessor``, ``metric``, ``where``, ``status``, ``value``, ``interval``, ``n`` ...
        An assessor that failed has the row ``assess.completed`` with its reason in ``detail``.

    Raises:
        FedSafeError: The model is none or does not fit the data, the data cannot be used, or an assessor cannot be
            found.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"the model is {type(model).__name__}, not a torch.nn.Module")
    if isinstance(data, str | Path):
        raise DataError(f"the data is {str(data)!r}, a name: give fedsafe.data.load_task({str(data)!r})")
    import pandas as pd

    task = as_task(data, **(about or {}))
    check_fit(model, task)
    findings = assess_model(model, task, assessors=assessors, tier=tier, seed=seed)
    rows = [{"assessor": name, **found.to_json()} for name, group in findings.items() for found in group]
    return pd.DataFrame(rows)


def check_fit(model: nn.Module, task: Task) -> None:
    """Tries two records, so that a model which cannot take them is told once, and not by every assessor.

    Raises:
        ModelError: The model cannot take them, or returns another shape.
    """
    subject = Subject.outside(model, task)
    x = task.evaluation.x[:2]
    try:
        with torch.no_grad():
            subject.forward(subject.tensor(x))
    except ModelError:
        raise
    except Exception as error:  # the model is the user's code, which may raise anything
        raise ModelError(
            f"the model cannot take records {x.dtype} of shape (n, {', '.join(map(str, x.shape[1:]))}), from which it "
            f"should make outputs of shape (n, {', '.join(map(str, task.signature.outputs))}): {one_line(error)}"
        ) from error


class CallableModule(ModuleType):
    """The class of the package ``fedsafe.assess``."""

    __call__ = staticmethod(assess)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        """As other modules: a program that is sent to a worker may name it."""
        return importlib.import_module, (self.__name__,)
