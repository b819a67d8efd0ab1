"""Options of an aggregator: found in its signature, checked with a hint."""

import inspect
import math
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from fedsafe.aggregation.grouped_membership import Membership
from fedsafe.errors import ConfigError

# Given by the federation and never by an option of its own.
LEARNING_RATE = "learning_rate"
MEMBERSHIP = "membership"


def require_number(
    rule: str, option: str, value: object, *, low: float = 0.0, below: float = math.inf
) -> None:
    """Refuse an option that is not a number in ``[low, below)``.

    Raises:
        ConfigError: With the range.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value < below:  # type: ignore[operator]
        bound = "" if math.isinf(below) else f" and below {below:g}"
        raise ConfigError(
            f"server.aggregator ({rule}): {option} = {value!r}; it is a number of at least {low:g}{bound}"
        )


def matched(
    name: str,
    make: Callable[..., Any],
    constructor: Callable[..., Any],
    options: Mapping[str, Any],
    lr: float | None,
    membership: Membership | None = None,
) -> dict[str, Any]:
    """The keyword arguments for ``make``: the options, and the clients' learning rate if it is asked for.

    Args:
        name: The rule, for messages.
        make: Its ``from_plan``; one that takes any keyword hands them to the constructor.
        constructor: The class.
        options: As configured, without the name.
        lr: Learning rate of the clients; None where their steps are not plain ones with one rate.
        membership: The clients' groups, for a rule that asks for them by this name and has no such option.

    Raises:
        ConfigError: An option is unknown or missing.
    """
    known = _keywords(make, first=True)
    if known is None:
        known = _keywords(constructor, first=False)
    if known is None:
        return dict(options)
    asked = dict(options)
    if LEARNING_RATE in asked:
        raise ConfigError(
            f"server.aggregator ({name}): the learning rate is client.optimizer.lr; leave {LEARNING_RATE} out"
        )
    if LEARNING_RATE in known and lr is None:
        raise ConfigError(
            f"server.aggregator ({name}) takes a client's update for plain steps of one size: leave momentum, "
            'weight_decay and schedule out of client.optimizer, name = "sgd" there, and leave client.proximal out'
        )
    grouped = MEMBERSHIP in known and membership is not None
    if grouped and MEMBERSHIP in asked:
        raise ConfigError(
            f"server.aggregator ({name}): who is in which group follows from column; leave {MEMBERSHIP} out"
        )
    own = [key for key in known if key != LEARNING_RATE and not (grouped and key == MEMBERSHIP)]
    for option in asked:
        if option not in own:
            near = get_close_matches(option, own, n=1, cutoff=0.5)
            listed = f"its options are {', '.join(own)}" if own else "it has no options"
            hint = f"did you mean {near[0]!r}?" if near else listed
            raise ConfigError(f"server.aggregator ({name}): the option {option!r} is not known: {hint}")
    for option in own:
        if option not in asked and known[option].default is inspect.Parameter.empty:
            raise ConfigError(
                f"server.aggregator ({name}) needs the option {option!r}: "
                f"server.aggregator = {{ name = {name!r}, {option} = ... }}"
            )
    given = {LEARNING_RATE: lr} if LEARNING_RATE in known else {}
    return {**asked, **given, **({MEMBERSHIP: membership} if grouped else {})}


def _keywords(function: Callable[..., Any], *, first: bool) -> dict[str, inspect.Parameter] | None:
    """What a function takes by name, less its first argument if that is the plan; None if it takes anything."""
    parameters = list(inspect.signature(function).parameters.values())[1 if first else 0 :]
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
