"""Whether an explanation depends on what the model has learned: parameter randomisation (Adebayo et al., 2018)."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsafe.assess.base import Subject
from fedsafe.assess.interpretability.explainers import Explained, attribute
from fedsafe.assess.interpretability.features import by_unit, column_of_features
from fedsafe.assess.interpretability.protocol import seeded
from fedsafe.assess.interpretability.ranks import spearman
from fedsafe.findings import Finding, Scope, bounded_mean, estimate, not_measured

Array = NDArray[np.float64]

METRIC = "interpretability.randomisation_similarity"
_STAGES = 4  # of the cascade, the last of which has no learned parameter left


def randomisation(
    subject: Subject,
    explained: Explained,
    baseline: NDArray[np.float32],
    steps: int,
    *,
    explainer: str,
    models: int,
    rng: np.random.Generator,
    context: Scope,
) -> Finding:
    """Rank correlation of the columns' attributions with those of the same model, its parameters drawn anew.

    An attribution that is a property of the input, such as an edge detector's, stays the same: near 1. Layers are drawn
    anew from the output to the input, each from its own initialisation, or where it has none by shuffling its values;
    the value is that of the last stage, over several random models. What is explained stays the same output.

    Args:
        subject: Whose model it is; it is not changed.
        explained: Explanations by the model itself.
        baseline: ``(*inputs,)``.
        steps: Effort of the explainer.
        explainer: Name, import path or entry point.
        models: Random models, at least 2.
        rng: Source of the parameters and of the explainer's randomness.
        context: Of the finding.
    """
    columns = column_of_features(subject.task.schema)
    layers = [name for name, module in subject.model.named_modules() if _own(module)][::-1]
    if int(columns.max()) < 1 or not layers:
        reason = "there is one column only: it has no rank" if layers else "the model has no parameters"
        return not_measured(METRIC, reason, status="not_applicable", **context)
    own, seed = by_unit(columns, explained.attribution), int(rng.integers(2**63))
    stops = np.unique(np.rint(np.linspace(0, len(layers), min(len(layers), _STAGES) + 1)).astype(int))[1:]

    def similar(model: nn.Module) -> tuple[float, float]:
        local = attribute(
            replace(subject, model=model),
            explained.x,
            baseline,
            explained.target,
            steps,
            explainer=explainer,
            rng=np.random.default_rng(seed),
        )
        away = explained.x.detach().double().cpu().numpy() - baseline
        other = by_unit(columns, local.double().cpu().numpy() * away)
        return _mean(spearman(own, other)), _mean(spearman(np.abs(own), np.abs(other)))

    curve: list[dict[str, Any]] = [{"layers": 0, "layer": "", "similarity": 1.0, "absolute": 1.0}]
    for stop in stops[:-1]:
        signed, absolute = similar(redrawn(subject.model, layers[:stop], rng))
        name = layers[stop - 1]
        curve.append({"layers": int(stop), "layer": name, "similarity": signed, "absolute": absolute})
    last = np.array([similar(redrawn(subject.model, layers, rng)) for _ in range(models)])
    curve.append(
        {
            "layers": len(layers),
            "layer": layers[-1],
            "similarity": float(last[:, 0].mean()),
            "absolute": float(last[:, 1].mean()),
        }
    )
    interval, how = bounded_mean(last[:, 0], -1.0, 1.0)
    return estimate(
        METRIC,
        float(last[:, 0].mean()),
        interval=interval,
        method=f"{how} over random models",
        n=models,
        unit="random models",
        anchors={"random_attribution": 0.0, "input_alone": 1.0},
        detail={"curve": curve, "examples": len(own)},
        **context,
    )


def stages(model: nn.Module) -> int:
    """How many partly random models the cascade explains before the last stage."""
    layers = sum(1 for module in model.modules() if _own(module))
    return max(0, min(layers, _STAGES) - 1)


def redrawn(model: nn.Module, layers: list[str], rng: np.random.Generator) -> nn.Module:
    """A copy of the model in which these modules have new parameters, in evaluation mode."""
    found = copy.deepcopy(model)
    with seeded(rng), torch.no_grad():
        for name in layers:
            module = found.get_submodule(name)
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
                continue
            for parameter in _own(module):
                values = parameter.flatten()
                parameter.copy_(values[torch.randperm(len(values))].view_as(parameter))
    return found.eval()


def _own(module: nn.Module) -> list[Tensor]:
    return list(module.parameters(recurse=False))


def _mean(values: Array) -> float:
    """Of the finite ones; 0, no relation, where an attribution has no order anywhere."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else 0.0
