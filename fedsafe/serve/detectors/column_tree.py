"""How unlikely a record's columns are together: a tree of dependencies between them (Chow and Liu, 1968).

Distances say little of a table whose columns are categories. A tree keeps the strongest dependencies between pairs of
columns: a husband who is female, or ten years old, is unlikely though each value is common.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fedsafe.serve.detectors.base import Array, Arrays, Floats, Seen

Codes = NDArray[np.int64]

_BINS = 8
# Pseudo-records of each pair of values: what was never seen is unlikely, and not impossible.
_PRIOR = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class ColumnTree:
    """Minus the log-likelihood of a record under the tree.

    Attributes:
        groups: For each column the flat indices of its features: one number, or a one-hot group.
        edges: ``(numbers, bins - 1)`` inner edges of the bins of each numeric column, in their order.
        parents: ``(columns,)`` each column's parent; -1 for the root.
        tables: ``(columns, widest, widest)`` minus log-probabilities of (parent's value, own value).
    """

    groups: tuple[tuple[int, ...], ...]
    edges: Array
    parents: Codes
    tables: Array
    name: str = "column tree"

    def __post_init__(self) -> None:
        numeric = [column for column, group in enumerate(self.groups) if len(group) == 1]
        features = 1 + max(max(group) for group in self.groups)
        weights = np.zeros((features, len(self.groups)), np.float32)
        for column, group in enumerate(self.groups):
            weights[list(group), column] = np.arange(len(group), dtype=np.float32)
        own = {
            "_numeric": np.array(numeric, np.int64),
            "_features": np.array([self.groups[column][0] for column in numeric], np.int64),
            "_weights": weights,
            "_limits": np.array([len(group) - 1 for group in self.groups], np.float32),
            "_root": self.parents >= 0,
            "_columns": np.arange(len(self.groups)),
            "_flat": np.ascontiguousarray(self.tables).ravel(),
        }
        for key, value in own.items():
            object.__setattr__(self, key, value)

    @classmethod
    def fit(cls, inputs: Floats, groups: Sequence[tuple[int, ...]]) -> Self:
        """From ``(n, inputs)`` inliers.

        Args:
            inputs: Encoded records.
            groups: Flat indices of each column's features, see `columns_of`.
        """
        numeric = [group[0] for group in groups if len(group) == 1]
        shares = np.linspace(0, 1, _BINS + 1)[1:-1]
        edges = np.quantile(inputs[:, numeric].astype(np.float64), shares, axis=0).T.reshape(
            len(numeric), _BINS - 1
        )
        blank = cls(
            groups=tuple(groups),
            edges=edges,
            parents=np.full(len(groups), -1, np.int64),
            tables=np.zeros((len(groups), 1, 1)),
        )
        codes = blank.codes(inputs)
        sizes = [len(group) if len(group) > 1 else _BINS for group in groups]
        parents = _tree(codes, sizes)
        widest = max(sizes)
        tables = np.full((len(groups), widest, widest), -np.log(_PRIOR / (len(inputs) + _PRIOR)))
        for column, parent in enumerate(parents):
            if parent < 0:
                counts = np.bincount(codes[:, column], minlength=sizes[column]) + _PRIOR
                tables[column, 0, : sizes[column]] = -np.log(counts / counts.sum())
                continue
            counts = (
                _joint(codes[:, parent], codes[:, column], sizes[parent], sizes[column])
                + _PRIOR / sizes[column]
            )
            tables[column, : sizes[parent], : sizes[column]] = -np.log(
                counts / counts.sum(axis=1, keepdims=True)
            )
        return cls(groups=tuple(groups), edges=edges, parents=parents, tables=tables)

    def codes(self, inputs: Floats) -> Codes:
        """``(n, columns)`` values as numbers: the category, or the bin."""
        own = vars(self)
        weights: Floats = own["_weights"]
        # What is no valid group is brought to one: that it is not valid is for the schema to say.
        read = np.rint(inputs[:, : len(weights)] @ weights)
        found: Codes = np.minimum(np.maximum(read, 0.0), own["_limits"]).astype(np.int64)
        if len(own["_numeric"]):
            values = inputs.take(own["_features"], axis=1)
            found[:, own["_numeric"]] = (values[:, :, None] >= self.edges).sum(axis=2)
        return found

    def score(self, seen: Seen) -> Array:
        """``(n,)`` minus log-likelihoods, in nats."""
        own, codes = vars(self), self.codes(seen.inputs)
        _, rows, columns = self.tables.shape
        parent = codes.take(self.parents, axis=1) * own["_root"]
        place = (own["_columns"] * rows + parent) * columns + codes
        return np.asarray(own["_flat"].take(place).sum(axis=1))

    def state(self) -> tuple[Arrays, Mapping[str, Any]]:
        """What it was fitted to."""
        arrays = {"edges": self.edges, "parents": self.parents, "tables": self.tables}
        return arrays, {"groups": [list(group) for group in self.groups]}


def columns_of(one_hot: Sequence[tuple[int, ...]], features: int) -> tuple[tuple[int, ...], ...]:
    """The columns of a table: its one-hot groups, and each other feature alone, in order."""
    grouped = {index for group in one_hot for index in group}
    alone = [(index,) for index in range(features) if index not in grouped]
    return tuple(sorted([*map(tuple, one_hot), *alone]))


def _joint(first: Codes, second: Codes, rows: int, columns: int) -> Array:
    return (
        np.bincount(first * columns + second, minlength=rows * columns)
        .reshape(rows, columns)
        .astype(np.float64)
    )


def _tree(codes: Codes, sizes: Sequence[int]) -> Codes:
    """``(columns,)`` parents of the tree with the most mutual information, by Prim's rule from column 0."""
    count = len(sizes)
    shared = np.zeros((count, count))
    for a in range(count):
        for b in range(a):
            joint = _joint(codes[:, a], codes[:, b], sizes[a], sizes[b]) / max(1, len(codes))
            apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
            seen = joint > 0
            shared[a, b] = shared[b, a] = float((joint[seen] * np.log(joint[seen] / apart[seen])).sum())
    parents, inside = np.full(count, -1, np.int64), [0]
    for _ in range(count - 1):
        outside = [column for column in range(count) if column not in inside]
        links = shared[np.ix_(inside, outside)]
        row, column = np.unravel_index(int(links.argmax()), links.shape)
        parents[outside[int(column)]] = inside[int(row)]
        inside.append(outside[int(column)])
    return parents
