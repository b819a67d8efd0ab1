"""The natural partition: one client for each writer, hospital or speaker who holds records."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.data.columns import nearest
from fedsafe.data.dataset import Indices, Texts
from fedsafe.errors import ConfigError, DataError


def holder_column(spec: Mapping[str, Any], holders: Texts) -> str:
    """The column of holders that a natural partition goes by.

    Args:
        spec: ``{"name": "natural", "by": "writer"}``; ``by`` may be left out where there is one column only.
        holders: Natural column to ``(n,)`` names.

    Raises:
        ConfigError: If the column is unknown or not named.
        DataError: If the records name no holders at all.
    """
    if not holders:
        raise DataError(
            "The records do not say who holds them, so there is no natural partition. Name such columns as `holders` "
            "in the schema, or use the partition 'iid' or 'dirichlet'."
        )
    by = spec.get("by", next(iter(holders)) if len(holders) == 1 else None)
    if by not in holders:
        hint = nearest(by, holders) if isinstance(by, str) else ""
        raise ConfigError(
            f"federation.partition.by = {by!r}; use one of: {', '.join(sorted(holders))}.{hint}"
        )
    return str(by)


def by_holder(names: NDArray[np.str_]) -> tuple[tuple[str, ...], list[Indices]]:
    """The holders in order (numbers by size, other names by alphabet), and the sorted rows of each."""
    found, code = np.unique(names, return_inverse=True)
    order = np.argsort(code, kind="stable")
    rows = np.split(order, np.cumsum(np.bincount(code))[:-1])
    ranked = sorted(range(len(found)), key=lambda at: _rank(str(found[at])))
    return tuple(str(found[at]) for at in ranked), [np.asarray(rows[at], np.int64) for at in ranked]


def _rank(name: str) -> tuple[int, str]:
    digits = name.isascii() and name.isdigit()
    return (int(name) if digits else -1, name)
