"""Models by name: those that ship with FedSafe, or the user's own.

Initial weights come from the seed alone, and building a model never moves torch's global generator.
"""

import copy
import inspect
from collections.abc import Callable, Mapping
from math import prod
from typing import Any, Protocol

import torch
from torch import nn

from fedsafe.errors import ConfigError, ModelError
from fedsafe.extensions import one_line, resolve
from fedsafe.models.dense import logistic, mlp
from fedsafe.models.hog import hog_linear
from fedsafe.models.images import cnn, resnet
from fedsafe.models.options import known
from fedsafe.models.reward import reward
from fedsafe.models.text import lstm


class Sizes(Protocol):
    """What a model takes and gives; :class:`fedsafe.data.Signature` is one."""

    @property
    def inputs(self) -> tuple[int, ...]:
        """Shape of one example."""

    @property
    def outputs(self) -> tuple[int, ...]:
        """Shape of one example's output."""

    @property
    def vocabulary(self) -> int | None:
        """Number of tokens of an input, or None where inputs are float features."""


ZOO: Mapping[str, Callable[..., nn.Module]] = {
    "linear": logistic,  # the same layer, by the name that regression calls it
    "logistic": logistic,
    "mlp": mlp,
    "cnn": cnn,
    "resnet": resnet,
    "hog_linear": hog_linear,
    "lstm": lstm,
    "reward": reward,
}


def build_model(spec: str | Mapping[str, Any] | nn.Module, *, signature: Sizes, seed: int) -> nn.Module:
    """The model that a configuration names, on the CPU in float32 and in training mode.

    Args:
        spec: One of

            * ``"logistic"``, or ``"linear"`` for regression, for numbers of any shape;
            * ``"mlp"`` or ``{"name": "mlp", "hidden": [64], "activation": "relu"}``, for numbers of any shape;
            * ``"cnn"``, for images of at least 14 x 14 pixels;
            * ``"resnet"`` or ``{"name": "resnet", "width": 16, "blocks": 2, "groups": 4}``, for images;
            * ``"hog_linear"`` or ``{"name": "hog_linear", "orientations": 8, "cell": 8, "scale": 1.0, "bias": False}``,
              for images: one linear layer on public features;
            * ``"lstm"`` or ``{"name": "lstm", "embedding": 8, "hidden": 64, "layers": 1}``, for tokens;
            * ``"reward"`` or ``{"name": "reward", "hidden": [], "heads": 1, "activation": "relu", "scale": 4.0}``, for
              pairs of a preference;
            * ``"package.module:factory"`` or ``{"name": "package.module:factory", **options}``, or the name that an
              installed package offers: called with the options, and with those of ``features`` (values of an
              example), ``inputs`` (its shape), ``outputs`` (the width of the output, 1 for a binary task),
              ``positions`` (how many positions have an output, or None) and ``vocabulary`` (tokens, or None) that it
              accepts;
            * a module: it is copied, and keeps its weights.
        signature: What the task's inputs and outputs are; a ``fedsafe.data.Signature``.
        seed: Decides the initial weights.

    Returns:
        A module that maps ``(n, *signature.inputs)`` to ``(n, *signature.outputs)``.

    Raises:
        ConfigError: If the name or an option is unknown, the model is for other inputs, or the factory cannot be
            imported or called.
        ModelError: If the factory returns something else than a module.
    """
    if isinstance(spec, nn.Module):
        return copy.deepcopy(spec)
    name, options = _parse(spec)
    factory = resolve("model", name, ZOO)
    arguments = _arguments(factory, name, options, signature)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = factory(**arguments)
        except ConfigError:
            raise
        except Exception as error:
            raise ModelError(f"The model {name!r} cannot be made: {one_line(error)}.") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"The factory {name!r} returned {type(model).__name__}, not a torch.nn.Module.")
    return model


def _parse(spec: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if isinstance(spec, str):
        return spec, {}
    if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str):
        raise ConfigError(
            f"model = {spec!r} is neither a name, nor a table with a `name`, nor a torch.nn.Module."
        )
    return spec["name"], {key: value for key, value in spec.items() if key != "name"}


def _arguments(
    factory: Callable[..., Any], name: str, options: Mapping[str, Any], signature: Sizes
) -> dict[str, Any]:
    sizes = {
        "features": prod(signature.inputs),
        "inputs": signature.inputs,
        "outputs": signature.outputs[-1],
        "positions": signature.outputs[0] if len(signature.outputs) > 1 else None,
        "vocabulary": signature.vocabulary,
    }
    parameters = inspect.signature(factory).parameters
    named = [key for key, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key in options:
        if key in sizes:
            raise ConfigError(f"model ({name}) has the key {key!r}: it comes from the task, so leave it out.")
        if key not in named and not takes_any:
            known(f"model ({name}) key", key, [key for key in named if key not in sizes])
    arguments = {key: value for key, value in sizes.items() if key in named or takes_any} | dict(options)
    absent = [
        key for key in named if parameters[key].default is inspect.Parameter.empty and key not in arguments
    ]
    if absent:
        raise ConfigError(f"model ({name}) needs the key {absent[0]!r}.")
    return arguments
