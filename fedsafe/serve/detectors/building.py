"""Which detectors there are for a kind of input, and how each is made again from what was saved."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.data import InputSchema
from fedsafe.errors import RecordError
from fedsafe.serve.detectors.base import Arrays, Detector, Seen
from fedsafe.serve.detectors.column_tree import ColumnTree, columns_of
from fedsafe.serve.detectors.distances import Mahalanobis, Nearest
from fedsafe.serve.detectors.energy import Energy
from fedsafe.serve.detectors.squeezing import Squeezing

KNOWN = 2000
"""Known inputs that neighbours are looked for among, at most."""


def candidates(
    seen: Seen, y: NDArray[np.int64], schema: InputSchema, rng: np.random.Generator
) -> list[Detector]:
    """Detectors of inputs from elsewhere, fitted; which of them are used is chosen by validation.

    Args:
        seen: Public inliers.
        y: ``(n,)`` their classes; zeros where nothing is classified.
        schema: The public schema.
        rng: Draws the known inputs.
    """
    found: list[Detector] = [Energy()] if seen.classes else []
    spaces = ["inputs"] if seen.features.shape == seen.inputs.shape else ["features", "inputs"]
    for space in spaces:
        found.append(Mahalanobis.fit(seen, y, space=space))
        found.append(Nearest.fit(seen, y, space=space, most=KNOWN, rng=rng, by_class=False))
    found.append(Mahalanobis.fit(seen, y, space=spaces[0], relative=True))
    if len(schema.shape) == 1:
        found.append(ColumnTree.fit(seen.inputs, columns_of(schema.one_hot, seen.inputs.shape[1])))
    return found


def adversarial_detectors(
    seen: Seen, y: NDArray[np.int64], schema: InputSchema, rng: np.random.Generator
) -> list[Detector]:
    """Detectors of inputs that were changed to be misread; empty where nothing may be moved, or is classified."""
    moved = np.asarray(schema.perturbable, np.bool_).ravel()
    if not seen.classes or not moved.any():
        return []
    image = len(schema.shape) == 3 and min(schema.shape[1:]) >= 4
    squeezing = Squeezing(
        shape=tuple(schema.shape),
        low=np.asarray(schema.low, np.float32).ravel(),
        high=np.asarray(schema.high, np.float32).ravel(),
        moved=moved,
        levels=(2, 8) if image else (16,),
        median=image,
    )
    space = "inputs" if seen.features.shape == seen.inputs.shape else "features"
    return [squeezing, Nearest.fit(seen, y, space=space, most=KNOWN, rng=rng, by_class=True)]


def rebuild(kind: str, arrays: Arrays, values: Mapping[str, Any]) -> Detector:
    """A detector from what `Detector.state` gave.

    Args:
        kind: Name of its class.
        arrays: By name.
        values: Plain values.

    Raises:
        RecordError: There is no such kind, or something is missing.
    """
    try:
        if kind == "Energy":
            return Energy()
        if kind == "Squeezing":
            return Squeezing(
                shape=tuple(values["shape"]),
                low=arrays["low"],
                high=arrays["high"],
                moved=arrays["moved"].astype(np.bool_),
                levels=tuple(values["levels"]),
                median=bool(values["median"]),
            )
        if kind == "ColumnTree":
            return ColumnTree(
                groups=tuple(map(tuple, values["groups"])),
                edges=arrays["edges"],
                parents=arrays["parents"],
                tables=arrays["tables"],
            )
        made: dict[str, Any] = {"Mahalanobis": Mahalanobis, "Nearest": Nearest}
        detector: Detector = made[kind](**arrays, **values)
        return detector
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(
            f"the saved detector {kind!r} cannot be read ({error}): fit the monitor again"
        ) from error
