"""How far an input is from known ones: from class means, and from its nearest neighbours."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fedsafe.serve.detectors.base import Array, Arrays, Floats, Seen

# Share of the average variance that every direction has at least: a feature that never moved must not decide alone.
_RIDGE = 1e-2
_NEIGHBOURS = 10
_TINY = 1e-12
_FARTHEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True, eq=False)
class Mahalanobis:
    """Distance to the nearest class mean by the pooled covariance (Lee et al., 2018).

    Relative: less the distance to the mean of all by the covariance of all (Ren et al., 2021).

    Attributes:
        space: "inputs" or "features".
        relative: Whether it is.
        whiten: ``(d, d)`` that makes the pooled covariance the identity.
        means: ``(classes, d)`` whitened means.
        background: ``(d, d)`` and
        centre: ``(d,)`` the same of all classes together; empty unless relative.
    """

    space: str
    relative: bool
    whiten: Floats
    means: Floats
    background: Floats
    centre: Floats

    @property
    def name(self) -> str:
        """As in figures."""
        return f"{'relative ' if self.relative else ''}mahalanobis of {self.space}"

    @classmethod
    def fit(cls, seen: Seen, y: NDArray[np.int64], *, space: str, relative: bool = False) -> Self:
        """From inliers and their ``(n,)`` classes."""
        values = seen.space(space).astype(np.float64)
        groups = [values[y == label] for label in np.unique(y)]
        centred = np.concatenate([group - group.mean(axis=0) for group in groups])
        whiten = _whitening(centred)
        means = np.stack([group.mean(axis=0) @ whiten for group in groups])
        background, centre = np.zeros((0, 0)), np.zeros(0)
        if relative:
            background = _whitening(values - values.mean(axis=0))
            centre = values.mean(axis=0) @ background
        return cls(
            space=space,
            relative=relative,
            whiten=whiten.astype(np.float32),
            means=means.astype(np.float32),
            background=background.astype(np.float32),
            centre=centre.astype(np.float32),
        )

    def score(self, seen: Seen) -> Array:
        """``(n,)`` squared distances."""
        values = seen.space(self.space)
        found = squared_distances(values @ self.whiten, self.means).min(axis=1)
        if self.relative:
            found = found - np.square(values @ self.background - self.centre).sum(axis=1)
        return np.asarray(found, np.float64)

    def state(self) -> tuple[Arrays, Mapping[str, Any]]:
        """What it was fitted to."""
        arrays = {
            "whiten": self.whiten,
            "means": self.means,
            "background": self.background,
            "centre": self.centre,
        }
        return arrays, {"space": self.space, "relative": self.relative}


@dataclass(frozen=True, kw_only=True, eq=False)
class Nearest:
    """Distance to the k-th nearest known input (Sun et al., 2022).

    Features are brought to length 1, as there; inputs are not.

    Attributes:
        space: "inputs" or "features".
        known: ``(m, d)``.
        k: Which neighbour.
        labels: ``(m,)`` classes, where the neighbours must have the predicted class (a density of features by class,
            against adversarial inputs); empty where any will do.
    """

    space: str
    known: Floats
    k: int
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        order = np.argsort(self.labels, kind="stable") if len(self.labels) else np.arange(len(self.known))
        known, labels = self.known[order], self.labels[order] if len(self.labels) else self.labels
        parts = [(int(label), known[labels == label]) for label in np.unique(labels)] or [(-1, known)]
        # As `squared_distances` has them, but for the inputs' own lengths, which move all distances of an input alike.
        prepared = [
            (label, np.float32(-2.0) * np.ascontiguousarray(part.T), np.square(part).sum(axis=1))
            for label, part in parts
        ]
        object.__setattr__(self, "_parts", prepared)

    @property
    def name(self) -> str:
        """As in figures."""
        return f"{'neighbours of the class' if len(self.labels) else 'neighbours'} by {self.space}"

    @classmethod
    def fit(
        cls,
        seen: Seen,
        y: NDArray[np.int64],
        *,
        space: str,
        most: int,
        rng: np.random.Generator,
        by_class: bool,
    ) -> Self:
        """From inliers, of which at most so many are kept."""
        rows = np.sort(rng.permutation(len(seen))[:most])
        known = _scaled(seen.space(space)[rows], space)
        labels = y[rows].astype(np.int64) if by_class else np.zeros(0, np.int64)
        fewest = int(np.unique(labels, return_counts=True)[1].min()) if by_class else len(rows)
        return cls(space=space, known=known, k=max(1, min(_NEIGHBOURS, fewest)), labels=labels)

    def score(self, seen: Seen) -> Array:
        """``(n,)`` squared distances."""
        values = _scaled(seen.space(self.space), self.space)
        # A class that no known input has is the strangest that there is.
        found = np.full(len(values), _FARTHEST)
        for label, part, norms in vars(self)["_parts"]:
            own = None if label < 0 else seen.labels == label
            many = len(values) if own is None else np.count_nonzero(own)
            if many == len(values):
                found[:] = self._kth(values, part, norms)
            elif many:
                found[own] = self._kth(values[own], part, norms)
        return found

    def _kth(self, x: Floats, part: Floats, norms: Floats) -> Floats:
        """``(n,)`` the k-th smallest squared distance to a part."""
        found = x @ part
        found += norms
        found.partition(self.k - 1, axis=1)
        return np.asarray(np.maximum(found[:, self.k - 1] + np.square(x).sum(axis=1), np.float32(0.0)))

    def state(self) -> tuple[Arrays, Mapping[str, Any]]:
        """What it was fitted to."""
        return {"known": self.known, "labels": self.labels}, {"space": self.space, "k": self.k}


def squared_distances(x: Floats, known: Floats, norms: Floats | None = None) -> Floats:
    """``(n, m)`` squared Euclidean distances, at least 0.

    Args:
        x: ``(n, d)``.
        known: ``(m, d)``.
        norms: ``(m,)`` squared lengths of `known`, where they are at hand.
    """
    found = x @ known.T
    found *= -2.0
    found += np.square(known).sum(axis=1) if norms is None else norms
    found += np.square(x).sum(axis=1)[:, None]
    return np.asarray(np.maximum(found, 0.0, out=found))


def _scaled(values: Floats, space: str) -> Floats:
    if space == "inputs":
        return values
    norms = np.sqrt(np.einsum("ij,ij->i", values, values))[:, None]
    return np.asarray(values / np.maximum(norms, np.float32(_TINY)))


def _whitening(centred: Array) -> Array:
    """``(d, d)`` the inverse root of a covariance with a ridge."""
    covariance = centred.T @ centred / max(1, len(centred) - 1)
    variances, directions = np.linalg.eigh(covariance)
    floor = _RIDGE * max(float(variances.mean()), _TINY)
    return np.asarray(directions / np.sqrt(np.maximum(variances, 0.0) + floor))
