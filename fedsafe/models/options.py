"""Checks of a model's options and of what its task gives, each with the remedy in its message."""

import difflib
from collections.abc import Iterable

from fedsafe.errors import ConfigError


def whole(key: str, value: object, least: int = 1) -> int:
    """A whole number of at least ``least``.

    Raises:
        ConfigError: If it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"model.{key} = {value!r} is not a whole number from {least}.")
    return value


def known(what: str, value: object, options: Iterable[str]) -> None:
    """Refuse a value that is none of the options.

    Raises:
        ConfigError: With the nearest option and all of them.
    """
    options = list(options)
    if value in options:
        return
    match = difflib.get_close_matches(str(value), options, n=1, cutoff=0.5)
    hint = f" Did you mean {match[0]!r}?" if match else ""
    raise ConfigError(f"{what} {value!r} is unknown.{hint} Known: {', '.join(options) or 'none'}.")


def numbers(name: str, vocabulary: int | None) -> None:
    """Refuse a task whose inputs are tokens.

    Raises:
        ConfigError: If there is a vocabulary.
    """
    if vocabulary is not None:
        raise ConfigError(
            f"The model {name!r} takes numbers, and this task's inputs are tokens: use the model 'lstm'."
        )


def image(
    name: str, inputs: tuple[int, ...], vocabulary: int | None, *, least: int = 1
) -> tuple[int, int, int]:
    """``(channels, height, width)`` of a task of images.

    Args:
        name: Of the model.
        inputs: Shape of one example.
        vocabulary: Number of tokens, or None.
        least: The smallest height and width that the model can take.

    Raises:
        ConfigError: If the inputs are something else, or smaller.
    """
    numbers(name, vocabulary)
    if len(inputs) != 3 or min(inputs[1:]) < least:
        size = f"at least {least} x {least} pixels" if least > 1 else "any size"
        raise ConfigError(
            f"The model {name!r} needs images (channels, height, width) of {size}, and this task's inputs have the "
            f"shape {tuple(inputs)}: use the model 'mlp', which takes any shape."
        )
    channels, height, width = inputs
    return channels, height, width
