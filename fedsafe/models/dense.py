"""Models of linear layers alone, for inputs of any shape."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod

from torch import nn

from fedsafe.errors import ConfigError
from fedsafe.models.options import known, numbers

ACTIVATIONS: Mapping[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


def logistic(*, inputs: tuple[int, ...], outputs: int, vocabulary: int | None = None) -> nn.Module:
    """One linear layer: linear regression, or logistic regression (multinomial, or binary with one output).

    Args:
        inputs: Shape of a record; one of several dimensions is flattened.
        outputs: Logits.
        vocabulary: Must be None.

    Raises:
        ConfigError: If the inputs are tokens.
    """
    numbers("logistic", vocabulary)
    layer = nn.Linear(prod(inputs), outputs)
    return layer if len(inputs) == 1 else nn.Sequential(nn.Flatten(), layer)


def mlp(
    *,
    inputs: tuple[int, ...],
    outputs: int,
    vocabulary: int | None = None,
    hidden: Sequence[int] = (64,),
    activation: str = "relu",
) -> nn.Module:
    """A multilayer perceptron.

    Args:
        inputs: Shape of a record; one of several dimensions is flattened.
        outputs: Logits.
        vocabulary: Must be None.
        hidden: Widths of the hidden layers, at least one.
        activation: ``"relu"`` or ``"tanh"``.

    Raises:
        ConfigError: If the inputs are tokens, a width is not a positive whole number, or the activation is unknown.
    """
    numbers("mlp", vocabulary)
    if not isinstance(hidden, Sequence) or isinstance(hidden, str | bytes) or not hidden:
        raise ConfigError(f"model.hidden = {hidden!r} is not a list of widths, such as [64].")
    for width in hidden:
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise ConfigError(
                f"model.hidden = {list(hidden)} has the width {width!r}: use whole numbers from 1."
            )
    known("model.activation", activation, ACTIVATIONS)
    layers: list[nn.Module] = [] if len(inputs) == 1 else [nn.Flatten()]
    for wide, narrow in pairwise((prod(inputs), *hidden)):
        layers += [nn.Linear(wide, narrow), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers, nn.Linear(hidden[-1], outputs))
