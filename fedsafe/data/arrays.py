"""Turns what a program has in memory into arrays: arrays, tensors, data sets, one data set for each client."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.data.dataset import Examples, Texts, refuse_not_finite
from fedsafe.errors import ConfigError, DataError, FedSafeError
from fedsafe.extensions import one_line


@dataclass(frozen=True, kw_only=True)
class Part:
    """Records as they were given, before anything is checked or clamped.

    Args:
        x: ``(n, ...)`` inputs.
        y: ``(n,)`` or ``(n, positions)`` targets.
        groups: Group column to ``(n,)`` names.
        holders: Natural column to ``(n,)`` names.
    """

    x: NDArray[Any]
    y: NDArray[Any]
    groups: Texts = field(default_factory=dict)
    holders: Texts = field(default_factory=dict)


def part(given: Any, what: str) -> Part:
    """The records in an ``(x, y)`` pair, in :class:`Examples`, or in a sequence of single ``(x, y)`` pairs.

    Args:
        given: Arrays, CPU tensors, lists; or a ``torch.utils.data.Dataset`` that has a length.
        what: What to call them in a message.

    Raises:
        ConfigError: If they are none of these.
        DataError: If they cannot be read, or there are none.
    """
    if isinstance(given, Examples):
        return Part(x=given.x, y=given.y, groups=given.groups, holders=given.holders)
    if isinstance(given, tuple | list) and len(given) == 2:
        x, y = array(given[0], f"x of {what}"), array(given[1], f"y of {what}")
    elif hasattr(given, "columns") and hasattr(given, "iloc"):
        raise ConfigError(
            f"{_capital(what)} cannot be a data frame here: give (x, y), such as (frame[features], frame[answer])."
        )
    elif (
        hasattr(given, "__getitem__")
        and hasattr(given, "__len__")
        and not isinstance(given, tuple | str | Mapping)
    ):
        x, y = _stacked(given, what)
    else:
        raise ConfigError(
            f"{_capital(what)} cannot be {type(given).__name__}: give (x, y), or a data set of such pairs."
        )
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if x.ndim < 2 or not len(x) or len(x) != len(y):
        raise DataError(
            f"Records need x of shape (n, ...) and y of shape (n,) or (n, positions), n at least 1: {what} came as "
            f"{x.shape} and {y.shape}."
        )
    refuse_not_finite(x, f"x of {what}")
    refuse_not_finite(y, f"y of {what}")
    return Part(x=x, y=y)


def clients_part(make: Callable[[int], Any], clients: int, *, mixed: bool = False) -> Part:
    """The records of all clients, with the client's number as their holder, ``"client"``.

    Args:
        make: What a client holds, as :func:`part` takes it, for each of ``0 .. clients - 1``.
        clients: Number of clients.
        mixed: Whether targets may be whole numbers for one client and others for another.

    Raises:
        DataError: If ``make`` fails, or what it gives for two clients does not fit together.
    """
    parts = []
    for client in range(clients):
        try:
            given = make(client)
        except FedSafeError:
            raise
        except Exception as error:  # the user's code, which may raise anything
            raise DataError(f"The data of client {client} could not be made: {one_line(error)}.") from error
        parts.append(part(given, f"the data of client {client}"))
        if parts[-1].x.shape[1:] != parts[0].x.shape[1:] or parts[-1].y.shape[1:] != parts[0].y.shape[1:]:
            raise DataError(
                f"Client {client} has x and y of shape (n, ...) with ... = {parts[-1].x.shape[1:]} and "
                f"{parts[-1].y.shape[1:]}, client 0 {parts[0].x.shape[1:]} and {parts[0].y.shape[1:]}: "
                f"give all clients the same."
            )
        types = parts[-1].y.dtype, parts[0].y.dtype
        if not mixed and np.issubdtype(types[0], np.integer) != np.issubdtype(types[1], np.integer):
            raise DataError(
                f"Client {client} has targets of type {types[0]}, client 0 of {types[1]}: whole numbers are classes "
                f"and others a regression, so make them one type, or say which by `kind`."
            )
    return Part(
        x=np.concatenate([each.x for each in parts]),
        y=np.concatenate([each.y for each in parts]),
        holders={
            "client": np.repeat([str(client) for client in range(clients)], [len(each.y) for each in parts])
        },
    )


def array(value: Any, what: str) -> NDArray[Any]:
    """An array of numbers.

    Args:
        value: An array, a list, or a tensor (taken out of its graph and off its device).
        what: What to call it in a message.

    Raises:
        DataError: If it holds something else than numbers.
    """
    try:
        # A tensor by what it can do, so that torch need not be imported.
        value = value.detach().cpu() if hasattr(value, "detach") else value
        found = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{what} is no array of numbers: {one_line(error)}.") from error
    real = np.issubdtype(found.dtype, np.integer) or np.issubdtype(found.dtype, np.floating)
    if found.dtype != np.bool_ and not real:
        raise DataError(f"{what} holds {found.dtype}, not real numbers.")
    return found.astype(np.int64) if found.dtype == np.bool_ else found


def _capital(what: str) -> str:
    return what[:1].upper() + what[1:]


def _stacked(records: Any, what: str) -> tuple[NDArray[Any], NDArray[Any]]:
    try:
        pairs = [records[at] for at in range(len(records))]
        for at, pair in enumerate(pairs):
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                parts = f" of {len(pair)} parts" if isinstance(pair, tuple | list) else ""
                raise DataError(
                    f"The items of a data set must be pairs (x, y), but item {at} of {what} is "
                    f"{type(pair).__name__}{parts}. If it is x of all records, give (x, y)."
                )
        x = np.stack([array(pair[0], what) for pair in pairs])
        return x, np.stack([array(pair[1], what) for pair in pairs])
    except FedSafeError:
        raise
    except Exception as error:  # a data set is the user's code, which may raise anything
        raise DataError(f"{what} cannot be read as (x, y) pairs of one shape: {one_line(error)}.") from error
