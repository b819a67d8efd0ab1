"""Reads the leaves of a decision tree as rules in the columns' own units."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.data import InputSchema, Numeric, Schema


@dataclass
class _Bounds:
    """What a path through the tree says of one column."""

    low: float | None = None
    high: float | None = None
    is_value: str = ""
    not_values: list[str] = field(default_factory=list)

    def words(self, column: str) -> str:
        if self.is_value:
            return f"{column} is {self.is_value}"
        if len(self.not_values) == 1:
            return f"{column} is not {self.not_values[0]}"
        if self.not_values:
            return f"{column} is neither {' nor '.join(self.not_values)}"
        if self.low is None:
            return f"{column} <= {self.high:.6g}"
        if self.high is None:
            return f"{column} > {self.low:.6g}"
        return f"{self.low:.6g} < {column} <= {self.high:.6g}"


def read_rules(
    tree: Any, schema: InputSchema, outcome: Callable[[NDArray[np.float64]], str]
) -> list[dict[str, Any]]:
    """The leaves of a fitted scikit-learn tree, the largest first.

    Args:
        tree: A ``DecisionTreeClassifier`` or ``DecisionTreeRegressor`` over encoded features.
        schema: Of the features; one-hot features become "is" and "is not", numbers are decoded.
        outcome: What a leaf's ``value`` row says, in words.

    Returns:
        For each leaf the condition ("always" where there is one leaf), the outcome, the number of columns in the
        condition, and the share of the fitted examples that it holds.
    """
    inner = tree.tree_
    columns = _columns(schema)
    rules: list[dict[str, Any]] = []
    paths: list[tuple[int, list[tuple[int, bool, float]]]] = [(0, [])]
    while paths:
        node, path = paths.pop()
        left, right = int(inner.children_left[node]), int(inner.children_right[node])
        if left == right:  # both are -1 at a leaf
            rules.append(
                {
                    "if": _condition(path, columns),
                    "then": outcome(np.asarray(inner.value[node]).ravel()),
                    "conditions": len({columns[feature][0] for feature, _, _ in path}),
                    "share": float(inner.n_node_samples[node] / inner.n_node_samples[0]),
                }
            )
            continue
        split = int(inner.feature[node]), float(inner.threshold[node])
        paths.append((left, [*path, (split[0], False, split[1])]))
        paths.append((right, [*path, (split[0], True, split[1])]))
    return sorted(rules, key=lambda rule: (-rule["share"], rule["if"]))


_Column = tuple[str, str, Callable[[float], float]]


def _columns(schema: InputSchema) -> list[_Column]:
    """For each feature: its column, the value that it stands for in a one-hot group, and how to decode it."""
    if not isinstance(schema, Schema):
        return [(name, "", float) for name in schema.feature_names]
    found: list[_Column] = []
    for column in schema.columns:
        for name in column.feature_names:
            value = name.removeprefix(f"{column.name}=") if column.one_hot else ""
            found.append((column.name, value, _decoder(column) if isinstance(column, Numeric) else float))
    return found


def _decoder(column: Numeric) -> Callable[[float], float]:
    """Encoded value of a linear column to its own unit."""
    first, last = column.encoded
    low, high = column.low, column.high
    if column.transform == "log1p":
        low, high = float(np.log1p(low)), float(np.log1p(high))

    def decode(encoded: float) -> float:
        value = low + (high - low) * (encoded - first) / (last - first)
        return float(np.expm1(value)) if column.transform == "log1p" else value

    return decode


def _condition(path: list[tuple[int, bool, float]], columns: list[_Column]) -> str:
    said: dict[str, _Bounds] = {}
    for feature, above, threshold in path:
        column, value, decode = columns[feature]
        bounds = said.setdefault(column, _Bounds())
        if value and above:
            bounds.is_value = value
        elif value:
            bounds.not_values.append(value)
        elif above:
            edge = decode(threshold)
            bounds.low = edge if bounds.low is None else max(bounds.low, edge)
        else:
            edge = decode(threshold)
            bounds.high = edge if bounds.high is None else min(bounds.high, edge)
    for column, bounds in said.items():
        left = [value for name, value, _ in columns if name == column and value not in bounds.not_values]
        if bounds.not_values and len(left) == 1:
            bounds.is_value = left[0]
    return " and ".join(bounds.words(column) for column, bounds in said.items()) or "always"
