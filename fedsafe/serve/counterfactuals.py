"""Whether a decision would be another one for a person of another group, all else equal."""

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.fairness.flips import protected_columns
from fedsafe.assess.principles.counterfactuals import levels
from fedsafe.assess.scores import decide
from fedsafe.data import Schema, Task
from fedsafe.errors import ConfigError
from fedsafe.serve.detectors.base import Array, Floats
from fedsafe.serve.forward import Forward

_TOLERANCE = 0.01  # of a target's range


class Flips:
    """Tries every value of each protected column of a table.

    Args:
        forward: The model.
        task: Its task; with no table, or no categorical group column among its features, nothing is tried.
        columns: Which columns; the categorical group columns where empty.

    Raises:
        ConfigError: A named column does not exist.
    """

    def __init__(self, forward: Forward, task: Task, columns: tuple[str, ...] = ()) -> None:
        self._forward, self._regression = forward, task.kind == "regression"
        self._values: list[tuple[str, NDArray[np.int64], Floats]] = []
        self.columns: tuple[str, ...] = ()
        schema = task.schema
        if not isinstance(schema, Schema):
            return
        start, places = 0, {}
        for column in schema.columns:
            places[column.name] = np.arange(start, start + len(column.feature_names))
            start += len(column.feature_names)
        for name in protected_columns(schema, columns):
            try:
                tried = levels(schema, name)
            except ConfigError:
                if columns:
                    raise
                continue  # one value only
            self._values += [(name, places[name], np.asarray(level.features, np.float32)) for level in tried]
        self.columns = tuple(dict.fromkeys(name for name, _, _ in self._values))

    def __bool__(self) -> bool:
        """Whether there is anything to try."""
        return bool(self._values)

    def found(self, x: Floats, outputs: Array) -> list[tuple[str, ...]]:
        """For each of ``(n, features)`` records, the columns that would change its decision."""
        if not self._values:
            return [()] * len(x)
        many = np.repeat(x[None], len(self._values), axis=0)
        for number, (_, place, features) in enumerate(self._values):
            many[number][:, place] = features
        after = self._forward(many.reshape(-1, x.shape[1]))[0].reshape(len(self._values), len(x), -1)
        if self._regression:
            moved = np.abs(after - outputs)[..., 0] > 2 * _TOLERANCE  # encoded targets run over two units
        else:
            moved = decide(after) != decide(outputs)
        if not moved.any():
            return [()] * len(x)
        names = [name for name, _, _ in self._values]
        return [
            tuple(dict.fromkeys(names[at] for at in np.flatnonzero(moved[:, row]))) for row in range(len(x))
        ]
