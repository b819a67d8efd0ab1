"""Reads the leaves of a decision tree as rules in the columns' own units, and applies them to records."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.data import InputSchema, Numeric, Schema
from fedsafe.errors import ConfigError


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


Rule = dict[str, Any]


def read_rules(tree: Any, schema: InputSchema, outcome: Callable[[NDArray[np.float64]], str]) -> list[Rule]:
    """The leaves of a fitted scikit-learn tree, the largest first.

    Args:
        tree: A ``DecisionTreeClassifier`` or ``DecisionTreeRegressor`` over encoded features.
        schema: Of the features; one-hot features become "is" and "is not", numbers are decoded.
        outcome: What a leaf's ``value`` row says, in words.

    Returns:
        For each leaf ``if``, the condition ("always" where there is one leaf), ``then``, the outcome in words,
        ``conditions``, the number of columns in the condition, ``share`` of the fitted examples that it holds, and what
        `apply` needs: ``outcome``, the class or the encoded number, and ``bounds``, of each feature in the condition
        its index and the encoded values that it is above and at most (None where there is no such end).
    """
    inner = tree.tree_
    columns = _columns(schema)
    rules: list[Rule] = []
    paths: list[tuple[int, list[tuple[int, bool, float]]]] = [(0, [])]
    while paths:
        node, path = paths.pop()
        left, right = int(inner.children_left[node]), int(inner.children_right[node])
        if left == right:  # both are -1 at a leaf
            value = np.asarray(inner.value[node]).ravel()
            rules.append(
                {
                    "if": _condition(path, columns),
                    "then": outcome(value),
                    "outcome": _outcome(tree, value),
                    "bounds": _bounds(path),
                    "conditions": len({columns[feature][0] for feature, _, _ in path}),
                    "share": float(inner.n_node_samples[node] / inner.n_node_samples[0]),
                }
            )
            continue
        split = int(inner.feature[node]), float(inner.threshold[node])
        paths.append((left, [*path, (split[0], False, split[1])]))
        paths.append((right, [*path, (split[0], True, split[1])]))
    return sorted(rules, key=lambda rule: (-rule["share"], rule["if"]))


def matches(rules: Sequence[Rule], x: NDArray[Any]) -> NDArray[np.bool_]:
    """``(n, rules)`` which rules hold for which records; of a tree's, exactly one does for each.

    Args:
        rules: What `read_rules` returns, also after they were written as JSON and read again.
        x: ``(n, features)`` encoded records.
    """
    # As the tree compares: values of single precision with a bound of double precision.
    values = np.asarray(x, dtype=np.float32).astype(np.float64)
    found = np.ones((len(values), len(rules)), dtype=np.bool_)
    for column, rule in enumerate(rules):
        for feature, above, most in rule["bounds"]:
            if above is not None:
                found[:, column] &= values[:, feature] > above
            if most is not None:
                found[:, column] &= values[:, feature] <= most
    return found


def apply(rules: Sequence[Rule], x: NDArray[Any]) -> NDArray[np.int64] | NDArray[np.float64]:
    """``(n,)`` what the rules say of records: classes, or encoded numbers; exactly what their tree predicts.

    Args:
        rules: All rules of one tree, what `read_rules` returns.
        x: ``(n, features)`` encoded records.

    Raises:
        ConfigError: A record meets no rule, or several: these are not the rules of a tree.
    """
    held = matches(rules, x)
    times = held.sum(axis=1)
    if (times != 1).any():
        raise ConfigError(
            f"{int((times != 1).sum())} of {len(times)} records do not meet exactly one rule; give all rules of a tree"
        )
    outcomes: NDArray[Any] = np.asarray([rule["outcome"] for rule in rules])
    return np.asarray(outcomes[held.argmax(axis=1)])


def signature(rule: Rule) -> tuple[Any, ...]:
    """What a rule says without its numbers: its class, and which features it bounds from which side."""
    sides = sorted((feature, above is not None, most is not None) for feature, above, most in rule["bounds"])
    return (rule["outcome"] if isinstance(rule["outcome"], int) else "number", *sides)


def jaccard(left: Sequence[Rule], right: Sequence[Rule]) -> float:
    """Share of the rules of two trees that both have, thresholds left aside (Jaccard, 1912)."""
    first, second = ({signature(rule) for rule in rules} for rules in (left, right))
    return len(first & second) / len(first | second)


def _outcome(tree: Any, value: NDArray[np.float64]) -> int | float:
    return int(tree.classes_[value.argmax()]) if hasattr(tree, "classes_") else float(value[0])


def _bounds(path: list[tuple[int, bool, float]]) -> list[list[Any]]:
    ends: dict[int, list[float | None]] = {}
    for feature, above, threshold in path:
        low, high = ends.setdefault(feature, [None, None])
        if above:
            ends[feature][0] = threshold if low is None else max(low, threshold)
        else:
            ends[feature][1] = threshold if high is None else min(high, threshold)
    return [[feature, *pair] for feature, pair in ends.items()]


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
