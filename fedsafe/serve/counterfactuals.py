"""Whether a decision would be another one for a person of another group, all else equal."""

import numpy as np

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
        # For each value its column's name, and what it makes of a record: which features, and what they become.
        self._names: list[str] = []
        self._moved, self._become = np.zeros((0, 1, 1), np.bool_), np.zeros((0, 1, 1), np.float32)
        self.columns: tuple[str, ...] = ()
        schema = task.schema
        if not isinstance(schema, Schema):
            return
        start, places = 0, {}
        for column in schema.columns:
            places[column.name] = np.arange(start, start + len(column.feature_names))
            start += len(column.feature_names)
        moved, become = [], []
        for name in protected_columns(schema, columns):
            try:
                tried = levels(schema, name)
            except ConfigError:
                if columns:
                    raise
                continue  # one value only
            for level in tried:
                features = np.zeros(start, np.float32)
                features[places[name]] = level.features
                self._names.append(name)
                moved.append(np.isin(np.arange(start), places[name]))
                become.append(features)
        if self._names:
            self._moved, self._become = np.stack(moved)[:, None], np.stack(become)[:, None]
        self.columns = tuple(dict.fromkeys(self._names))

    def __bool__(self) -> bool:
        """Whether there is anything to try."""
        return bool(self._names)

    def found(self, x: Floats, outputs: Array) -> list[tuple[str, ...]]:
        """For each of ``(n, features)`` records, the columns that would change its decision."""
        if not self._names:
            return [()] * len(x)
        many = np.where(self._moved, self._become, x)
        after = self._forward(many.reshape(-1, x.shape[1]))[0].reshape(len(many), len(x), -1)
        if self._regression:
            moved = np.abs(after - outputs)[..., 0] > 2 * _TOLERANCE  # encoded targets run over two units
        else:
            moved = decide(after) != decide(outputs)
        found: list[tuple[str, ...]] = [()] * len(x)
        if moved.any():
            for row in np.flatnonzero(moved.any(axis=0)).tolist():
                found[row] = tuple(dict.fromkeys(self._names[at] for at in np.flatnonzero(moved[:, row])))
        return found
