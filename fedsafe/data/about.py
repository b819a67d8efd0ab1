"""What a program says about data in memory: arguments of :func:`fedsafe.data.as_task`, checked before any record."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.data.columns import nearest
from fedsafe.data.dataset import Kind, Target, Texts
from fedsafe.data.inputs import ArraySchema, InputSchema, TokenSchema
from fedsafe.data.mapped import extremes
from fedsafe.data.options import number, whole
from fedsafe.errors import ConfigError

# More classes than this are believed only if all of them occur: one wrong label would make a huge model.
_UNSAID_CLASSES = 1000


def refuse_unknown(given: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Refuse arguments that there are not.

    Raises:
        ConfigError: Naming the first, and the nearest one that there is.
    """
    for key in given:
        raise ConfigError(
            f"There is nothing called {key!r} to say about data.{nearest(key, keys)} Known: {', '.join(keys)}."
        )


def refuse_unused(said: Mapping[str, Any], why: str) -> None:
    """Refuse arguments that would have no effect.

    Args:
        said: Name to value, None where it was not said.
        why: Who says it instead, as a sentence without its full stop.

    Raises:
        ConfigError: Naming them.
    """
    unused = [f"`{name}`" for name, value in said.items() if value is not None]
    if unused:
        raise ConfigError(f"{why}: leave {', '.join(unused)} out.")


def texts(given: Any, what: str) -> Texts:
    """Names of columns, each with one value for every record; empty if none are given.

    Raises:
        ConfigError: If it is no mapping.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"`{what}` is {type(given).__name__}: give a mapping from the name of a column to one value for each "
            f'record, such as {{"sex": ["f", "m", ...]}}.'
        )
    return given


def count_classes(classes: Any, y: NDArray[Any]) -> int:
    """How many classes there are: as said, or else as many as the largest label needs.

    Raises:
        ConfigError: If they are not said and the labels leave gaps in more than a thousand.
    """
    if classes is not None:
        return len(_named(classes, "classes"))
    count = max(2, int(extremes(y)[1]) + 1)
    if count > _UNSAID_CLASSES and (present := len(np.unique(y))) < count:
        raise ConfigError(
            f"The largest label is {count - 1}, which makes {count:,} classes, but only {present:,} of them occur: "
            f"correct the labels, or say by `classes` how many there are."
        )
    return count


def class_names(kind: Kind, y: NDArray[Any], classes: Any, tokens: Any) -> tuple[str, ...]:
    """Names of the classes, or for next tokens the vocabulary; empty for a regression.

    Raises:
        ConfigError: If they cannot be used, or must be said and are not.
    """
    if kind in ("regression", "next_token"):
        refuse_unused({"classes": classes}, f"The task is {kind}, which has no classes")
        return _named(tokens, "tokens") if kind == "next_token" else ()
    return _named(count_classes(None, y) if classes is None else classes, "classes")


def target_of(kind: Kind, y: NDArray[Any], target: Any) -> Target | None:
    """The public bounds of a regression's target.

    Raises:
        ConfigError: If they are missing, no two numbers in order, or the task is of another kind.
    """
    if kind != "regression":
        if target is not None:
            said = (
                " If y is a number to predict that happens to be whole, say kind='regression'."
                if np.issubdtype(y.dtype, np.integer)
                else ""
            )
            raise ConfigError(
                f"`target` has the bounds of a regression, but the task is {kind}: leave it out.{said}"
            )
        return None
    if target is None:
        raise ConfigError(
            "A regression needs `target` = (low, high), public bounds of y: taken from the records, they would be a "
            "release. If y holds classes, make it whole numbers, or say kind='binary' or 'multiclass'."
        )
    if isinstance(target, Target):
        return target
    if not isinstance(target, tuple | list) or len(target) != 2:
        raise ConfigError(f"`target` = {target!r}: give two numbers, (low, high), the public bounds of y.")
    low, high = _range(target[0], target[1], "target[0]", "target[1]")
    return Target(name="y", low=low, high=high)


def inputs_of(x: NDArray[Any], low: Any, high: Any, tokens: Any) -> InputSchema:
    """The public schema of the inputs.

    Raises:
        ConfigError: If their range, or their vocabulary, is missing or cannot be used.
    """
    if tokens is not None:
        refuse_unused({"low": low, "high": high}, "Inputs that are `tokens` have no range")
        if x.ndim != 2 or not np.issubdtype(x.dtype, np.integer):
            raise ConfigError(
                f"`tokens` are whole numbers in x of shape (n, length), not {x.dtype} of {x.shape}."
            )
        return TokenSchema(tokens=_named(tokens, "tokens"), length=x.shape[1])
    if low is None or high is None:
        raise ConfigError(
            "Inputs need `low` and `high`, the public range of a value, such as 0 and 1: taken from the records, it "
            "would be a release. Inputs that are tokens need `tokens` instead."
        )
    lowest, highest = _range(low, high, "low", "high")
    return ArraySchema(shape=x.shape[1:], lowest=lowest, highest=highest)


def _range(low: Any, high: Any, first: str, second: str) -> tuple[float, float]:
    bounds = number(low, f"`{first}`"), number(high, f"`{second}`")
    if bounds[0] >= bounds[1]:
        raise ConfigError(f"`{first}` = {low!r} is not below `{second}` = {high!r}.")
    return bounds


def _named(given: Any, what: str) -> tuple[str, ...]:
    if isinstance(given, int | np.integer):
        return tuple(map(str, range(whole(given, f"`{what}`", least=2))))
    if isinstance(given, str) or not isinstance(given, Sequence | np.ndarray):
        raise ConfigError(
            f"`{what}` = {given!r}: give their names, or how many there are. They must be public."
        )
    names = tuple(map(str, given))
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise ConfigError(f"`{what}` names {twice[0]!r} twice: give each another name.")
    if len(names) < 2:
        raise ConfigError(f"`{what}` = {given!r}: there must be at least two.")
    return names
