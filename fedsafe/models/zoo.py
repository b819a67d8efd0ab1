"""Models by name: a linear one, a multilayer perceptron, or the user's own.

Initial weights come from the seed alone, and building a model never moves torch's global generator.
"""

import copy
import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import Any, Protocol

import torch
from torch import nn

from fedsafe.errors import ConfigError, ModelError
from fedsafe.extensions import one_line, resolve

ACTIVATIONS: Mapping[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


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


def logistic(*, features: int, outputs: int) -> nn.Module:
    """Multinomial (or, with one output, binary) logistic regression: one linear layer."""
    return nn.Linear(features, outputs)


def mlp(*, features: int, outputs: int, hidden: Sequence[int] = (64,), activation: str = "relu") -> nn.Module:
    """A multilayer perceptron.

    Args:
        features: Width of a record.
        outputs: Logits.
        hidden: Widths of the hidden layers, at least one.
        activation: ``"relu"`` or ``"tanh"``.

    Raises:
        ConfigError: If a width is not a positive whole number, or the activation is unknown.
    """
    if not isinstance(hidden, Sequence) or isinstance(hidden, str | bytes) or not hidden:
        raise ConfigError(f"model.hidden = {hidden!r} is not a list of widths, such as [64].")
    for width in hidden:
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise ConfigError(
                f"model.hidden = {list(hidden)} has the width {width!r}: use whole numbers from 1."
            )
    if activation not in ACTIVATIONS:
        raise ConfigError(_unknown("model.activation", activation, ACTIVATIONS))
    layers: list[nn.Module] = []
    for wide, narrow in pairwise((features, *hidden)):
        layers += [nn.Linear(wide, narrow), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers, nn.Linear(hidden[-1], outputs))


ZOO: Mapping[str, Callable[..., nn.Module]] = {"logistic": logistic, "mlp": mlp}


def build_model(spec: str | Mapping[str, Any] | nn.Module, *, signature: Sizes, seed: int) -> nn.Module:
    """The model that a configuration names, on the CPU in float32 and in training mode.

    Args:
        spec: One of

            * ``"logistic"``;
            * ``"mlp"`` or ``{"name": "mlp", "hidden": [64], "activation": "relu"}``;
            * ``"package.module:factory"`` or ``{"name": "package.module:factory", **options}``, or the name that an
              installed package offers: called with
              the options, and with those of ``features`` (values of an example), ``inputs`` (its shape),
              ``outputs`` (the width of the output, 1 for a binary task) and ``vocabulary`` (tokens, or None)
              that it accepts;
            * a module: it is copied, and keeps its weights.
        signature: What the task's inputs and outputs are; a ``fedsafe.data.Signature``.
        seed: Decides the initial weights.

    Returns:
        A module that maps ``(n, *signature.inputs)`` to ``(n, *signature.outputs)``.

    Raises:
        ConfigError: If the name or an option is unknown, or the factory cannot be imported or called.
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
        "vocabulary": signature.vocabulary,
    }
    parameters = inspect.signature(factory).parameters
    named = [key for key, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key in options:
        if key in sizes:
            raise ConfigError(f"model ({name}) has the key {key!r}: it comes from the task, so leave it out.")
        if key not in named and not takes_any:
            allowed = [key for key in named if key not in sizes]
            raise ConfigError(_unknown(f"model ({name}) key", key, allowed))
    arguments = {key: value for key, value in sizes.items() if key in named or takes_any} | dict(options)
    absent = [
        key for key in named if parameters[key].default is inspect.Parameter.empty and key not in arguments
    ]
    if absent:
        raise ConfigError(f"model ({name}) needs the key {absent[0]!r}.")
    return arguments


def _unknown(what: str, value: object, options: Iterable[str]) -> str:
    options = list(options)
    match = difflib.get_close_matches(str(value), options, n=1, cutoff=0.5)
    hint = f" Did you mean {match[0]!r}?" if match else ""
    return f"{what} {value!r} is unknown.{hint} Known: {', '.join(options) or 'none'}."
